"""Molecular dynamics: the settings, starting and resuming a run.

The run itself is in `run.py`, the compiled loop in `integrator.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ase.units
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from equiform.data.formats.comment import format_entries
from equiform.data.formats.extxyz import kept_arrays, kept_info
from equiform.deploy.predictor import Predictor
from equiform.deploy.uncertainty import Uncertainty
from equiform.errors import UserError
from equiform.simulate.md.integrator import System, initial_state
from equiform.simulate.md.restart import fingerprint, load_restart
from equiform.simulate.md.run import Files, MDProgress, MDResult, Run
from equiform.simulate.md.trajectory import Substance, check_outputs
from equiform.simulate.md.velocities import (
    at_rest,
    degrees_of_freedom,
    kinetic_energy,
    maxwell_boltzmann,
    temperature_of,
    without_drift,
    without_rotation,
)
from equiform.simulate.md.verlet_list import EdgeCapacity, VerletList

if TYPE_CHECKING:
    from ase import Atoms


_NEEDS_UNCERTAINTY = "needs a model with an uncertainty; calibrate it with: equiform uncertainty RUN"


class MDConfig(BaseModel):
    """Settings of a run.

    Attributes:
        ensemble: "nve" (velocity Verlet) or "nvt" (Langevin, BAOAB).
        temperature: Temperature of the initial velocities and of the thermostat, K. NVE scales the velocities
            to exactly this temperature. Without it NVE starts from the velocities of the structure.
        keep_velocities: Start from the velocities of the structure even if a temperature is given.
        steps: Number of steps.
        timestep: Time step, fs.
        friction: Friction of the thermostat, 1/fs.
        seed: Seed of initial velocities and thermostat.
        skin: Margin added to the cutoff in the neighbour list, Å.
        frame_interval: Steps between frames of the trajectory.
        log_interval: Steps between lines of the log.
        max_force: A larger force on any atom ends the run, eV/Å.
        max_temperature: A higher temperature ends the run, K; None is twenty times the initial one, at least
            10,000 K.
        stop_when_apart: End the run when an atom of a molecule has lost all its neighbours.
        stop_above: End the run after a frame whose energy has a larger expected error, eV/atom; None never does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ensemble: Literal["nve", "nvt"] = "nve"
    temperature: PositiveFloat | None = None
    keep_velocities: bool = False
    steps: NonNegativeInt = Field(20_000, le=2_000_000_000)
    timestep: PositiveFloat = 0.5
    friction: PositiveFloat = 0.01
    seed: NonNegativeInt = 0
    skin: float = Field(default=1.0, ge=0.1)
    frame_interval: PositiveInt = 20
    log_interval: PositiveInt = 20
    max_force: PositiveFloat = 100.0
    max_temperature: PositiveFloat | None = None
    stop_when_apart: bool = True
    stop_above: PositiveFloat | None = None


def run_md(
    predictor: Predictor,
    atoms: "Atoms",
    config: MDConfig,
    *,
    trajectory: str | Path | None = None,
    log: str | Path | None = None,
    restart: str | Path | None = None,
    overwrite: bool = False,
    restart_seconds: float = 10.0,
    progress: Callable[[MDProgress], None] | None = None,
    uncertainty: Uncertainty | None = None,
) -> MDResult:
    """Start a run.

    Args:
        predictor: The model.
        atoms: The initial structure, perhaps with velocities and `FixAtoms` constraints.
        config: The settings.
        trajectory: File for the frames: *.extxyz, *.xyz or *.traj.
        log: File for energies and temperatures: CSV, or JSON lines for *.jsonl.
        restart: File for the state, saved periodically, at the end, and when the run is interrupted.
        overwrite: Whether existing files may be replaced.
        restart_seconds: Time between two restart files, s.
        progress: Progress callback, called a few times a second.
        uncertainty: Of the model: the expected error of the energy of each frame goes into the log.

    Raises:
        UserError: The structure cannot be simulated, a file cannot be written or exists, or the run exploded.
    """
    if config.stop_above is not None and uncertainty is None:
        raise UserError(f"stop_above {_NEEDS_UNCERTAINTY}")
    files = _files(trajectory, log, restart)
    check_outputs(vars(files), overwrite=overwrite)
    substance, positions, velocities, freedom = _prepared(predictor, atoms, config)
    cell = _device_cell(substance, predictor)
    with predictor.precision():
        dtype = np.dtype(predictor.dtype)
        pairs = VerletList(cell, substance.pbc, predictor.cutoff, config.skin, dtype)
        images = pairs.wrap(positions)
        state = initial_state(positions - images @ cell, velocities, dtype)
        limit = config.max_temperature or max(
            20 * temperature_of(kinetic_energy(velocities, substance.masses), freedom),
            20 * (config.temperature or 0),
            10_000,
        )
        settings = {
            "config": config.model_dump(mode="json"),
            "freedom": freedom,
            "max_kinetic_energy": 0.5 * freedom * ase.units.kB * limit,
            "reference_energy": predictor.reference_energy(atoms),
            "model": fingerprint(predictor.potential),
            "dtype": predictor.dtype,
            "uncertain": uncertainty is not None,
        }
        system = _system(substance, cell, config, settings["max_kinetic_energy"], dtype)
        run = Run(predictor, config, substance, system, pairs, settings, restart_seconds, uncertainty)
        run.begin(state, state.positions, images, files)
        return run.go(progress)


