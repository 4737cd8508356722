"""The host side of a run: chunks of the compiled loop, neighbour lists, files, statistics."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import ase.units
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jaxtyping import Int

from equiform.deploy.predictor import Predictor
from equiform.deploy.uncertainty import Uncertainty
from equiform.errors import UserError
from equiform.neighbors import neighbor_list
from equiform.simulate.md import integrator
from equiform.simulate.md.integrator import (
    EXPLODED,
    OVERFLOW,
    STALE,
    LoopSettings,
    Records,
    State,
    System,
    TwoFloat,
    advance,
)
from equiform.simulate.md.restart import Restart, save_restart
from equiform.simulate.md.statistics import RunningFit
from equiform.simulate.md.trajectory import (
    TRAJECTORY_WRITERS,
    ExtxyzWriter,
    Frame,
    LogRow,
    LogWriter,
    Substance,
    TrajWriter,
)
from equiform.simulate.md.verlet_list import VerletList, moved_home

MAX_CHUNK_STEPS = 4096
MAX_CHUNK_FRAMES = 256
FRAME_MEMORY = 4_000_000  # numbers in the frames of a chunk, at most
CHUNK_SECONDS = 0.25


@dataclass(frozen=True)
class Files:
    """The output files of a run; None for those not written."""

    trajectory: Path | None
    log: Path | None
    restart: Path | None


class MDProgress(NamedTuple):
    """Progress of a run; temperature in K and total energy in eV of the latest step."""

    step: int
    steps: int
    temperature: float
    total_energy: float
    steps_per_second: float


@dataclass(frozen=True)
class MDResult:
    """The end of a run.

    Attributes:
        atoms: The final structure with velocities, energy and forces.
        summary: Plain values, ready for JSON; the names carry the units. The drift is the slope of a linear fit
            to the total energy of all steps, NVE only.
    """

    atoms: Atoms
    summary: dict[str, Any]


class Run:
    """One molecular-dynamics run. Call `begin`, then `go`, inside the predictor's precision."""

    def __init__(
        self,
        predictor: Predictor,
        config: Any,
        substance: Substance,
        system: System,
        pairs: VerletList,
        settings: dict[str, Any],
        restart_seconds: float,
        uncertainty: Uncertainty | None = None,
    ):
        self.predictor, self.config, self.substance = predictor, config, substance
        self.system, self.pairs, self.settings = system, pairs, settings
        self.restart_seconds, self.uncertainty = restart_seconds, uncertainty
        self.stopped_above: int | None = None
        self.compilations, self.wall_seconds = 0, 0.0
        self._timed_steps, self._timed_seconds = 0, 0.0

    def begin(
        self,
        state: State,
        reference: TwoFloat,
        images: Int[np.ndarray, "atoms 3"],
        files: Files,
        last: Frame | None = None,
        *,
        continued: bool = False,
    ) -> None:
        """Set the state, initial or from a restart file, and build its neighbour list."""
        settings = self.settings
        self.state, self.images, self.last, self.files = state, images, last, files
        self.statistics = RunningFit(**settings["statistics"]) if continued else RunningFit()
        self.rebuilds = settings["rebuilds"] if continued else 0
        self.candidates = self.pairs.build(reference)
        self._bound = np.array(settings["bound"]) if continued else self._has_neighbours()
        self._lengths = settings["lengths"] if continued else {"trajectory": None, "log": None}
        self._frames: ExtxyzWriter | TrajWriter | None = None
        self._log: LogWriter | None = None
        self._safe: Restart | None = None

    def go(self, progress: Callable[[MDProgress], None] | None) -> MDResult:
        """Run to the end."""
        started = saved = time.perf_counter()
        first = True
        try:
            self._open()
            self._safe = self._restart()
            while int(self.state.step) <= self.config.steps and self.stopped_above is None:
                self._chunk(self._chunk_stop(first))
                self._safe = self._restart()
                now = time.perf_counter()
                if first or now - saved >= self.restart_seconds:
                    self._save()
                    saved = now
                first = False
                if progress is not None and self.last is not None:
                    row = self.last.row
                    progress(MDProgress(row.step, self.config.steps, row.temperature_K, row.total_energy_eV, self.rate))
        finally:
            # Also after Ctrl-C: `_safe` is always the state at the end of a chunk.
            self._save()
            for writer in (self._frames, self._log):
                if writer is not None:
                    writer.close()
            self.wall_seconds = time.perf_counter() - started
        if self.last is None:
            raise UserError("the restart file is from a run that had not completed a step, and no steps were requested")
        return MDResult(self.substance.atoms(self.last), self.summary())

    def _open(self) -> None:
        trajectory, log = self.files.trajectory, self.files.log
        if trajectory is not None:
            writer = TRAJECTORY_WRITERS[trajectory.suffix]
            self._frames = writer(trajectory, self.substance, self._lengths["trajectory"])
        if log is not None:
            self._log = LogWriter(log, self._lengths["log"], uncertain=self.uncertainty is not None)

    @property
    def rate(self) -> float:
        """Steps per second, without compilation; NaN before anything was timed."""
        return self._timed_steps / self._timed_seconds if self._timed_seconds else float("nan")

    def summary(self) -> dict[str, Any]:
        """See `MDResult`."""
        config, statistics, num_atoms = self.config, self.statistics, len(self.substance.numbers)
        conserved = config.ensemble == "nve"
        steps = max(int(self.state.step) - 1, 0)
        numbers = {
            "ensemble": config.ensemble,
            "atoms": num_atoms,
            "steps": steps,
            "timestep_fs": config.timestep,
            "time_ps": steps * config.timestep / 1000,
            "target_temperature_K": None if conserved else config.temperature,
            "temperature_K": statistics.mean_temperature,
            "temperature_std_K": statistics.temperature_spread,
            "energy_drift_eV_per_atom_per_ps": statistics.drift / num_atoms if conserved else None,
            "energy_std_eV_per_atom": statistics.energy_spread / num_atoms if conserved else None,
            "steps_per_second": self.rate,
            "ns_per_day": self.rate * config.timestep * 86_400e-6,
            "wall_seconds": self.wall_seconds,
            "neighbor_list_rebuilds": self.rebuilds,
            "compilations": self.compilations,
        }
        if self.uncertainty is not None:
            numbers["stopped_above_at_step"] = self.stopped_above
        files = {name: None if path is None else str(path) for name, path in vars(self.files).items()}
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in numbers.items()} | files

    def _chunk_stop(self, first: bool) -> int:
        """The last step of the next chunk: about a quarter of a second ahead, within the buffer sizes."""
        step = int(self.state.step)
        ahead = 1 if first else 16
        if self._timed_seconds:
            ahead = min(max(int(self.rate * CHUNK_SECONDS), 1), MAX_CHUNK_STEPS)
        interval = self.config.frame_interval
        first_frame = -(-step // interval)
        return min(self.config.steps, step + ahead - 1, (first_frame + self._loop.max_frames) * interval - 1)

    @property
    def _loop(self) -> LoopSettings:
        listed, active = self.pairs.capacity
        num_atoms = len(self.substance.numbers)
        return LoopSettings(
            ensemble=self.config.ensemble,
            cutoff=self.predictor.cutoff,
            active_edges=active if active < 0.9 * listed else max(listed, 1),
            max_steps=MAX_CHUNK_STEPS,
            max_frames=max(1, min(MAX_CHUNK_FRAMES, FRAME_MEMORY // (9 * num_atoms))),
            frame_interval=self.config.frame_interval,
        )

    def _chunk(self, stop: int) -> None:
        start, before, clock = int(self.state.step), integrator.compilations(), time.perf_counter()
        state, status, records = advance(
            self.predictor.potential,
            self.system,
            self.candidates,
            self.state,
            jnp.asarray(stop, jnp.int32),
            self._loop,
        )
        status, done = int(status), int(state.step) - start
        compiled = integrator.compilations() - before
        self.compilations += compiled
        self._take(records, state, start)
        self.state = state
        if status == EXPLODED:
            self._report_explosion(records, done)
        if status == STALE:
            self._rebuild()
        elif status == OVERFLOW:
            self.pairs.make_room()
        self._check_together()
        if not compiled:
            self._timed_steps += done
            self._timed_seconds += time.perf_counter() - clock

    def _rebuild(self) -> None:
        images = self.pairs.wrap(_exact(self.state.positions))
        home = moved_home(self.state.positions, images, self.pairs.cell, np.dtype(self.predictor.dtype))
        self.state = State(self.state.step, home, self.state.velocities, self.state.last)
        self.images = self.images + images
        self.candidates = self.pairs.build(home)
        self.rebuilds += 1

    def _take(self, records: Records, state: State, start: int) -> None:
        """Copy the records of the steps from `start` up to, but excluding, `state.step` to the host and write them."""
        done = int(state.step) - start
        if not done:
            return
        config = self.config
        steps = np.arange(start, start + done)
        potential, kinetic, thermal, force = (
            np.asarray(values, np.float64)[:done]
            for values in (
                records.potential_energy,
                records.kinetic_energy,
                records.thermal_energy,
                records.max_force,
            )
        )
        potential = potential + self.settings["reference_energy"]
        temperature = 2 * thermal / (self.settings["freedom"] * ase.units.kB)
        times = steps * config.timestep
        self.statistics.add(times / 1000, potential + kinetic, temperature)

        frames = np.flatnonzero(steps % config.frame_interval == 0)
        doubts = self._doubts(frames, records.positions, steps)

        def row(i: Any) -> LogRow:
            total = potential[i] + kinetic[i]
            values = (times[i], potential[i], kinetic[i], total, temperature[i], force[i])
            return LogRow(int(steps[i]), *map(float, values), energy_uncertainty_eV=doubts.get(int(i)))

        if self._log is not None:
            self._log.write_rows([row(i) for i in np.flatnonzero(steps % config.log_interval == 0)])
        wrapped = self.images @ self.pairs.cell
        if self._frames is not None:
            columns = [np.asarray(x) for x in (records.positions, records.velocities, records.forces)]
            for slot, i in enumerate(frames):
                positions, velocities, forces = (column[slot].astype(np.float64) for column in columns)
                self._frames.write_frame(Frame(row(i), positions + wrapped, velocities, forces))
        self.last = Frame(
            row(done - 1),
            _exact(state.last.positions) + wrapped,
            np.asarray(state.last.velocities, np.float64),
            np.asarray(state.last.forces, np.float64),
        )

    def _doubts(self, frames: Any, positions: Any, steps: Any) -> dict[int, float]:
        """Expected error of the energy of each frame, eV, by its index in the chunk; also whether the run must stop."""
        if self.uncertainty is None:
            return {}
        numbers, limit = self.substance.numbers, self.config.stop_above
        found = {}
        for slot, i in enumerate(frames):
            atoms = Atoms(numbers, np.asarray(positions[slot], np.float64), cell=self.substance.cell, pbc=self.substance.pbc)
            if self.substance.tags is not None:
                atoms.set_tags(self.substance.tags)
            found[int(i)] = self.uncertainty.of_energy(atoms)
            if limit is not None and found[int(i)] > limit * len(numbers) and self.stopped_above is None:
                self.stopped_above = int(steps[i])
        return found

    def _restart(self) -> Restart:
        """The current restart content, file lengths included."""
        lengths = {
            name: None if writer is None else writer.flush()
            for name, writer in (("trajectory", self._frames), ("log", self._log))
        }
        settings = self.settings | {
            "config": self.config.model_dump(mode="json"),
            "statistics": asdict(self.statistics),
            "rebuilds": self.rebuilds,
            "capacity": list(self.pairs.capacity),
            "bound": self._bound.tolist(),
            "files": {k: None if path is None else str(path.absolute()) for k, path in vars(self.files).items()},
            "lengths": lengths,
        }
        return Restart(settings, self.substance, self.state, self.candidates.reference, self.images, self.last)

    def _save(self) -> None:
        if self.files.restart is not None and self._safe is not None:
            save_restart(self.files.restart, self._safe)

    def _has_neighbours(self) -> np.ndarray:
        """Which atoms have a neighbour within the cutoff."""
        positions = _exact(self.state.positions)
        pairs = neighbor_list(positions, self.pairs.cell, self.pairs.pbc, self.predictor.cutoff)
        return np.bincount(pairs[1], minlength=len(positions)) > 0

    def _check_together(self) -> None:
        if not self.config.stop_when_apart or self.substance.pbc.any():
            return
        lost = np.flatnonzero(self._bound & ~self._has_neighbours())
        if len(lost):
            self._stop(
                f"atom {lost[0]} has flown off: it has no neighbours left within the cutoff of {self.predictor.cutoff:g} Å, "
                "where the model is undefined; --no-stop-when-apart lets such runs continue"
            )

    def _report_explosion(self, records: Records, index: int) -> None:
        potential, kinetic, force = (
            float(values[index]) for values in (records.potential_energy, records.kinetic_energy, records.max_force)
        )
        freedom = self.settings["freedom"]
        if not np.isfinite(potential + force):
            reason = "energy or forces are not finite"
        elif not force <= self.config.max_force:
            reason = f"a force of {force:.4g} eV/Å, above the limit of {self.config.max_force:g} eV/Å"
        else:
            limit = 2 * self.settings["max_kinetic_energy"] / (freedom * ase.units.kB)
            reason = f"{2 * kinetic / (freedom * ase.units.kB):.4g} K, above the limit of {limit:.4g} K"
        self._stop(reason + "; try a shorter time step, a relaxed start, or a model trained on such structures")

    def _stop(self, reason: str) -> NoReturn:
        step = int(self.state.step)
        kept = "no step was valid"
        if self.last is not None:
            kept = f"the last valid step was {self.last.row.step}"
            if self._frames is not None:
                if self.last.row.step % self.config.frame_interval:
                    self._frames.write_frame(self.last)
                kept += f", saved as the last frame of {self.files.trajectory}"
        raise UserError(f"the run exploded at step {step} ({step * self.config.timestep / 1000:g} ps): {reason} ({kept})")


def _exact(positions: TwoFloat) -> np.ndarray:
    return np.asarray(positions.high, np.float64) + np.asarray(positions.low, np.float64)
