"""The demo: train an Equiformer potential on ab initio data of ethanol and run molecular dynamics with it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiform.data.formats.shipped import shipped_data
from equiform.jobs import train as job
from equiform.recipes.schema import builtin_recipes, load_recipe
from equiform.report.html import Figure

FORCE_TARGET = 0.060  # eV/Å, mean absolute error on the 500 K hold-out
DRIFT_TARGET = 1e-4  # eV/atom/ps
TEMPERATURE = 500.0  # K
TIME_STEP = 0.5  # fs
EQUILIBRATION_STEPS = 2_000  # 1 ps NVT
PRODUCTION_STEPS = 20_000  # 10 ps NVE

Say = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Demo:
    """The results of the demo.

    Attributes:
        training: The trained model, its errors and the report.
        targets: The checks as (claim, measured, target, met).
        dynamics: Summary of the NVE run.
    """

    training: job.Outcome
    targets: list[tuple[str, str, str, bool]]
    dynamics: dict[str, Any]


def run(folder: Path, *, say: Say, warn: Say, bar: Bar) -> Demo:
    """Train, evaluate on both hold-outs, run NVT and NVE, and report.

    Args:
        folder: The run folder; new or empty.
        say: Called with each message.
        warn: Called with each warning.
        bar: Makes a progress bar with a title: a context manager that yields `advance(done, total, note)`.

    Raises:
        UserError: The folder is in use, or the run exploded.
    """
    started = time.perf_counter()
    recipe, _ = load_recipe(builtin_recipes()["ethanol"])
    found: dict[str, Any] = {}

    def simulate(outcome: job.Outcome) -> dict[str, Any]:
        warm, free = (steps * TIME_STEP / 1000 for steps in (EQUILIBRATION_STEPS, PRODUCTION_STEPS))
        say(f"molecular dynamics: {warm:g} ps NVT at {TEMPERATURE:g} K, then {free:g} ps NVE")
        summary, plot = dynamics(outcome.model, outcome.folder, EQUILIBRATION_STEPS, PRODUCTION_STEPS, bar)
        found["targets"] = _targets(outcome, summary)
        found["dynamics"] = summary
        minutes = (time.perf_counter() - started) / 60
        say(f"the whole demo took {minutes:.1f} minutes")
        caption = f"{summary['time_ps']:g} ps of NVE dynamics: temperature and change of the total energy."
        return {
            "figures": [Figure(plot, caption)],
            "targets": found["targets"],
            "facts": {
                "whole demo": f"{minutes:.1f} minutes",
                "dynamics": f"{summary['steps_per_second']:.0f} steps per second",
            },
        }

    outcome = job.train(recipe, folder, say=say, warn=warn, extra_report=simulate)
    assert outcome is not None  # it is None only in the other processes of a multi-process run
    return Demo(outcome, found["targets"], found["dynamics"])


def dynamics(model: Path, folder: Path, equilibration: int, production: int, bar: Bar) -> tuple[dict[str, Any], Path]:
    """Equilibrate a molecule of the 500 K hold-out with a thermostat (NVT), then run NVE.

    Args:
        model: The model folder.
        folder: Folder for trajectory, log and plot.
        equilibration: Number of NVT steps.
        production: Number of NVE steps.
        bar: Makes a progress bar.

    Returns:
        The summary of the NVE run, and its plot.
    """
    import numpy as np

    from equiform.data.formats.read import read_structures
    from equiform.deploy.predictor import load
    from equiform.report import plots
    from equiform.simulate.md.dynamics import MDConfig, run_md

    predictor = load(model)
    start = read_structures(str(shipped_data("ethanol_500K.extxyz")), index=0)[0]
    warm = MDConfig(ensemble="nvt", temperature=TEMPERATURE, steps=equilibration, timestep=TIME_STEP)
    with bar("NVT") as advance:
        heated = run_md(predictor, start, warm, progress=lambda now: advance(now.step, now.steps))
    # New velocities: the instantaneous temperature of nine atoms at the end of NVT may be far from 500 K.
    free = MDConfig(ensemble="nve", temperature=TEMPERATURE, steps=production, timestep=TIME_STEP)
    log = folder / "nve.csv"
    with bar("NVE") as advance:
        result = run_md(
            predictor,
            heated.atoms,
            free,
            trajectory=folder / "nve.extxyz",
            log=log,
            progress=lambda now: advance(now.step, now.steps, f"{now.temperature:.0f} K"),
        )
    columns = np.genfromtxt(log, delimiter=",", names=True, ndmin=1)
    plot = plots.dynamics(
        folder / "nve.png",
        columns["time_fs"] / 1000,
        columns["temperature_K"],
        columns["total_energy_eV"],
        len(start),
        drift=result.summary["energy_drift_eV_per_atom_per_ps"],
        title=f"Ethanol, NVE, {TIME_STEP:g} fs",
    )
    return result.summary, plot


def _targets(outcome: job.Outcome, summary: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    forces = outcome.errors["500K"]["forces"]["mae"]
    drift = summary["energy_drift_eV_per_atom_per_ps"]
    steps = PRODUCTION_STEPS
    return [
        (
            "force MAE, 500 K hold-out",
            f"{1e3 * forces:.1f} meV/Å",
            f"≤ {1e3 * FORCE_TARGET:.0f} meV/Å",
            forces <= FORCE_TARGET,
        ),
        (
            "energy drift, NVE",
            f"{drift:+.1e} eV/atom/ps",
            f"≤ {DRIFT_TARGET:.0e} eV/atom/ps",
            abs(drift) <= DRIFT_TARGET,
        ),
        ("NVE steps without explosion", f"{summary['steps']:,}", f"{steps:,}", summary["steps"] >= steps),
    ]