def resume_md(
    predictor: Predictor,
    restart: str | Path,
    *,
    steps: int | None = None,
    time: float | None = None,
    trajectory: str | Path | None = None,
    log: str | Path | None = None,
    restart_seconds: float = 10.0,
    progress: Callable[[MDProgress], None] | None = None,
    uncertainty: Uncertainty | None = None,
) -> MDResult:
    """Resume a run from its restart file, exactly as if it had not been interrupted.

    Trajectory and log are truncated to the state of the restart file and continued.

    Args:
        predictor: The model of that run, with the same dtype.
        restart: The restart file; it is updated.
        steps: A new total number of steps; None keeps the run's own.
        time: The same as a total time, ps.
        trajectory: The new path of the run's trajectory, if it was moved.
        log: The new path of the run's log, if it was moved.
        restart_seconds: Time between two restart files, s.
        progress: Progress callback, called a few times a second.
        uncertainty: Of the model: the expected error of the energy of each frame goes into the log.

    Raises:
        UserError: The restart file is missing, damaged or from another model, the trajectory or log was
            changed since, or the run exploded.
    """
    with predictor.precision():
        saved = load_restart(Path(restart))
        settings = saved.settings
        if settings["dtype"] != predictor.dtype:
            raise UserError(f"{restart} was made with dtype {settings['dtype']}, not {predictor.dtype}; use that one")
        if settings["model"] != fingerprint(predictor.potential):
            raise UserError(f"{restart} was made with another model; give the model that the run was started with")
        config = MDConfig(**settings["config"])
        if not settings.get("uncertain", False):
            uncertainty = None  # The log has no column for it.
        elif uncertainty is None:
            raise UserError(f"{restart}: its run {_NEEDS_UNCERTAINTY}")
        if time is not None:
            steps = round(1000 * time / config.timestep)
        if steps is not None:
            config = config.model_copy(update={"steps": steps})
        written = settings["files"]
        files = _files(trajectory or written["trajectory"], log or written["log"], restart)
        for path in (files.trajectory, files.log):
            if path is not None and not path.is_file():
                raise UserError(f"{path}: the run wrote this file, but it is gone; put it back or give its new path")
        substance, dtype = saved.substance, np.dtype(predictor.dtype)
        cell = _device_cell(substance, predictor)
        capacity = EdgeCapacity(*settings["capacity"])
        pairs = VerletList(cell, substance.pbc, predictor.cutoff, config.skin, dtype, capacity)
        system = _system(substance, cell, config, settings["max_kinetic_energy"], dtype)
        run = Run(predictor, config, substance, system, pairs, settings, restart_seconds, uncertainty)
        run.begin(saved.state, saved.reference, saved.images, files, saved.last, continued=True)
        return run.go(progress)


def _files(trajectory: str | Path | None, log: str | Path | None, restart: str | Path | None) -> Files:
    return Files(*(None if path is None else Path(path) for path in (trajectory, log, restart)))


