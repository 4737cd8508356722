"""Output of a run: frames (extended XYZ or ASE .traj) and a log (CSV or JSON lines).

A writer reports its position and can be reopened there, so that a run that was killed resumes without a
duplicate or missing frame. Nothing is overwritten unless requested.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from equiform.data.formats.comment import parse_comment
from equiform.data.formats.extxyz import UNITS, cell_text, letter_of
from equiform.errors import UserError
from equiform.runtime.files import explained

if TYPE_CHECKING:
    from ase import Atoms

ADVICE = "free some space or choose another place; what was written so far is kept"


@dataclass(frozen=True)
class LogRow:
    """One line of the log; the names carry the units. Without an uncertainty of the model its column is left out."""

    step: int
    time_fs: float
    potential_energy_eV: float
    kinetic_energy_eV: float
    total_energy_eV: float
    temperature_K: float
    max_force_eV_per_A: float
    energy_uncertainty_eV: float | None = None


@dataclass(frozen=True)
class Frame:
    """One configuration of a run.

    Attributes:
        row: Its energies and temperature.
        positions: Å; not wrapped into the cell.
        velocities: √(eV/amu), ASE's unit.
        forces: eV/Å.
    """

    row: LogRow
    positions: Float[np.ndarray, "atoms 3"]
    velocities: Float[np.ndarray, "atoms 3"]
    forces: Float[np.ndarray, "atoms 3"]


@dataclass(frozen=True)
class Substance:
    """What all frames of a run share.

    Attributes:
        numbers: Atomic numbers.
        masses: In amu.
        cell: Å.
        pbc: Where it repeats.
        fixed: Atoms that do not move.
        tags: ASE's tags.
        columns: What else the initial structure had for each atom (initial charges), which goes along with the frames.
        comment: What else it had as metadata, as text of extended XYZ.
    """

    numbers: Int[np.ndarray, "atoms"]
    masses: Float[np.ndarray, "atoms"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, "3"]
    fixed: Bool[np.ndarray, "atoms"]
    tags: Int[np.ndarray, "atoms"] | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    comment: str = ""

    def atoms(self, frame: Frame) -> "Atoms":
        """The frame as an ASE structure with momenta, energy, forces and fixed atoms."""
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.constraints import FixAtoms

        atoms = Atoms(
            numbers=self.numbers,
            positions=frame.positions,
            cell=self.cell,
            pbc=self.pbc,
            masses=self.masses,
            tags=self.tags,
            momenta=frame.velocities * self.masses[:, None],
            constraint=FixAtoms(mask=self.fixed) if self.fixed.any() else None,
        )
        for name, column in self.columns.items():
            atoms.set_array(name, column)
        row = frame.row
        atoms.info.update(parse_comment(self.comment))
        atoms.info.update(step=row.step, time_fs=row.time_fs, temperature_K=row.temperature_K)
        atoms.calc = SinglePointCalculator(
            atoms, energy=row.potential_energy_eV, free_energy=row.potential_energy_eV, forces=frame.forces
        )
        return atoms


class _TextFile:
    """A text file that can be truncated to an earlier length."""

    def __init__(self, path: Path, at: int | None):
        self.path = path
        with explained(f"cannot write {path}", ADVICE):
            if at is not None:
                if os.path.getsize(path) < at:
                    raise UserError(f"{path} is shorter than when the restart file was written; it was changed since")
                os.truncate(path, at)
            self._file: Any = open(path, "wb" if at is None else "ab")  # noqa: SIM115 - open during the run

    def write(self, text: str) -> None:
        with explained(f"cannot write {self.path}", ADVICE):
            self._file.write(text.encode())

    def flush(self) -> int:
        with explained(f"cannot write {self.path}", ADVICE):
            self._file.flush()
            return self._file.tell()

    def close(self) -> None:
        with explained(f"cannot write {self.path}", ADVICE):
            self._file.close()


class ExtxyzWriter(_TextFile):
    """Extended XYZ with momenta and forces.

    Not written through ASE, which takes longer for one frame of a small molecule than a dozen steps.
    """

    def __init__(self, path: Path, substance: Substance, at: int | None = None):
        super().__init__(path, at)
        from ase.data import atomic_masses, chemical_symbols

        properties, constant = "species:S:1:pos:R:3:momenta:R:3:forces:R:3", [""] * len(substance.numbers)
        if not np.array_equal(substance.masses, atomic_masses[substance.numbers]):
            properties += ":masses:R:1"
            constant = [f" {mass:.9g}" for mass in substance.masses]
        if substance.fixed.any():
            properties += ":move_mask:L:1"
            constant = [text + (" F" if fixed else " T") for text, fixed in zip(constant, substance.fixed)]
        if substance.tags is not None:
            properties += ":tags:I:1"
            constant = [f"{text} {tag}" for text, tag in zip(constant, substance.tags)]
        for name, column in substance.columns.items():
            rows = np.atleast_2d(np.asarray(column).T).T
            properties += f":{name}:{letter_of(rows)}:{rows.shape[1]}"
            texts = [" ".join(map(cell_text, row)) for row in rows.tolist()]
            constant = [f"{text} {added}" for text, added in zip(constant, texts)]
        constant = [text.replace("%", "%%") for text in constant]
        self._template = "".join(
            f"{chemical_symbols[number]:<2s}{' %16.9f' * 9}{text}\n" for number, text in zip(substance.numbers, constant)
        )
        lattice = " ".join(f"{x:.10g}" for x in substance.cell.ravel())
        self._header = f'Lattice="{lattice}" ' if substance.cell.any() else ""
        units = " ".join(f"{kind}_unit={UNITS[kind]}" for kind in ("energy", "length", "forces"))
        self._header += f'Properties={properties} pbc="{" ".join("T" if p else "F" for p in substance.pbc)}" {units}'
        self._header += f" {substance.comment}" if substance.comment else ""
        self._masses = substance.masses[:, None]

    def write_frame(self, frame: Frame) -> None:
        row = frame.row
        numbers = np.concatenate([frame.positions, frame.velocities * self._masses, frame.forces], axis=1)
        self.write(
            f"{len(numbers)}\n{self._header} energy={row.potential_energy_eV:.9f} step={row.step} "
            f"time_fs={row.time_fs:.10g} temperature_K={row.temperature_K:.4f}\n"
            + self._template
            % tuple(numbers.ravel().tolist())
        )


class TrajWriter:
    """ASE's binary .traj."""

    def __init__(self, path: Path, substance: Substance, at: int | None = None):
        from ase.io.trajectory import Trajectory

        self.path, self._substance, self._count = path, substance, at or 0
        with explained(f"cannot write {path}", ADVICE):
            if at is not None:
                _keep_frames(path, at)
            self._trajectory: Any = Trajectory(str(path), "w" if at is None else "a")

    def write_frame(self, frame: Frame) -> None:
        with explained(f"cannot write {self.path}", ADVICE):
            self._trajectory.write(self._substance.atoms(frame))
        self._count += 1

    def flush(self) -> int:
        return self._count

    def close(self) -> None:
        with explained(f"cannot write {self.path}", ADVICE):
            self._trajectory.close()


