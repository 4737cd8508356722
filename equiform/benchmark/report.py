"""Output of a benchmark: the machine, the table's footnotes, JSON, figures."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equiform.benchmark.machine import Roofs, describe, measure_roofs
from equiform.benchmark.programs import Settings
from equiform.benchmark.rows import Row
from equiform.benchmark.scaling import CURVES, Point, curves, exponent
from equiform.errors import UserError
from equiform.runtime.files import explained, to_json, write_atomically

EXPLANATION = (
    "first s: first call, including compilation; cached s: the same with the compiled program in the cache; ms: median of the",
    "later calls. GFLOP/s: operations of the shortest exact algorithm, two per multiply–add; of matrix: fraction of the",
    "machine's matrix-product rate, measured alongside; of memory: minimum traffic (weights once; per layer every edge's",
    "vector, ends and sender's features, every atom's features) over time, as a fraction of the machine's memory rate.",
    "peak MB: arguments + temporaries + outputs, according to the compiler.",
)
FORMAT = 1


def describe_machine() -> tuple[dict[str, str], Roofs]:
    """The machine and its measured rates."""
    return describe(), measure_roofs()


def machine_lines(machine: dict[str, str], roofs: Roofs) -> list[str]:
    """The machine, human-readable."""
    rates = (
        f"matrix products: {roofs.matrix / 1e9:,.0f} GFLOP/s (single precision, 2048³); memory: {roofs.memory / 1e9:,.0f} GB/s"
    )
    return [f"{machine['processor']}; {machine['devices']}; JAX {machine['jax']}", rates]


def scaling_points(settings: Settings) -> list[Point]:
    """All scaling curves."""
    return list(curves(settings))


def scaling_lines(points: Sequence[Point]) -> list[str]:
    """The curves, human-readable, one line each."""
    lines = []
    for name in dict.fromkeys(point.curve for point in points):
        mine = [point for point in points if point.curve == name]
        values = ", ".join(f"{point.x}: {point.steady_ms:.1f} ms" + _memory(point) for point in mine)
        growth = f"; time ~ {name}^{exponent(mine):.2f} at the upper end" if name != "l_max" else ""
        lines.append(f"{name} → {values}{growth}")
    return lines


def scaling_markdown(points: Sequence[Point]) -> str:
    """The curves as a Markdown table."""
    lines = ["| curve | value | atoms | edges | ms | µs/edge | of matrix | peak MB |", "| --- |" + " ---: |" * 7]
    for point in points:
        sizes = f"{point.x:,} | {point.atoms:,} | {point.edges:,}"
        memory = "–" if point.peak_mb is None else f"{point.peak_mb:,.0f}"
        times = f"{point.steady_ms:.1f} | {1e3 * point.steady_ms / point.edges:.1f} | {point.matrix_share:.0%}"
        lines.append(f"| {CURVES[point.curve].label} | {sizes} | {times} | {memory} |")
    return "\n".join(lines)


def check_writable(path: Path) -> None:
    """Check before measuring that the JSON file can be written.

    Raises:
        UserError: It is a folder, or its parent folder cannot be created.
    """
    if path.is_dir():
        raise UserError(f"--json {path} is a folder; name a file")
    with explained(f"cannot create the folder of {path}", "choose another file with --json"):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)


def write(
    json_file: Path | None,
    plot_folder: Path | None,
    machine: dict[str, str],
    roofs: Roofs,
    rows: Sequence[Row],
    points: Sequence[Point],
) -> list[Path]:
    """Write the requested files and return their paths."""
    written: list[Path] = []
    if json_file is not None:
        content: dict[str, Any] = {
            "format": FORMAT,
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine,
            "roofs": {"matrix_gflops": roofs.matrix / 1e9, "memory_gbs": roofs.memory / 1e9},
            "rows": [row.as_dict() for row in rows],
            "scaling": [point.as_dict() for point in points],
        }
        with explained(f"cannot write {json_file}", "choose another file with --json"):
            write_atomically(json_file, to_json(content))
        written.append(json_file)
    if plot_folder is not None:
        from equiform.benchmark.plots import plot_rows, plot_scaling

        if rows:
            written.append(plot_rows(rows, plot_folder / "benchmark.png"))
        if points:
            written.append(plot_scaling(points, plot_folder / "scaling.png"))
    return written


def _memory(point: Point) -> str:
    return "" if point.peak_mb is None else f" {point.peak_mb:.0f} MB"
