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
    progress: Progress = lambda done, total, note: None,
) -> list[Path]:
    """Anneal: from the highest temperature to the lowest, each run starting where the one before ended.

    A scan that was interrupted resumes.

    Args:
        folder: Of the scan; a folder for each temperature in it.
        config: Settings of all; the temperature is replaced.
        temperatures: T, in any order.
        steps: Sweeps at each.
        progress: Called after every step with the steps of all temperatures.

    Returns:
        The folders of the runs, highest temperature first.

    Raises:
        UserError: There are none, one is not positive, or two are the same.
    """
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
