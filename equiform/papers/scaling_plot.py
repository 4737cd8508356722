"""Plot of the scaling study: loss over compute, over processor time, and over the number of training trajectories."""

from pathlib import Path

import numpy as np

from equiform.papers.scaling_fit import common_costs, curves, frontier, power_law
from equiform.papers.scaling_report import Scaling
from equiform.report.plots import COLOURS, MARKERS


def draw_scaling(path: Path, found: Scaling) -> Path:
    """Draw all runs, the frontiers with their power laws, and the losses on fewer data.

    Args:
        path: PNG file to write.
        found: The analysis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    compute, time, data = figure.subplots(1, 3, sharey=True)
    for (name, losses), colour, marker in zip(found.frontiers.items(), COLOURS, MARKERS):
        for run in curves(found.points, name):
            compute.plot(run.cost, run.loss, marker + "-", color=colour, alpha=0.35, markersize=3, linewidth=0.8)
        if len(found.costs):
            factor, exponent, _ = power_law(found.costs, losses)
            compute.plot(found.costs, losses, color=colour, linewidth=2, label=f"{name}: C^−{exponent:.2f}")
            compute.plot(found.costs, factor * found.costs**-exponent, ":", color=colour)
        runs = curves(found.points, name, "seconds")
        costs = common_costs([runs])
        if len(costs):
            time.plot(costs, frontier(runs, costs), color=colour, linewidth=2, label=name)
        last: dict[int, list[float]] = {}
        steps = max((point.step for point in found.points), default=0)
        sizes = {point.size for point in found.points if point.model == name and point.limited}
        for point in found.points:
            if point.model == name and point.size in sizes and point.step == steps:
                last.setdefault(point.trajectories, []).append(point.loss)
        counts = sorted(last)
        if counts:
            data.plot(counts, [np.mean(last[count]) for count in counts], marker + "-", color=colour, label=name)
    compute.set(xlabel="nominal floating-point operations", ylabel="test loss (uniform motion: 1)")
    time.set(xlabel="processor time (s)")
    data.set(xlabel="training trajectories, middle size")
    for axes in (compute, time, data):
        if axes.lines:  # a logarithmic axis needs something on it
            axes.set(xscale="log", yscale="log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    compute.yaxis.set_major_formatter("{x:g}")
    compute.yaxis.set_minor_formatter("{x:g}")
    figure.savefig(path, dpi=120)
    return path