def _prepared(
    predictor: Predictor, atoms: "Atoms", config: MDConfig
) -> tuple[Substance, Float[np.ndarray, "atoms 3"], Float[np.ndarray, "atoms 3"], int]:
    """Check the structure; returns it with its initial velocities and number of degrees of freedom."""
    predictor.require_energy()
    predictor.graph(atoms)  # for its checks
    periodic, name = bool(atoms.pbc.any()), atoms.get_chemical_formula()
    if len(atoms) == 1 and not periodic:
        raise UserError(f"{name} is a single atom: there is nothing to simulate; give a molecule or a periodic cell")
    masses, positions = atoms.get_masses(), atoms.get_positions()
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        raise UserError(f"{name} has masses that are not positive: {masses.tolist()}")
    fixed = _fixed(atoms)
    if fixed.all():
        raise UserError(f"all {len(atoms)} atoms of {name} are fixed: there is nothing to simulate")
    drawn = config.temperature is not None and not config.keep_velocities
    drift, rotation = not fixed.any(), not fixed.any() and not periodic
    if not drawn:  # Velocities are taken as they are; of an earlier run they may have neither.
        drift, rotation = at_rest(atoms.get_velocities(), positions, masses, drift=drift, rotation=rotation)
    conserved = config.ensemble == "nve"
    freedom = degrees_of_freedom(
        positions, masses, fixed, drift_removed=drift and conserved, rotation_removed=rotation and conserved
    )
    if not freedom:
        raise UserError(f"{name} has no internal degree of freedom: NVE has nothing to simulate; try NVT")
    velocities = _velocities(atoms, config, fixed, freedom)
    tags = atoms.get_tags() if atoms.has("tags") else None
    columns = {
        name: column
        for name, column in kept_arrays(atoms, keep_labels=False).items()
        if name not in ("tags", "masses", "momenta") and column.dtype.kind in "biuf" and column.ndim < 3
    }
    info = {name: value for name, value in kept_info(atoms, False).items() if name not in ("step", "time_fs", "temperature_K")}
    comment = " ".join(format_entries(info)[0])
    cell = np.array(atoms.cell.array)
    substance = Substance(atoms.numbers, masses, cell, atoms.pbc.copy(), fixed, tags, columns, comment)
    return substance, positions, velocities, freedom


def _velocities(
    atoms: "Atoms", config: MDConfig, fixed: Bool[np.ndarray, "atoms"], freedom: int
) -> Float[np.ndarray, "atoms 3"]:
    masses, positions = atoms.get_masses(), atoms.get_positions()
    if config.temperature is None and config.ensemble == "nvt":
        raise UserError("NVT needs a temperature")
    if config.temperature is None or config.keep_velocities:
        velocities = atoms.get_velocities()
        if not np.isfinite(velocities).all():
            raise UserError("the structure's velocities are not finite numbers")
        if not velocities.any():
            raise UserError("the structure has no velocities; give a temperature to draw them")
        return np.where(fixed[:, None], 0, velocities)
    velocities = maxwell_boltzmann(masses, config.temperature, seed=config.seed)
    velocities[fixed] = 0
    if not fixed.any() and len(atoms) > 1:
        velocities = without_drift(velocities, masses)
        if not atoms.pbc.any():
            velocities = without_rotation(velocities, positions, masses)
    if config.ensemble == "nve":
        velocities *= np.sqrt(config.temperature / temperature_of(kinetic_energy(velocities, masses), freedom))
    return velocities


def _fixed(atoms: "Atoms") -> Bool[np.ndarray, "atoms"]:
    from ase.constraints import FixAtoms, FixCartesian

    fixed = np.zeros(len(atoms), bool)
    for constraint in atoms.constraints:
        whole = isinstance(constraint, FixCartesian) and np.all(constraint.mask)
        if not (isinstance(constraint, FixAtoms) or whole):
            raise UserError(
                f"the structure has a constraint {type(constraint).__name__}; molecular dynamics supports only FixAtoms of "
                "ASE's constraints: remove it"
            )
        fixed[constraint.get_indices()] = True
    return fixed


def _device_cell(substance: Substance, predictor: Predictor) -> Float[np.ndarray, "3 3"]:
    """The cell rounded to the device's precision: otherwise energies would jump when an atom is wrapped into it."""
    if not substance.pbc.any():
        return np.zeros((3, 3))
    return substance.cell.astype(predictor.dtype).astype(np.float64)


def _system(
    substance: Substance,
    cell: Float[np.ndarray, "3 3"],
    config: MDConfig,
    max_kinetic_energy: float,
    dtype: Any,
) -> System:
    def number(value: float) -> jax.Array:
        return jnp.asarray(value, dtype)

    return System(
        species=jnp.asarray(substance.numbers, jnp.int32),
        masses=jnp.asarray(substance.masses, dtype),
        inverse_masses=jnp.asarray(np.where(substance.fixed, 0, 1 / substance.masses), dtype),
        cell=jnp.asarray(cell[None], dtype),
        node_fields={} if substance.tags is None else {"tags": jnp.asarray(substance.tags, jnp.int32)},
        time_step=number(config.timestep * ase.units.fs),
        thermal_energy=number(ase.units.kB * (config.temperature or 0)),
        friction=number(config.friction / ase.units.fs),
        max_force=number(config.max_force),
        max_kinetic_energy=number(max_kinetic_energy),
        key=jax.random.key(config.seed),
    )


__all__ = ["MDConfig", "MDProgress", "MDResult", "resume_md", "run_md"]
