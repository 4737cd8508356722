"""Data sets as NPZ (sGDML, MD17, rMD17, ANI-like) and HDF5 (SPICE, MACE)."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats import arrays
from equiform.data.formats.frames import Frame, How, frames_of, reason
from equiform.data.formats.words import words_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_NO_UNITS = (
    "states no units: eV and Å are assumed (data.energy_unit=kcal/mol if they are as in MD17; data.length_unit and "
    "data.forces_unit go with it)"
)


def read_npz(file: Path, how: How) -> list[Frame]:
    """An archive of arrays with one row per structure.

    Raises:
        UserError: It is not one, holds pickled objects, or has no positions and elements.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{file} holds pickled Python objects, which are not read (reading executes code); convert it with NumPy: "
                "pad the arrays to the largest structure (elements with 0) and save them without objects"
            ) from None
        raise UserError(f"{file} cannot be read as NPZ: {reason(error)}") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read as NPZ: {reason(error)}") from None
    units = {name for name in found if "unit" in words_of(name)}
    if {"old_energies", "old_forces", "coords"} <= set(found):  # rMD17, whose files state none
        found = {name: value for name, value in found.items() if not name.startswith("old_")}
        found |= {"energy_unit": np.array("kcal/mol"), "forces_unit": np.array("kcal/mol/Å")}
        how.warn(f"{file} has the arrays of rMD17, which are in kcal/mol and Å")
    elif not units and not how.has_units:
        how.warn(f"{file} {_NO_UNITS}")
    return frames_of(arrays.structures_of(found, file), file)


def read_hdf5(file: Path, how: How) -> list[Frame]:
    """Groups with positions and elements, at any depth; units are those that the data sets state.

    Raises:
        UserError: h5py is not installed, it is not an HDF5 file, or no group has positions and elements.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{file} is HDF5, which h5py reads: pip install 'equiform[formats]', or convert it to extended XYZ"
        ) from None
    try:
        with h5py.File(file, "r") as archive:
            found = list(_groups(archive, file, []))
    except OSError as error:
        raise UserError(f"{file} cannot be read as HDF5: {reason(error)}") from None
    if not found:
        raise UserError(
            f"{file} has no group with positions and elements under a usual name (positions and atomic_numbers, conformations "
            "and atomic_numbers, …); convert it to extended XYZ"
        )
    if not how.has_units and not any("unit" in str(name) for atoms in found[:100] for name in atoms.info):
        how.warn(f"{file} states no units: eV and Å are assumed (data.energy_unit=…, data.length_unit=…)")
    return frames_of(found, file)


def _groups(group: Any, file: Path, path: list[str]) -> "Iterator[ase.Atoms]":
    values = {name: item for name, item in group.items() if hasattr(item, "shape")}
    if arrays.find(values, arrays.POSITIONS) and arrays.find(values, arrays.ELEMENTS):
        yield from _one_group(group, values, file, path)
        return
    for name, item in group.items():
        if hasattr(item, "items"):
            yield from _groups(item, file, [*path, str(name)])


def _one_group(group: Any, values: dict[str, Any], file: Path, path: list[str]) -> "Iterator[ase.Atoms]":
    found, units = {}, {}
    for name, item in values.items():
        found[name] = np.asarray(item[()])
        unit = item.attrs.get("units", item.attrs.get("unit"))
        if unit is not None:
            text = unit.decode() if isinstance(unit, bytes) else str(unit)
            is_length = name.lower() in arrays.POSITIONS
            units["length_unit" if is_length else f"{name}_unit"] = text
    weights: dict[str, float] = {}
    for name, item in group.items():  # MACE keeps labels and weights in groups of their own
        if hasattr(item, "items") and name in ("properties", "property_weights"):
            for label, value in item.items():
                array = np.asarray(value[()])
                if name == "properties":
                    found[label] = array
                elif array.size == 1 and array.dtype.kind in "fiu":
                    weights[f"{label}_weight"] = float(array)
    positions = found[str(arrays.find(found, arrays.POSITIONS))]
    if positions.ndim == 2:  # one structure, not a row of them
        found = {name: value if value.dtype.kind in "SU" else value[None] for name, value in found.items()}
    for atoms in arrays.structures_of(found, file):
        atoms.info.update(units)
        atoms.info.update(weights)
        if path:
            atoms.info.setdefault("group", "/".join(path))
        yield atoms
