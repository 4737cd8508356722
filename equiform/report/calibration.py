"""The calibration plot: expected against observed errors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from equiform.report import plots

Bins = tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"], str, float]
"""Expected and observed root mean square error of each bin, their unit, and the miscalibration."""


def calibration_plot(path: Path, quantities: Mapping[str, Bins]) -> Path:
    """Observed against expected root mean square errors in bins of the expected one; perfect ones are on the line.

    Args:
        path: The PNG file.
        quantities: By name.
    """
    panels = []
    for name, (expected, observed, unit, miscalibration) in quantities.items():
        ends = np.array([min(expected.min(), observed.min()), max(expected.max(), observed.max())])
        curves = [plots.Curve(f"miscalibration {miscalibration:.3g}", expected, observed, marked=True)]
        curves.append(plots.Curve("as expected", ends, ends))
        panels.append(plots.Panel(name, f"expected error ({unit})", f"observed RMSE ({unit})", curves))
    return plots.lines(path, panels)
