"""Plots of a run: learning curves, parity, molecular dynamics. PNG files, drawn without a display.

The colours are the colour-blind-safe palette of Okabe and Ito; every axis has its unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_POINTS = 20_000
"""Maximum number of points in a parity plot; of more points a seeded random sample is drawn."""


@dataclass(frozen=True)
class Curve:
    """One curve of a plot over training.

    Attributes:
        label: Legend label.
        x: Epochs (or steps).
        y: Values in the unit of the panel.
        marked: Draw a marker per point, for quantities measured at intervals.
    """

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """A set of axes with its curves."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log_y: bool = False


@dataclass(frozen=True)
class Parity:
    """Predicted against reference values of one quantity.

    Attributes:
        quantity: Name, such as "force components".
        unit: Unit of the values.
        reference: Reference values per data set.
        predicted: Predicted values per data set, in the same order.
        error_unit: Unit of the mean absolute error in the legend.
        error_scale: `error_unit` per `unit`.
    """

    quantity: str
    unit: str
    reference: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]
    error_unit: str = ""
    error_scale: float = 1.0


def lines(path: Path, panels: Sequence[Panel], *, title: str = "") -> Path:
    """Draw panels side by side in one file.

    Returns:
        The path of the PNG file.
    """
    figure = _figure(len(panels), title)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for number, curve in enumerate(panel.curves):
            x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
            finite = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not panel.log_y))
            axes.plot(
                x[finite],
                y[finite],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)] if curve.marked and len(x) <= 60 else None,
                markersize=4,
                linewidth=1.3,
                label=curve.label,
            )
        if panel.log_y and any(np.any(np.asarray(curve.y, float) > 0) for curve in panel.curves):
            axes.set_yscale("log")
            _plain_ticks(axes)
        _label(axes, panel.title, panel.x_label, panel.y_label)
        if len(panel.curves) > 1:  # above the panel, where it covers no curve
            axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.08), ncols=len(panel.curves))
    return _save(figure, path)


