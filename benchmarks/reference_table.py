"""Output of benchmarks/reference.py: its rows as a terminal table or as Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

AIMS = {"energy": 10.0, "energy step": 8.0, "energy + forces": 9.0, "energy + forces step": 6.0}
"""Target speed-up over the published form, by program."""
TITLES = (
    "case",
    "inputs",
    "edges",
    "program",
    "published form, ms",
    "Equiform, ms",
    "times faster",
    "aim",
    "outputs differ by",
)
NUMBERS = (2, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Row:
    """One program in both forms.

    Attributes:
        case: The case.
        inputs: Source of the molecules.
        edges: Number of edges in the batch.
        parameters: Number of trainable parameters of both.
        program: The timed program.
        published_seconds: Time of the published form in every round.
        our_seconds: Time of Equiform in the same rounds.
        difference: Maximum relative difference of their energies and forces.
    """

    case: str
    inputs: str
    edges: int
    parameters: int
    program: str
    published_seconds: tuple[float, ...]
    our_seconds: tuple[float, ...]
    difference: float

    @property
    def ratio(self) -> float:
        """Median over the rounds of the published form's time divided by ours in the same round, so that drift cancels."""
        return float(np.median(np.asarray(self.published_seconds) / np.asarray(self.our_seconds)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "aim": AIMS[self.program]}


def _cells(row: Row) -> tuple[str, ...]:
    times = (f"{1e3 * float(np.median(seconds)):,.0f}" for seconds in (row.published_seconds, row.our_seconds))
    ends = (f"{row.ratio:.1f}", f"{AIMS[row.program]:.0f}", f"{row.difference:.0e}")
    return (row.case, row.inputs, f"{row.edges:,}", row.program, *times, *ends)


def terminal_table(rows: Sequence[Row]) -> Table:
    """The terminal table; a ratio below its target is red."""
    table = Table(*TITLES)
    for column in NUMBERS:
        table.columns[column].justify = "right"
    for row in rows:
        cells = list(_cells(row))
        if row.ratio < AIMS[row.program]:
            cells[6] = f"[red]{cells[6]}[/red]"
        table.add_row(*cells)
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    rule = tuple("---:" if column in NUMBERS else "---" for column in range(len(TITLES)))
    return "\n".join(f"| {' | '.join(line)} |" for line in (TITLES, rule, *map(_cells, rows)))
