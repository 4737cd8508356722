"""Plots of the study: error against number of parameters, acceptance of every model, and of some on larger lattices."""

from collections.abc import Sequence
from math import erfc, sqrt
from pathlib import Path

import numpy as np

from equiform.papers.double_exchange import LargerRow, Row
from equiform.papers.double_exchange_tables import chain_error
from equiform.report.plots import COLOURS


def draw_study(path: Path, rows: Sequence[Row]) -> Path:
    """Draw models of linear and transformer kind.

    Args:
        path: PNG file to write.
        rows: Results of all models; RKKY is left out of the errors.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    errors, acceptances = figure.subplots(1, 2)
    for kind, colour in (("linear", COLOURS[1]), ("transformer", COLOURS[0])):
        chosen = [row for row in rows if kind in row.name]
        if not chosen:
            continue
        sizes = [row.parameters for row in chosen]
        errors.plot(sizes, [np.mean(row.errors) for row in chosen], "o-", color=colour, label=kind)
        for row in chosen:
            errors.plot([row.parameters] * len(row.errors), row.errors, ".", color=colour, alpha=0.5)
    deep = [row for row in rows if "transformer" in row.name][2:]
    if len(deep) > 1:
        x, y = np.log([row.parameters for row in deep]), np.log([np.mean(row.errors) for row in deep])
        slope, offset = np.polyfit(x, y, 1)
        errors.plot(np.exp(x), np.exp(slope * x + offset), "--", color=COLOURS[2], label=f"L ≥ 2: parameters^{slope:.2f}")
    errors.set(xscale="log", yscale="log", xlabel="parameters", ylabel="test MSE of βF")
    if errors.lines:
        errors.legend(frameon=False)
    places = np.arange(len(rows))
    acceptances.errorbar(
        places,
        [row.accepted.mean() for row in rows],
        [chain_error(row.accepted) for row in rows],
        fmt="o",
        color=COLOURS[0],
        capsize=2,
        label="measured",
    )
    expected = [np.mean([erfc(sqrt(error) / 2) for error in row.errors]) for row in rows]
    acceptances.plot(places, expected, "x", color=COLOURS[1], label="erfc(√MSE / 2)")
    acceptances.set(ylabel="acceptance", ylim=(0, 1))
    acceptances.set_xticks(places, [row.name for row in rows], rotation=40, ha="right")
    acceptances.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def draw_larger(path: Path, rows: Sequence[LargerRow]) -> Path:
    """Acceptance of the same weights against the edge of the lattice, for each kind of proposal; seeds as small points.

    Args:
        path: PNG file to write.
        rows: Results on larger lattices.
    """
    from matplotlib.figure import Figure

    proposals, names = list(dict.fromkeys(row.proposal for row in rows)), list(dict.fromkeys(row.name for row in rows))
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, proposal in zip(np.ravel(figure.subplots(1, len(proposals), sharey=True)), proposals):
        for name, colour in zip(names, COLOURS):
            chosen = [row for row in rows if (row.name, row.proposal) == (name, proposal)]
            middle, spread = [row.accepted.mean() for row in chosen], [chain_error(row.accepted) for row in chosen]
            axes.errorbar([row.edge for row in chosen], middle, spread, fmt="o-", color=colour, label=name, capsize=2)
            single = [(row.edge, value) for row in chosen if row.seeds > 1 for value in row.by_seed]
            axes.plot(*zip(*single) if single else ((), ()), "o", color=colour, alpha=0.4, markersize=4)
        axes.set(title=proposal, xlabel="sites along an edge", ylabel="acceptance", ylim=(0, 1))
        axes.set_xticks(sorted({row.edge for row in rows}))
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path
