"""Run folders of lattice simulations: `chain.npz` with every step and what an exact restart needs, and the effective model.

config        JSON of the `SimulationConfig`
observables   names of the columns of `values`
values        (steps, chains, observables), float64
kept          (kept, chains, sites, 3), configurations of every `keep`-th step
spins         (chains, sites, 3), present configurations
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from equiform.errors import UserError
from equiform.persist.spin_model_file import EffectiveModel, load_effective, save_effective
from equiform.runtime.files import explained, write_atomically
from equiform.simulate.monte_carlo.simulation import TRACED, Simulation, SimulationConfig, Trace

CHAIN, MODEL = "chain.npz", "model"


def save_simulation(folder: Path, simulation: Simulation, *, effective: EffectiveModel | None) -> None:
    """Write a run; an earlier state of it is replaced atomically.

    Args:
        folder: The run's folder.
        simulation: The run.
        effective: Its effective model, saved with it so that a restart has the same one.
    """
    trace, content = simulation.trace, io.BytesIO()
    np.savez(
        content,
        config=np.array(simulation.config.model_dump_json()),
        observables=np.array(TRACED),
        values=trace.values,
        kept=trace.kept,
        spins=simulation.spins,
    )
    with explained(f"cannot write {folder / CHAIN}", "free some space; an earlier state of the run is kept"):
        folder.mkdir(parents=True, exist_ok=True)
        if effective is not None and not (folder / MODEL).exists():
            save_effective(folder / MODEL, effective, {})
        write_atomically(folder / CHAIN, content.getvalue())


def load_chain(folder: Path) -> tuple[SimulationConfig, Trace, np.ndarray]:
    """Settings, steps so far and present configurations of a run.

    Raises:
        UserError: There is none, or it is damaged.
    """
    path = folder / CHAIN
    if not path.is_file():
        raise UserError(f"{folder} is not a lattice run: it has no {CHAIN}; start one with `equiform lattice run`")
    with explained(f"cannot read {path}", "check its permissions"):
        content = path.read_bytes()
    try:
        # Through memory: NumPy leaves a damaged file open.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if tuple(file["observables"]) != TRACED:
                raise UserError(f"{path} was written by another version of equiform; start the run again")
            config = SimulationConfig.model_validate(json.loads(str(file["config"])))
            return config, Trace(file["values"], file["kept"]), file["spins"]
    except (ValueError, KeyError, EOFError, ValidationError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged; start the run again in another folder") from error


def load_simulation(folder: Path) -> tuple[Simulation, EffectiveModel | None]:
    """A run as saved, to resume it, and its effective model.

    Raises:
        UserError: There is none, or it is damaged.
    """
    config, trace, spins = load_chain(folder)
    effective = load_effective(folder / MODEL)[0] if (folder / MODEL).exists() else None
    return Simulation(config, effective, spins=spins, trace=trace), effective
