"""Scaling curves: time and memory of energy + forces against one size at a time, everything else fixed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from equiform.benchmark.inputs import Inputs, make_molecules, silicon
from equiform.benchmark.programs import Settings, inference, new_potential
from equiform.graph import batch

CHANNELS, L_MAX, MOLECULES, CUTOFF = 64, 2, 16, 5.0
"""Values held fixed, except on the curve that varies them."""


class Curve(NamedTuple):
    """A scaling curve.

    Attributes:
        label: Axis label.
        fixed: Description of the fixed sizes.
        values: Molecules, atoms in a box, cutoffs in Å, highest degrees, or scalar channels.
    """

    label: str
    fixed: str
    values: tuple[float, ...]


CURVES = {
    "structures": Curve("molecules of 18 atoms", f"degree {L_MAX}, {CHANNELS} channels", (1, 4, 16, 64)),
    "atoms": Curve("atoms of a box of silicon", f"degree {L_MAX}, {CHANNELS} channels", (64, 216, 512, 1000)),
    "edges": Curve(
        "edges", f"216 atoms of silicon, cutoffs 3 to 6.5 Å, degree {L_MAX}, {CHANNELS} channels", (3.0, 4.2, 5.0, 6.5)
    ),
    "l_max": Curve("highest degree", f"{MOLECULES} molecules, {CHANNELS} channels", (0, 1, 2, 3)),
    "channels": Curve("scalar channels", f"{MOLECULES} molecules, degree {L_MAX}", (16, 32, 64, 128)),
}
"""The curves; channels are halved with each further degree."""


@dataclass(frozen=True)
class Point:
    """One point of a curve; `x` is the number of structures, atoms or edges, the degree, or the scalar channels."""

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
    """Fields of a two-layer Equiformer with `channels` at l = 0, halved with each further degree."""

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


def curves(settings: Settings) -> Iterator[Point]:
    """Measure all points, curve by curve."""
    settings = settings._replace(cached=False)
    for name, curve in CURVES.items():
        for value in curve.values:
            inputs, fields = _case(name, value)
            elements = tuple(sorted(set(np.asarray(inputs.graph.species).tolist())))
            row = inference(f"{name} {value:g}", new_potential("tiny", elements, **fields), inputs, settings, forces=True)
            x = row.edges if name == "edges" else int(value)
            yield Point(name, x, row.atoms, row.edges, row.steady_ms, row.gflops, row.matrix_share, row.peak_mb)


def _case(name: str, value: float) -> tuple[Inputs, dict[str, Any]]:
    """Structures and model fields of one point."""
    cutoff = value if name == "edges" else CUTOFF
    channels = int(value) if name == "channels" else CHANNELS
    fields = config_fields(channels, int(value) if name == "l_max" else L_MAX) | {"cutoff": cutoff}
    if name in ("atoms", "edges"):
        return silicon(int(value) if name == "atoms" else 216, cutoff), fields
    molecules = make_molecules([18] * (int(value) if name == "structures" else MOLECULES))
    return Inputs(batch(molecules), "generated"), fields


def exponent(points: list[Point]) -> float:
    """Slope of log time against log x over the upper half of a curve."""
    upper = points[len(points) // 2 - 1 :]
    x, y = np.log([point.x for point in upper]), np.log([point.steady_ms for point in upper])
    return float(np.polyfit(x, y, 1)[0])