def _keep_frames(path: Path, count: int) -> None:
    from ase.io.trajectory import Trajectory

    temporary = path.with_name(f".{path.name}.part")
    old: Any = Trajectory(str(path))
    new: Any = Trajectory(str(temporary), "w")
    with old, new:
        if len(old) < count:
            raise UserError(f"{path} has fewer frames than when the restart file was written; it was changed since")
        for index in range(count):
            new.write(old[index])
    os.replace(temporary, path)


class LogWriter(_TextFile):
    """One line per row: CSV, or JSON lines if the name ends in .jsonl or .json.

    Args:
        path: The file.
        at: Length to continue from; None starts a new file.
        uncertain: Whether the model's uncertainty has a column.
    """

    def __init__(self, path: Path, at: int | None = None, *, uncertain: bool = False):
        super().__init__(path, at)
        self._json = path.suffix in (".jsonl", ".json")
        self._names = [field.name for field in fields(LogRow) if uncertain or field.name != "energy_uncertainty_eV"]
        if at is None and not self._json:
            self.write(",".join(self._names) + "\n")

    def write_rows(self, rows: Sequence[LogRow]) -> None:
        if self._json:
            self.write("".join(json.dumps({name: vars(row)[name] for name in self._names}) + "\n" for row in rows))
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[vars(row)[name] for name in self._names] for row in rows])
        self.write(text.getvalue())


TRAJECTORY_WRITERS = {".xyz": ExtxyzWriter, ".extxyz": ExtxyzWriter, ".traj": TrajWriter}


def check_outputs(paths: dict[str, Path | None], *, overwrite: bool) -> None:
    """Check the output files before anything is computed: writable, distinct, and not overwritten.

    Args:
        paths: Purpose of each file → its path.
        overwrite: Whether existing files may be replaced.

    Raises:
        UserError: A file exists, two are the same, a folder is missing or not writable, or the suffix of the
            trajectory is unknown.
    """
    given = {kind: path for kind, path in paths.items() if path is not None}
    if len({path.absolute() for path in given.values()}) < len(given):
        raise UserError(f"{', '.join(given)} must be different files: {', '.join(map(str, given.values()))}")
    for kind, path in given.items():
        if kind == "trajectory" and path.suffix not in TRAJECTORY_WRITERS:
            raise UserError(f"{path}: a trajectory is named *.extxyz, *.xyz or *.traj, not *{path.suffix}")
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file for the {kind}")
        if path.exists() and not overwrite:
            raise UserError(
                f"{path} exists already; give the {kind} another name, resume that run from its restart file, "
                "or allow overwriting it (--overwrite)"
            )
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path}: the folder {path.absolute().parent} does not exist; create it first")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise UserError(f"{path}: no permission to write the {kind} there; choose another place")
