"""Scaling curves: time and memory of energy + forces against atoms, degree and channels, everything else fixed."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from equiform.benchmark.cases import Settings, inference, new_potential
from equiform.benchmark.inputs import Inputs, make_molecules
from equiform.graph import batch

CHANNELS, L_MAX, MOLECULES = 64, 2, 16
"""What the other curves keep fixed."""
CURVES: dict[str, tuple[int, ...]] = {
    "atoms": (1, 4, 16, 64),
    "l_max": (0, 1, 2, 3),
    "channels": (16, 32, 64, 128),
}
"""Molecules in the batch; the highest degree; scalar channels, half as many for each further degree."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; `x` is the number of atoms, the degree, or the scalar channels."""

    curve: str
    x: int
    atoms: int
    edges: int
    steady_ms: float
    gflops: float
    matrix_share: float
    peak_mb: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def config_fields(channels: int, l_max: int) -> dict[str, Any]:
    """Fields of a two-layer Equiformer with some channels at l = 0 and half as many for each further degree."""

    def irreps(scalars: int) -> str:
        return "+".join(f"{max(scalars >> l, 1)}x{l}e" for l in range(l_max + 1))

    return {
        "irreps": irreps(channels),
        "irreps_sh": "+".join(f"1x{l}e" for l in range(l_max + 1)),
        "irreps_head": irreps(channels // 4),
        "irreps_mlp": irreps(2 * channels),
        "irreps_feature": f"{2 * channels}x0e",
        "num_layers": 2,
        "radial_widths": (32, 32),
    }


def curves(settings: Settings, progress: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Point]:
    """Measure all points, curve by curve."""
    settings = settings._replace(cached=False)
    pool = make_molecules([18] * max(CURVES["atoms"]))
    done, total = 0, sum(map(len, CURVES.values()))
    for curve, values in CURVES.items():
        for value in values:
            molecules = value if curve == "atoms" else MOLECULES
            fields = config_fields(value if curve == "channels" else CHANNELS, value if curve == "l_max" else L_MAX)
            potential = new_potential("tiny", (1, 6, 7, 8), **fields)
            inputs = Inputs(batch(pool[:molecules]), "made here")
            row = inference(f"{curve} {value}", potential, inputs, settings, forces=True)
            x = row.atoms if curve == "atoms" else value
            yield Point(curve, x, row.atoms, row.edges, row.steady_ms, row.gflops, row.matrix_share, row.peak_mb)
            done += 1
            progress(done, total)


def exponent(points: list[Point]) -> float:
    """Slope of log time against log x over the upper half of a curve."""
    upper = points[len(points) // 2 - 1 :]
    x, y = np.log([point.x for point in upper]), np.log([point.steady_ms for point in upper])
    return float(np.polyfit(x, y, 1)[0])
