"""Figures of a benchmark: the fraction of the machine's rate per program, and the scaling curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from equiform.benchmark.rows import Row
from equiform.benchmark.scaling import CURVES, Point
from equiform.runtime.files import explained

BLUE, GREY = "#2b6cb0", "#a0aec0"


def plot_rows(rows: Sequence[Row], path: Path) -> Path:
    """Bars of µs per edge and of the fraction of the machine's matrix-product rate, one pair per program."""
    figure, axes = _figure(1, 2, (9.5, 0.9 + 0.32 * len(rows)))
    names = [f"{row.case}: {row.program}" + (f" ({row.note.partition(',')[0]})" if row.case == "md" else "") for row in rows]
    fractions = [100 * row.matrix_share for row in rows]
    columns = [
        (axes[0, 0], [row.us_per_edge for row in rows], "µs per edge"),
        (axes[0, 1], fractions, "% of matrix-product rate"),
    ]
    for axis, values, label in columns:
        axis.barh(range(len(rows)), values, color=BLUE, height=0.6)
        for place, value in enumerate(values):
            axis.annotate(f" {value:,.0f}" if value >= 100 else f" {value:.3g}", (value, place), va="center", fontsize=8)
        axis.set(xlabel=label, yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.15 * max(values, default=1)))
        axis.set_yticklabels(names if axis is axes[0, 0] else [])
    return _save(figure, path)


def plot_scaling(points: Sequence[Point], path: Path) -> Path:
    """Time and memory, one column per curve; dotted: proportional to the last point."""
    curves = {name: [point for point in points if point.curve == name] for name in CURVES}
    figure, axes = _figure(2, len(curves), (3.2 * len(curves), 5.2))
    for column, (name, mine) in enumerate(curves.items()):
        x = [point.x for point in mine]
        for axis, values, label in (
            (axes[0, column], [point.steady_ms for point in mine], "energy + forces, ms"),
            (axes[1, column], [point.peak_mb or float("nan") for point in mine], "peak memory, MB"),
        ):
            axis.plot(x, values, "o-", color=BLUE)
            axis.set(xlabel=CURVES[name].label, yscale="log", xticks=x)
            if name != "l_max":
                axis.set_xscale("log", base=2)
                axis.set_xticks(x, [f"{value:,}" for value in x])
                axis.minorticks_off()
                axis.plot(x, [values[-1] * value / x[-1] for value in x], ":", color=GREY)
            if column == 0:
                axis.set_ylabel(label)
        axes[0, column].set_title(CURVES[name].fixed.replace(", degree", ",\ndegree"), fontsize=8)
    return _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=90, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    with explained("cannot write the plot", "choose another folder with --plot"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path
