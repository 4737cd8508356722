"""Predictions as extended XYZ that reads back to the same float64 numbers.

ASE's own writer keeps eight decimals, which is less than a float64 prediction holds.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.errors import UserError
from equiform.runtime.files import explained

if TYPE_CHECKING:
    from ase import Atoms

    from equiform.deploy.predictor import Prediction

OURS = {
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
}
"""Keys that mean computed properties; those of the input do not go into a file of predictions."""


def check_output(path: Path, *, overwrite: bool, suffixes: Sequence[str] = (".extxyz", ".xyz")) -> None:
    """Refuse, before anything is computed, what could not be written or would be lost.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.
        suffixes: What the file may be called.

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


def write_predictions(path: Path, structures: "Sequence[Atoms]", predictions: "Sequence[Prediction]") -> None:
    """Write structures with predicted energy (eV), forces (eV/Å) and stress (eV/Å³, where there is a cell).

    The file appears whole or not at all. What the input said about a structure (its `info`, its tags) is kept, except
    earlier energies, forces and stresses.

    Raises:
        UserError: The disk refuses.
    """
    write_frames(path, [_frame(atoms, prediction) for atoms, prediction in zip(structures, predictions, strict=True)])


def write_scalars(path: Path, structures: "Sequence[Atoms]", name: str, values: Sequence[float]) -> None:
    """Write structures with one predicted number each, such as a polarizability, under its name.

    Raises:
        UserError: The disk refuses.
    """
    frames = []
    for atoms, value in zip(structures, values, strict=True):
        lines = [str(len(atoms)), " ".join([*_header(atoms, "", {name}), f"{name}={float(value)!r}"])]
        frames.append("\n".join([*lines, *_rows(atoms, atoms.positions)]) + "\n")
    write_frames(path, frames)


def write_frames(path: Path, frames: Sequence[str]) -> None:
    """Write frames that are texts; the file appears whole or not at all.

    Raises:
        UserError: The disk refuses.
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


def _frame(atoms: "Atoms", prediction: "Prediction") -> str:
    values = [f"energy={float(prediction.energy)!r}"]
    if prediction.stress is not None:
        values.append(f'stress="{_numbers(prediction.stress)}"')
    lines = [str(len(atoms)), " ".join([*_header(atoms, ":forces:R:3", set()), *values])]
    return "\n".join([*lines, *_rows(atoms, np.concatenate([atoms.positions, prediction.forces], axis=1))]) + "\n"


def _header(atoms: "Atoms", columns: str, taken: set[str]) -> list[str]:
    """Lattice, periodicity, columns, and what the input said; the predictions follow."""
    from ase.io.extxyz import key_val_dict_to_str

    header = [f'pbc="{" ".join("T" if periodic else "F" for periodic in atoms.pbc)}"']
    if atoms.cell.array.any():
        header.insert(0, f'Lattice="{_numbers(atoms.cell.array)}"')
    header.append(f"Properties=species:S:1:pos:R:3{columns}" + (":tags:I:1" if atoms.has("tags") else ""))
    kept = {key: value for key, value in atoms.info.items() if key not in OURS | taken and _plain(value)}
    return [*header, key_val_dict_to_str(kept)] if kept else header


def _rows(atoms: "Atoms", numbers: np.ndarray) -> list[str]:
    tags = [f" {tag}" for tag in atoms.get_tags()] if atoms.has("tags") else [""] * len(atoms)
    return [f"{symbol:<2} {' '.join(map(repr, row))}{tag}" for symbol, row, tag in zip(atoms.symbols, numbers.tolist(), tags)]


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in np.ravel(values))


def _plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, np.number, np.bool_)) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size <= 9
    )
