"""Predictions as extended XYZ that reads back to the same float64 numbers.

ASE's own writer keeps eight decimals, which is less than a float64 prediction holds.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats.comment import format_entries
from equiform.data.formats.stated import is_unit
from equiform.data.formats.words import meaning, weight_of
from equiform.errors import UserError
from equiform.runtime.files import explained

if TYPE_CHECKING:
    from ase import Atoms

    from equiform.deploy.predictor import Prediction
    from equiform.deploy.uncertainty import Uncertain

OURS = frozenset(
    {
        "energy",
        "free_energy",
        "forces",
        "stress",
        "virial",
        "virials",
        "magmom",
        "magmoms",
        "charges",
        "dipole",
        "energies",
        "stresses",
    }
)
"""Names that mean computed properties; those of the input do not go into a file of predictions."""

UNITS = {"energy": "eV", "length": "Angstrom", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3"}
"""The units stated in every file that we write."""


def check_output(path: Path, *, overwrite: bool, suffixes: Sequence[str] = (".extxyz", ".xyz")) -> None:
    """Refuse, before anything is computed, a file that could not be written or would overwrite another.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.
        suffixes: Accepted suffixes of the name.

    Raises:
        UserError: Another name, a file that exists, or a folder that does not or is not writable.
    """
    if path.suffix not in suffixes:
        names = " or ".join(f"*{suffix}" for suffix in suffixes)
        kind = "as NumPy arrays or extended XYZ" if ".npz" in suffixes else "as extended XYZ"
        raise UserError(f"{path}: predictions are written {kind}; name the file {names}")
    check_place(path, overwrite=overwrite)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where a file could not be written or an existing one would be lost.

    Raises:
        UserError: A file that exists, or a folder that does not or is not writable.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another name, or allow to replace it (--overwrite)")
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{path}: no permission to write there; choose another place")


def write_predictions(
    path: Path,
    structures: "Sequence[Atoms]",
    predictions: "Sequence[Prediction]",
    *,
    keep_labels: bool = True,
    references: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, Any]]] | None = None,
    uncertainties: "Sequence[Uncertain] | None" = None,
) -> list[str]:
    """Write structures with predicted energy (eV), forces (eV/Å) and stress (eV/Å³, where there is a cell).

    The file is written completely or not at all. Metadata of the structures is kept (`info`, constraints, masses, tags,
    charges, momenta, further columns), except earlier energies, forces and stresses.

    Args:
        path: The file.
        structures: In Å.
        predictions: One for each.
        keep_labels: Keep reference labels (`REF_energy`), which hold only where the atoms are where they were.
        references: Further columns and entries of each structure, such as the labels that it came with.
        uncertainties: Standard deviations, written as `energy_uncertainty` (eV) and `forces_uncertainty` (eV/Å).

    Returns:
        Names of what the format has no place for.

    Raises:
        UserError: The file cannot be written.
    """
    lost: dict[str, None] = {}
    frames = []
    for number, (atoms, prediction) in enumerate(zip(structures, predictions, strict=True)):
        columns, entries = references[number] if references is not None else ({}, {})
        labels: dict[str, Any] = {**entries, "energy": float(prediction.energy)}
        columns = {**columns, "forces": prediction.forces}
        if uncertainties is not None:
            labels["energy_uncertainty"] = uncertainties[number].energy
            columns["forces_uncertainty"] = uncertainties[number].forces
        if prediction.stress is not None:
            labels["stress"] = np.asarray(prediction.stress, float)
        text, missing = structure_text(atoms, columns, labels, keep_labels=keep_labels)
        frames.append(text)
        lost.update(dict.fromkeys(missing))
    write_frames(path, frames)
    return list(lost)


def write_scalars(path: Path, structures: "Sequence[Atoms]", name: str, values: Sequence[float], unit: str) -> list[str]:
    """Write structures with one predicted number each, such as a polarizability, under its name.

    Returns:
        Names of what the format has no place for.

    Raises:
        UserError: The file cannot be written.
    """
    lost: dict[str, None] = {}
    frames = []
    for atoms, value in zip(structures, values, strict=True):
        text, missing = structure_text(atoms, {}, {name: float(value), f"{name}_unit": unit})
        frames.append(text)
        lost.update(dict.fromkeys(missing))
    write_frames(path, frames)
    return list(lost)


def structure_text(
    atoms: "Atoms", columns: Mapping[str, np.ndarray], labels: Mapping[str, Any], *, keep_labels: bool = True
) -> tuple[str, list[str]]:
    """One structure as extended XYZ, every digit of it.

    Args:
        atoms: The structure, in Å.
        columns: Further columns per atom, such as forces.
        labels: Further entries of the comment line, such as the energy; they replace those of the structure.
        keep_labels: Keep reference labels that the structure carries (`REF_energy`): they hold for its positions only.

    Returns:
        The text, and the names of what the format has no place for.
    """
    lost: list[str] = []
    table: dict[str, np.ndarray] = {"pos": atoms.arrays["positions"]}
    for name, array in {**kept_arrays(atoms, keep_labels), **columns}.items():
        if name not in columns and name in labels:
            continue
        if not re.fullmatch(r"[^\s:=\"'{}\[\]]+", name) or not _has_text(array):
            lost.append(name)
        else:
            table[name] = np.asarray(array).reshape(len(atoms), -1) if np.ndim(array) > 2 else np.asarray(array)
    mask, unwritten = _free(atoms)
    lost += unwritten
    if mask is not None:
        table["move_mask"] = mask
    properties = ["species:S:1"] + [
        f"{name}:{letter_of(array)}:{array.shape[1] if array.ndim > 1 else 1}" for name, array in table.items()
    ]
    header = [f"Properties={':'.join(properties)}"]
    if atoms.cell.array.any():
        header.insert(0, f'Lattice="{_numbers(atoms.cell.array)}"')
    entries, missing = format_entries(kept_info(atoms, keep_labels, set(labels)))
    lost += missing
    own = {name: value for name, value in labels.items() if name != "stress"}
    header += [*entries, *format_entries(own)[0]]
    if "stress" in labels:
        header.append(f'stress="{_numbers(labels["stress"])}"')
    stated = {f"{kind}_unit": unit for kind, unit in UNITS.items() if kind != "stress" or "stress" in labels}
    header += format_entries({name: unit for name, unit in stated.items() if name not in labels})[0]
    header.append(f'pbc="{" ".join("T" if periodic else "F" for periodic in atoms.pbc)}"')
    cells = [[f"{symbol:<2}" for symbol in atoms.symbols]]
    for array in table.values():
        text = np.atleast_2d(array.T).tolist()
        cells += [[cell_text(value) for value in column] for column in text]
    rows = [" ".join(row) for row in zip(*cells)]
    return "\n".join([str(len(atoms)), " ".join(header), *rows]) + "\n", lost


def kept_info(atoms: "Atoms", keep_labels: bool, taken: Collection[str] = ()) -> dict[str, Any]:
    """The metadata of a structure that go along with it: not what was computed, nor its units, which are written again."""
    return {
        str(name): value
        for name, value in atoms.info.items()
        if str(name) not in OURS and str(name) not in taken and not is_unit(str(name), value)
        if keep_labels or (meaning(str(name)) is None and weight_of(str(name)) is None)
    }


def kept_arrays(atoms: "Atoms", keep_labels: bool) -> dict[str, np.ndarray]:
    """The columns of a structure that go along with it, besides elements and positions."""
    return {
        str(name): array
        for name, array in atoms.arrays.items()
        if name not in ("numbers", "positions", "move_mask") and str(name) not in OURS
        if keep_labels or meaning(str(name)) is None
    }


def write_frames(path: Path, frames: Sequence[str]) -> None:
    """Write frames that are texts; the file is written completely or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    with explained(f"cannot write {path}", "free some space or choose another place"):
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.writelines(frames)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _free(atoms: "Atoms") -> tuple[np.ndarray | None, list[str]]:
    """Which atoms, or which of their coordinates, may move, and the constraints that do not say that."""
    from ase.constraints import FixAtoms, FixCartesian

    free, lost = np.ones((len(atoms), 3), bool), []
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.get_indices()] = False
        elif isinstance(constraint, FixCartesian):
            free[constraint.get_indices()] &= ~np.broadcast_to(
                np.asarray(constraint.mask, bool), (len(constraint.get_indices()), 3)
            )
        else:
            lost.append(f"the constraint {type(constraint).__name__}")
    if free.all():
        return None, lost
    whole = (free.all(axis=1) | ~free.any(axis=1)).all()
    return (free[:, 0] if whole else free), lost


def _has_text(array: np.ndarray) -> bool:
    if array.dtype.kind in "US":
        return array.ndim < 3 and all(re.fullmatch(r"\S+", str(text)) for text in array.ravel())
    return array.dtype.kind in "biuf"


def letter_of(array: np.ndarray) -> str:
    """The type of a column in `Properties`."""
    return {"b": "L", "i": "I", "u": "I", "f": "R"}.get(array.dtype.kind, "S")


def cell_text(value: Any) -> str:
    """An entry of a column, every digit of it."""
    return (
        ("T" if value else "F") if isinstance(value, bool) else repr(value) if isinstance(value, (int, float)) else str(value)
    )


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in np.ravel(values))
