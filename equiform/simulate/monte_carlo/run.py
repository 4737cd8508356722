"""Runs in folders: start or resume, save periodically, and anneal through temperatures."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equiform.errors import UserError
from equiform.persist.spin_model_file import EffectiveModel, same_model
from equiform.simulate.monte_carlo.chain_file import CHAIN, load_simulation, save_simulation
from equiform.simulate.monte_carlo.simulation import Simulation, SimulationConfig

Progress = Callable[[int, int, str], Any]
"""Progress callback `(done, total, note)` in steps."""

SAVE_EVERY = 60.0
"""Seconds between two states on disk: what a crash can cost."""


def run_folder(
    folder: Path,
    config: SimulationConfig,
    steps: int,
    effective: EffectiveModel | None = None,
    *,
    spins: np.ndarray | None = None,
    progress: Progress = lambda done, total, note: None,
) -> Simulation:
    """Bring the run of a folder to a number of steps; start it if there is none.

    Args:
        folder: The run's folder.
        config: Its settings.
        steps: Number of steps in all.
        effective: The effective model of self-learning; None samples locally.
        spins: First configurations, where it is started.
        progress: Called after every step.

    Raises:
        UserError: The folder holds a run of other settings, or is damaged, or cannot be written.
    """
    if (folder / CHAIN).exists():
        simulation, kept = load_simulation(folder)
        if simulation.config != config or not same_model(kept, effective):
            raise UserError(f"{folder} holds a run of other settings; resume it as it is, or choose another folder")
    else:
        if effective is not None and spins is None:
            local = Simulation(config)
            local.run(config.local_sweeps, lambda done, total: progress(done, total, "local sweeps"))
            spins = local.spins
        simulation = Simulation(config, effective, spins=spins)
    advance(folder, simulation, steps, effective, progress)
    return simulation


def advance(folder: Path, simulation: Simulation, steps: int, effective: EffectiveModel | None, progress: Progress) -> None:
    """Advance a run to a number of steps in all, saving it periodically, at the end, and when it is interrupted."""
    saved = time.monotonic()

    def after(done: int, total: int) -> None:
        nonlocal saved
        if time.monotonic() - saved > SAVE_EVERY:
            save_simulation(folder, simulation, effective=effective)
            saved = time.monotonic()
        progress(simulation.steps, steps, "")

    try:
        simulation.run(max(steps - simulation.steps, 0), after)
    finally:
        save_simulation(folder, simulation, effective=effective)


def scan_folder(
    folder: Path,
    config: SimulationConfig,
    temperatures: Sequence[float],
    steps: int,
    *,
    chemical_potentials: Sequence[float] = (),
    progress: Progress = lambda done, total, note: None,
) -> list[Path]:
    """Anneal: from the highest temperature to the lowest, each run starting where the one before ended.

    A scan that was interrupted resumes.

    Args:
        folder: Of the scan; a folder for each temperature in it, within one for each μ if there are several.
        config: Settings of all; the temperature is replaced, and μ where several are given.
        temperatures: T, in any order.
        steps: Sweeps at each.
        chemical_potentials: μ, each annealed separately; none takes that of `config`.
        progress: Called after every step with the steps of the whole scan.

    Returns:
        The folders of the runs: by μ ascending, then highest temperature first.

    Raises:
        UserError: There are no temperatures, one is not positive, or a temperature or μ is given twice.
    """
    if len(set(chemical_potentials)) < len(chemical_potentials):
        raise UserError(f"a scan needs different chemical potentials, got {', '.join(map(str, chemical_potentials))}")
    if not chemical_potentials:
        return _anneal(folder, config, temperatures, steps, progress)
    folders: list[Path] = []
    for number, potential in enumerate(sorted(chemical_potentials)):
        model = config.model.model_copy(update={"chemical_potential": potential})

        def advanced(done: int, total: int, note: str, number: int = number, potential: float = potential) -> None:
            progress(number * total + done, len(chemical_potentials) * total, f"μ = {potential:g}, {note}")

        here = config.model_copy(update={"model": model})
        folders += _anneal(folder / f"mu{potential:g}", here, temperatures, steps, advanced)
    return folders


def _anneal(
    folder: Path, config: SimulationConfig, temperatures: Sequence[float], steps: int, progress: Progress
) -> list[Path]:
    ordered = sorted(temperatures, reverse=True)
    if not ordered or ordered[-1] <= 0 or len(set(ordered)) < len(ordered):
        raise UserError(f"a scan needs different positive temperatures, got {', '.join(map(str, temperatures)) or 'none'}")
    folders, spins = [], None
    for number, temperature in enumerate(ordered):
        folders.append(folder / f"T{temperature:g}")
        here = config.model_copy(update={"temperature": temperature})

        def advanced(done: int, total: int, note: str, number: int = number, temperature: float = temperature) -> None:
            progress(number * steps + done, len(ordered) * steps, f"T = {temperature:g}")

        spins = run_folder(folders[-1], here, steps, spins=spins, progress=advanced).spins
    return folders
