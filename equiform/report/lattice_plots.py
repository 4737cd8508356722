"""Plots of lattice simulations: chains, structure factor and correlations of a run, observables against temperature."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equiform.report.plots import COLOURS
from equiform.simulate.monte_carlo.analysis import Correlations, Summary
from equiform.simulate.monte_carlo.simulation import TRACED, SimulationConfig, Trace


def draw_run(path: Path, config: SimulationConfig, trace: Trace, found: Correlations) -> Path:
    """A run: free energy and magnetisations by step, S(q) over the Brillouin zone, correlation against distance.

    Args:
        path: PNG file to write.
        config: The run's settings.
        trace: Its steps.
        found: Its correlations.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    chains, magnetizations, zone, distance = figure.subplots(2, 2).ravel()
    steps = np.arange(1, len(trace.values) + 1)
    for chain, values in enumerate(trace.values.transpose(1, 0, 2)):
        colour = COLOURS[chain % len(COLOURS)]
        chains.plot(steps, values[:, TRACED.index("free_energy")], color=colour, linewidth=0.6)
        magnetizations.plot(steps, values[:, TRACED.index("staggered")], color=colour, linewidth=0.6)
    chains.set(xlabel="step", ylabel="F (t)", title=f"{config.model.lattice}, T = {config.temperature:g}, chains by colour")
    magnetizations.set(xlabel="step", ylabel="staggered magnetisation", title="staggered magnetisation")
    # (π, π) in the middle; the first row and column once more at the other border.
    factor = np.pad(found.structure_factor, ((0, 1), (0, 1)), mode="wrap")
    edges = [2 * np.arange(sites + 2) / sites - 1 / sites for sites in config.model.size]
    picture = zone.pcolormesh(edges[0], edges[1], factor.T, cmap="viridis")
    figure.colorbar(picture, ax=zone, label="S(q)")
    zone.set(xlabel="q_x / π", ylabel="q_y / π", title="structure factor")
    zone.set_aspect("equal")
    distance.errorbar(
        found.distances[1:], found.correlation[1:], found.correlation_error[1:], fmt="o", color=COLOURS[0], capsize=2
    )
    distance.axhline(0, color="#888888", linewidth=0.8)
    distance.set(xlabel="distance (lattice spacings)", ylabel="⟨S(0) · S(r)⟩", title="spin correlation")
    figure.savefig(path, dpi=120)
    return path


def draw_scan(path: Path, summaries: Sequence[Summary], title: str) -> Path:
    """Energy, specific heat, magnetisations and density against temperature for each μ, with error bars.

    Args:
        path: PNG file to write.
        summaries: One per run.
        title: Over the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    energy, heat, magnetization, density = figure.subplots(2, 2).ravel()
    potentials = sorted({one.chemical_potential for one in summaries})

    def curve(axes, name: str, label: str, colour: str, style: str = "o-", *, chosen: Sequence[Summary]) -> None:
        middle, error = zip(*(getattr(one, name) for one in chosen))
        places = [one.temperature for one in chosen]
        axes.errorbar(places, middle, error, fmt=style, color=colour, label=label, capsize=2, markersize=4)

    for number, potential in enumerate(potentials):
        chosen, colour = [one for one in summaries if one.chemical_potential == potential], COLOURS[number % len(COLOURS)]
        label = f"μ = {potential:g}" if len(potentials) > 1 else ""
        curve(energy, "energy", label, colour, chosen=chosen)
        curve(heat, "specific_heat", label, colour, chosen=chosen)
        curve(density, "density", label, colour, chosen=chosen)
        curve(magnetization, "staggered", f"{label} staggered".strip(), colour, chosen=chosen)
        curve(magnetization, "magnetization", f"{label} uniform".strip(), colour, "s--", chosen=chosen)
    energy.set(xlabel="T (t)", ylabel="energy a site (t)")
    heat.set(xlabel="T (t)", ylabel="specific heat a site (k_B)")
    magnetization.set(xlabel="T (t)", ylabel="magnetisation", ylim=(0, None))
    density.set(xlabel="T (t)", ylabel="electrons a site")
    density.ticklabel_format(axis="y", useOffset=False)
    magnetization.legend(frameon=False, fontsize="small")
    if len(potentials) > 1:
        density.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path
