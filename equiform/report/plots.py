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
    """Predicted against reference values with the diagonal, below them the errors, and every data set's mean absolute error.

    The largest data set is drawn first, so that it hides none; the more points, the more transparent they are, so that darkness
    shows their density.

    Returns:
        The path of the PNG file.
    """
    figure = _figure(len(panels), title, height=6.0)
    rows = figure.add_gridspec(2, max(len(panels), 1), height_ratios=(3, 1))
    for index, panel in enumerate(panels):
        axes, below = figure.add_subplot(rows[0, index]), figure.add_subplot(rows[1, index])
        low, high = np.inf, -np.inf
        names = list(panel.reference)
        for name in sorted(names, key=lambda name: -np.size(panel.reference[name])):
            reference, predicted = _finite(panel.reference[name], panel.predicted[name])
            if not len(reference):
                continue
            error = np.abs(predicted - reference).mean() * panel.error_scale
            low = min(low, reference.min(), predicted.min())
            high = max(high, reference.max(), predicted.max())
            if len(reference) > MAX_POINTS:
                chosen = np.random.default_rng(0).choice(len(reference), MAX_POINTS, replace=False)
                reference, predicted = reference[chosen], predicted[chosen]
            number = names.index(name)
            size = min(9.0, max(2.0, 9 * (500 / len(reference)) ** 0.5))
            alpha = min(0.7, max(0.08, 600 / len(reference)))
            axes.scatter(
                reference,
                predicted,
                s=size,
                alpha=alpha,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linewidths=0,
                label=f"{name}: MAE {error:.3g} {panel.error_unit or panel.unit}",
                rasterized=True,
            )
            residual = panel.error_scale * (predicted - reference)
            below.plot(
                reference,
                residual,
                linestyle="none",
                marker=MARKERS[number % len(MARKERS)],
                markersize=size**0.5,
                markeredgewidth=0,
                alpha=alpha,
                color=COLOURS[number % len(COLOURS)],
                rasterized=True,
            )
        _label(axes, panel.quantity, "", f"predicted ({panel.unit})")
        _label(below, "", f"reference ({panel.unit})", f"error ({panel.error_unit or panel.unit})")
        if low > high:
            axes.text(0.5, 0.5, "no labels", ha="center", va="center", transform=axes.transAxes)
            continue
        margin = 0.04 * (high - low) or 1.0
        ends = (low - margin, high + margin)
        axes.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
        below.axhline(0, color="0.4", linewidth=0.8, linestyle="--", zorder=0)
        for shown in (axes, below):
            shown.set_xlim(ends)
        axes.set_ylim(ends)
        # Above the panel, where it covers nothing.
        legend = axes.legend(
            frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.08), borderpad=0, handletextpad=0.2
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return _save(figure, path)


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