def parity(path: Path, panels: Sequence[Parity], *, title: str = "") -> Path:
    """Predicted against reference values with the diagonal; below, the errors, and beside them their distribution by data set.

    The largest data set is drawn first, so that it hides none; the more points, the more transparent they are, so that darkness
    shows their density. The distributions have the same area, and show sets that points of others cover.

    Returns:
        The path of the PNG file.
    """
    figure = _figure(len(panels), title, height=6.0)
    rows = figure.add_gridspec(2, 2 * max(len(panels), 1), height_ratios=(3, 1), width_ratios=(6, 1) * max(len(panels), 1))
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(rows[0, 2 * index : 2 * index + 2])
        below = figure.add_subplot(rows[1, 2 * index])
        beside = figure.add_subplot(rows[1, 2 * index + 1], sharey=below)
        _label(axes, panel.quantity, f"reference ({panel.unit})", f"predicted ({panel.unit})")
        _label(below, "", f"reference ({panel.unit})", f"error ({panel.error_unit or panel.unit})")
        _label(beside, "", "density", "")
        beside.tick_params(labelleft=False, labelbottom=False, length=0)
        sets = {name: _finite(panel.reference[name], panel.predicted[name]) for name in panel.reference}
        sets = {name: pair for name, pair in sets.items() if len(pair[0])}
        if not sets:
            axes.text(0.5, 0.5, "no labels", ha="center", va="center", transform=axes.transAxes)
            continue
        errors = {name: panel.error_scale * (predicted - reference) for name, (reference, predicted) in sets.items()}
        bins = _error_bins(list(errors.values()))
        names = list(panel.reference)
        for name in sorted(sets, key=lambda name: -len(sets[name][0])):
            number = names.index(name)
            style = _Style(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
            size = float(np.abs(errors[name]).mean())
            mae = f"{size:.0f}" if 1e3 <= size < 1e5 else f"{size:.3g}"
            _points(axes, *_sample(*sets[name]), style, label=f"{name}: MAE {mae} {panel.error_unit or panel.unit}")
            _points(below, *_sample(sets[name][0], errors[name]), style)
            beside.hist(
                np.clip(errors[name], bins[0], bins[-1]),
                bins=bins,
                density=True,
                orientation="horizontal",
                histtype="step",
                color=style.colour,
                linewidth=1.2,
            )
        low = min(min(pair[0].min(), pair[1].min()) for pair in sets.values())
        high = max(max(pair[0].max(), pair[1].max()) for pair in sets.values())
        margin = 0.04 * (high - low) or 1.0
        ends = (low - margin, high + margin)
        axes.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
        below.axhline(0, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
        for shown in (axes, below):
            shown.set_xlim(ends)
        axes.set_ylim(ends)
        below.locator_params(axis="x", nbins=4)  # it is narrower than the plot above
        # Above the panel, where it covers nothing.
        legend = axes.legend(
            frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.08), borderpad=0, handletextpad=0.2, markerscale=2
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return _save(figure, path)


@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str


def _points(axes: "Axes", x: np.ndarray, y: np.ndarray, style: _Style, label: str | None = None) -> None:
    """Points, smaller and more transparent the more there are."""
    size, alpha = min(9.0, max(2.0, 9 * (500 / len(x)) ** 0.5)), min(0.7, max(0.08, 600 / len(x)))
    axes.scatter(x, y, s=size, alpha=alpha, color=style.colour, marker=style.marker, linewidths=0, label=label, rasterized=True)


def _sample(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MAX_POINTS:
        return x, y
    chosen = np.random.default_rng(0).choice(len(x), MAX_POINTS, replace=False)
    return x[chosen], y[chosen]


def _error_bins(errors: Sequence[np.ndarray]) -> list[float]:
    """Bins of the distributions, fine where most errors are; the few larger ones are counted in the first and the last."""
    together = np.abs(np.concatenate(errors))
    usual = 3 * float(np.quantile(together, 0.9)) or 1.0
    return np.linspace(-usual, usual, 41).tolist()


def structure(path: Path, atoms: Any) -> Path:
    """A structure as balls, seen along a general direction; the cell, if it has one.

    Args:
        path: PNG file to write.
        atoms: An `ase.Atoms`.

    Returns:
        The path of the PNG file.
    """
    from ase.visualize.plot import plot_atoms

    figure = _figure(1, "", height=3.2)
    axes = figure.add_subplot(1, 1, 1)
    plot_atoms(atoms, axes, rotation="20x,30y,5z", show_unit_cell=2 if atoms.pbc.any() else 0)
    axes.set_axis_off()
    return _save(figure, path)


def dynamics(
    path: Path,
    time: np.ndarray,
    temperature: np.ndarray,
    total_energy: np.ndarray,
    num_atoms: int,
    *,
    drift: float | None = None,
    title: str = "",
) -> Path:
    """Temperature and change of the total energy along a molecular-dynamics run.

    Args:
        path: PNG file to write.
        time: ps.
        temperature: K.
        total_energy: Potential plus kinetic energy of the system, eV.
        num_atoms: Number of atoms in the system.
        drift: Slope of the total energy, eV/atom/ps; drawn and labelled if given.
        title: Title above the panels.

    Returns:
        The path of the PNG file.
    """
    energy = (np.asarray(total_energy, float) - total_energy[0]) / num_atoms * 1e3
    change = [Curve("total energy", time, energy)]
    if drift is not None:
        time = np.asarray(time, float)
        fit = energy.mean() + drift * 1e3 * (time - time.mean())
        change.append(Curve(f"drift {drift:.1e} eV/atom/ps", time, fit))
    return lines(
        path,
        [
            Panel("Temperature", "time (ps)", "temperature (K)", [Curve("temperature", time, temperature)]),
            Panel("Total energy", "time (ps)", "change of energy (meV/atom)", change),
        ],
        title=title,
    )


def _finite(reference: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, predicted = np.ravel(reference).astype(float), np.ravel(predicted).astype(float)
    keep = np.isfinite(reference) & np.isfinite(predicted)
    return reference[keep], predicted[keep]


def _figure(num_panels: int, title: str, height: float = 3.6) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * max(num_panels, 1), height), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _label(axes: "Axes", title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8, which="both")
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _plain_ticks(axes: "Axes") -> None:
    """Write 20 and 0.5 on a logarithmic axis rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axes.get_ylim()
    between = (2.0, 3.0, 5.0) if high / low < 100 else (3.0,) if high / low < 1e4 else ()
    axes.yaxis.set_minor_locator(LogLocator(subs=between or (1.0,)))
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path
