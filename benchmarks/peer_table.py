"""Output of benchmarks/peers.py: its rows as a terminal table, as Markdown, and as a bar chart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from equiform.runtime.files import explained

OURS = "Equiform"
TITLES = ("inputs", "edges", "code", "parameters", "program", "ms", "× Equiformer's time")


@dataclass(frozen=True)
class PeerRow:
    """One program of one code.

    Attributes:
        inputs: Source of the molecules.
        edges: Number of edges that this code used.
        code: Its name, version and size.
        parameters: Number of trainable parameters.
        program: The timed program.
        seconds: Time of every round.
        reference_seconds: Time of the same program of our Equiformer, in the same rounds.
    """

    inputs: str
    edges: int
    code: str
    parameters: int
    program: str
    seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """Median over the rounds."""
        return 1e3 * float(np.median(self.seconds))

    @property
    def ratio(self) -> float:
        """Median over the rounds of this code's time divided by our Equiformer's in the same round, so that drift cancels."""
        return float(np.median(np.asarray(self.seconds) / np.asarray(self.reference_seconds)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ms": self.milliseconds, "ratio": self.ratio}


def _cells(row: PeerRow) -> tuple[str, ...]:
    numbers = (f"{row.milliseconds:,.0f}" if row.milliseconds >= 100 else f"{row.milliseconds:,.1f}", f"{row.ratio:.2f}")
    return (row.inputs, f"{row.edges:,}", row.code, f"{row.parameters:,}", row.program, *numbers)


def terminal_table(rows: Sequence[PeerRow]) -> Table:
    """The terminal table."""
    table = Table(*TITLES)
    for column in (1, 3, 5, 6):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(*_cells(row))
    return table


def markdown_table(rows: Sequence[PeerRow]) -> str:
    """The table as Markdown."""
    lines = [TITLES, ("---", "---:", "---", "---:", "---", "---:", "---:"), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rows: Sequence[PeerRow], path: Path) -> Path:
    """Bar chart of times in milliseconds, one panel per program; ours are blue."""
    from matplotlib.figure import Figure

    groups = {
        program: [row for row in rows if row.program == program] for program in dict.fromkeys(row.program for row in rows)
    }
    heights = [0.7 + 0.3 * len(group) for group in groups.values()]
    figure = Figure(figsize=(8, sum(heights)), dpi=90, layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (program, group) in zip(panels, groups.items(), strict=True):
        values = [row.milliseconds for row in group]
        colors = ["#2b6cb0" if row.code.startswith(OURS) else "#a0aec0" for row in group]
        axis.barh(range(len(group)), values, color=colors, height=0.65)
        for place, value in enumerate(values):
            axis.annotate(f" {value:,.0f}", (value, place), va="center", fontsize=8)
        axis.set_yticks(range(len(group)), [row.code for row in group], fontsize=8)
        axis.set(ylim=(len(group) - 0.5, -0.5), xlim=(0, 1.12 * max(values)), title=f"{program}, {group[0].edges:,} edges: ms")
    with explained("cannot write the plot", "name another file by --plot"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path
