"""A row of the benchmark's table, and the table as text, JSON and Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from equiform.benchmark.measure import Timing
from equiform.benchmark.operations import MULTIPLES, equiformer_operations, least_traffic

COLUMNS = ("case", "program", "atoms", "edges", "first s", "cached s", "ms", "µs/edge", "GFLOP/s", "of matrix", "of memory")
COLUMNS += ("peak MB", "compiled", "inputs; notes")
RIGHT = tuple(range(2, 13))


@dataclass(frozen=True)
class Row:
    """One measured program; None where a number does not apply.

    Attributes:
        case: Name of the case.
        program: The computation.
        atoms: Real atoms per call.
        edges: Real edges per call.
        first_s: First call, compilation included, s.
        cached_s: First call with the compiled program in the persistent cache, s.
        steady_ms: Median of the later calls, ms.
        best_ms: The shortest of them, ms.
        repeats: Number of later calls.
        us_per_edge: Steady time per edge, µs.
        gflops: 1e9 operations per second, counted in the shortest algorithm's multiply–adds times two.
        matrix_share: Fraction of the machine's matrix-product rate, measured alongside; 0 to 1.
        memory_share: Minimum traffic over steady time, as a fraction of the machine's memory rate; 0 to 1.
        matrix_gflops: The machine's matrix-product rate, measured alongside, GFLOP/s.
        memory_gbs: Its memory rate, GB/s.
        peak_mb: Memory of the program, 1e6 bytes.
        compilations: Programs compiled.
        inputs: Source of the structures.
        note: Further remarks.
    """

    case: str
    program: str
    atoms: int
    edges: int
    first_s: float | None
    cached_s: float | None
    steady_ms: float
    best_ms: float | None
    repeats: int
    us_per_edge: float
    gflops: float
    matrix_share: float
    memory_share: float
    matrix_gflops: float
    memory_gbs: float
    peak_mb: float | None
    compilations: int
    inputs: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def make_row(
    case: str,
    program: str,
    timing: Timing,
    config: Any,
    sizes: tuple[int, int],
    num_parameters: int,
    inputs: str,
    note: str = "",
) -> Row:
    """A row with rates computed from a timing.

    Args:
        case: Name of the case.
        program: One of `MULTIPLES`.
        timing: The measurement.
        config: The model's configuration.
        sizes: Real atoms and edges.
        num_parameters: Number of parameters of the model.
        inputs: Source of the structures.
        note: Further remarks.
    """
    multiple, seconds = MULTIPLES[program.removesuffix(" + stress")], timing.steady_s
    flops = 2 * multiple * equiformer_operations(config).total(*sizes) / seconds
    traffic = multiple * least_traffic(config, *sizes, num_parameters) / seconds
    return Row(
        case=case,
        program=program,
        atoms=sizes[0],
        edges=sizes[1],
        first_s=timing.first_s,
        cached_s=timing.cached_s,
        steady_ms=1e3 * seconds,
        best_ms=1e3 * min(timing.seconds),
        repeats=len(timing.seconds),
        us_per_edge=1e6 * seconds / sizes[1],
        gflops=flops / 1e9,
        matrix_share=flops / timing.roofs.matrix,
        memory_share=traffic / timing.roofs.memory,
        matrix_gflops=timing.roofs.matrix / 1e9,
        memory_gbs=timing.roofs.memory / 1e9,
        peak_mb=None if timing.memory is None else timing.memory / 1e6,
        compilations=timing.compilations,
        inputs=inputs,
        note=note,
    )


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row."""

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    steady = number(row.steady_ms, ".2f" if row.steady_ms < 10 else ".1f" if row.steady_ms < 100 else ",.0f")
    return (
        row.case,
        row.program,
        f"{row.atoms:,}",
        f"{row.edges:,}",
        number(row.first_s, ".1f"),
        number(row.cached_s, ".1f"),
        steady,
        number(row.us_per_edge, ".1f"),
        number(row.gflops, ".1f"),
        f"{100 * row.matrix_share:.0f} %",
        f"{100 * row.memory_share:.1f} %",
        number(row.peak_mb, ",.0f"),
        str(row.compilations),
        f"{row.inputs}; {row.note}" if row.note else row.inputs,
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    marks = ["---:" if i in RIGHT else "---" for i in range(len(COLUMNS))]
    lines = [COLUMNS, marks, *(cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
