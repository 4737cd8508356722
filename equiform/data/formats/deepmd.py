"""DeePMD-kit's folders: `type.raw`, `type_map.raw` and `set.*/{coord,box,energy,force,virial}.npy`, in eV and Å.

Folders of mixed types have `real_atom_types.npy` in every set; structures are then padded with type −1.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.frames import Frame, How, elements_of_types, frames_of, reason
from equiform.data.formats.species import numbers_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase


def is_deepmd(folder: Path) -> bool:
    """Whether a folder is a DeePMD system, or has ones below it."""
    return folder.is_dir() and (
        (folder / "type.raw").is_file() or any(folder.glob("*/type.raw")) or any(folder.glob("*/*/type.raw"))
    )


def read_deepmd(folder: Path, how: How) -> list[Frame]:
    """All structures of the systems in a folder.

    Raises:
        UserError: A file is missing or does not fit the others, or the elements of the types are not given.
    """
    found: list[ase.Atoms] = []
    for system in sorted(path.parent for path in folder.rglob("type.raw")):
        found += _system(system, how)
    return frames_of(found, folder)


def _system(folder: Path, how: How) -> "list[ase.Atoms]":
    try:
        types = np.loadtxt(folder / "type.raw", dtype=int, ndmin=1).ravel()
        sets = sorted(path for path in folder.glob("set.*") if path.is_dir())
        if not sets:
            raise UserError(f"{folder} has type.raw but no set.* folders; dpdata converts raw files: data.format=deepmd/raw")
        periodic = not (folder / "nopbc").exists()
        found: list[ase.Atoms] = []
        for part in sets:
            found += _set(part, folder, types, periodic, how)
        return found
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read as a DeePMD folder: {reason(error)}") from None


def _set(part: Path, folder: Path, types: np.ndarray, periodic: bool, how: How) -> "list[ase.Atoms]":
    from ase import Atoms

    def load(name: str) -> np.ndarray | None:
        path = part / f"{name}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    coord = load("coord")
    if coord is None:
        raise UserError(f"{part} has no coord.npy")
    total = len(coord)
    box, energy, force, virial, mixed = (load(name) for name in ("box", "energy", "force", "virial", "real_atom_types"))
    kinds = np.broadcast_to(types, (total, len(types))) if mixed is None else mixed.reshape(total, -1)
    numbers = numbers_of(_symbols(folder, int(kinds.max()) + 1, how))
    positions = coord.reshape(total, -1, 3).astype(float)
    if positions.shape[1] != kinds.shape[1]:
        raise UserError(f"{part}: {kinds.shape[1]} types in type.raw, but positions of {positions.shape[1]} atoms in coord.npy")
    found = []
    for k in range(total):
        real = kinds[k] >= 0
        cell = None if box is None or not periodic else box[k].reshape(3, 3).astype(float)
        atoms = Atoms(numbers[kinds[k][real]], positions=positions[k][real], cell=cell, pbc=periodic and cell is not None)
        if energy is not None:
            atoms.info["energy"] = float(energy.reshape(total, -1)[k, 0])
        if force is not None:
            atoms.arrays["forces"] = force.reshape(total, -1, 3)[k][real].astype(float)
        if virial is not None:
            atoms.info["virial"] = virial[k].reshape(3, 3).astype(float)
        found.append(atoms)
    return found


def _symbols(folder: Path, count: int, how: How) -> tuple[str, ...]:
    path = folder / "type_map.raw"
    if path.is_file():
        names = tuple(path.read_text(encoding="utf-8").split())
        if len(names) >= count:
            try:
                numbers_of(names)
            except ValueError:  # TYPE_0 …
                return elements_of_types(how.types, count, folder)
            return names
    return elements_of_types(how.types, count, folder)
