"""Named arrays, one row per structure, as structures: what NPZ and HDF5 files of data sets have in common.

The positions, elements and cells are found by the names in use (`R z`, `coords nuclear_charges`, `atomic_numbers
conformations`,
…); everything else goes with the structures under its own name, where labels are looked for as in any file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats.species import numbers_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

POSITIONS = ("r", "coords", "coordinates", "positions", "pos", "conformations", "geometries", "xyz", "coord", "cart_coords")
ELEMENTS = (
    "z",
    "nuclear_charges",
    "atomic_numbers",
    "numbers",
    "species",
    "elements",
    "atom_types",
    "symbols",
    "charges_nuclear",
)
CELLS = ("cell", "cells", "lattice", "lattices", "box", "boxes", "unit_cell")
PERIODIC = ("pbc", "pbcs", "periodic")
COUNTS = ("n", "num_atoms", "n_atoms", "natoms")
_SHORT = {"e": "energy", "f": "forces", "energies": "energy", "v": "virial", "s": "stress"}
_UNITS = {"r_unit": "length_unit", "e_unit": "energy_unit", "f_unit": "forces_unit", "distance_unit": "length_unit"}


def find(names: Mapping[str, Any], candidates: tuple[str, ...]) -> str | None:
    """The first name in use, whatever its case."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in candidates if name in lower), None)


def structures_of(arrays: Mapping[str, np.ndarray], file: Path) -> "Iterator[ase.Atoms]":
    """Structures of arrays that share their first axis; elements may be given once for all of them.

    Raises:
        UserError: There are no positions or elements, or their shapes do not fit.
    """
    from ase import Atoms

    names = {"positions": find(arrays, POSITIONS), "elements": find(arrays, ELEMENTS), "cell": find(arrays, CELLS)}
    names |= {"pbc": find(arrays, PERIODIC)}
    if names["positions"] is None or names["elements"] is None:
        raise UserError(
            f"{file} has arrays {', '.join(list(arrays)[:12])}, but no positions and elements under a usual name "
            "(R and z, coords and nuclear_charges, positions and atomic_numbers); convert it to extended XYZ"
        )
    positions = np.asarray(arrays[names["positions"]])
    elements = np.asarray(arrays[names["elements"]])
    positions = positions[None] if positions.ndim == 2 and positions.dtype != object else positions
    total = len(positions)
    taken = {name for name in names.values() if name}
    shared, rows = {}, {}
    for name, value in arrays.items():
        value = np.asarray(value)
        if name in taken or name.lower() in COUNTS or value.dtype.kind not in "fiubO":
            if value.dtype.kind in "SU" and value.ndim == 0:
                shared[_UNITS.get(name.lower(), name)] = _text(value)
            continue
        if value.ndim and len(value) == total:
            rows[_SHORT.get(name.lower(), name)] = value
    for k in range(total):
        kinds = elements[k] if len(elements) == total and (elements.ndim == 2 or elements.dtype == object) else elements
        kinds = np.asarray(kinds)
        real = np.ones(len(kinds), bool) if kinds.dtype.kind in "SU" else np.asarray(kinds, float) > 0  # padding is 0 or −1
        numbers = numbers_of([_text(kind) for kind in kinds]) if kinds.dtype.kind in "SU" else kinds.astype(int)[real]
        points = np.asarray(positions[k], float)
        if points.ndim != 2 or points.shape[1:] != (3,) or len(points) < len(real):
            raise UserError(f"{file}: structure {k} has {len(kinds)} elements, but positions of shape {points.shape}")
        cell = pbc = None
        if names["cell"] is not None:
            cells = np.asarray(arrays[names["cell"]], float)
            cell = cells[k] if len(cells) == total and cells.size != 9 else cells
            cell = _matrix(cell)
            pbc = bool(cell.any())
        if names["pbc"] is not None:
            flags = np.asarray(arrays[names["pbc"]])
            pbc = (flags[k] if flags.ndim == 2 else flags).astype(bool)
        atoms = Atoms(numbers, positions=points[: len(real)][real], cell=cell, pbc=pbc)
        atoms.info.update(shared)
        for name, value in rows.items():
            attach(atoms, name, np.asarray(value[k]), real)
        yield atoms


def attach(atoms: "ase.Atoms", name: str, value: np.ndarray, real: np.ndarray) -> None:
    """A value of one structure, per atom where its first axis is that of the atoms (padding included)."""
    if value.dtype == object:
        return
    if value.ndim and len(value) == len(real) and value.shape not in ((3, 3), (9,), (6,), (3,)):
        atoms.arrays[name] = value[real].astype(float) if value.dtype.kind == "f" else value[real]
    elif value.ndim == 2 and len(value) == len(real) and value.shape[1] == 3 and "stress" not in name and "virial" not in name:
        atoms.arrays[name] = np.asarray(value[real], float)
    elif value.size == 1:
        atoms.info[name] = value.reshape(-1)[0].item()
    elif value.size <= 9:
        atoms.info[name] = value


def _matrix(cell: np.ndarray) -> np.ndarray:
    cell = np.asarray(cell, float)
    if cell.size == 3:
        return np.diag(cell.ravel())
    return cell.reshape(3, 3)


def _text(value: Any) -> str:
    item = value.item() if hasattr(value, "item") else value
    return item.decode() if isinstance(item, bytes) else str(item)
