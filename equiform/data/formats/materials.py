"""JSON of pymatgen structures: lists and mappings of entries as the Materials Project and data sets made of it publish them
(mlearn, MPtrj, MatPES).

An entry is a mapping with a `structure`; its labels are next to it or under `outputs`. Energies are eV, forces eV/Å. Stresses
are as VASP prints them, in kbar and positive under compression, so −0.1 GPa per kbar is the stress here; VASP's six are
xx yy zz xy yz zx.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats.frames import Frame, How, reason
from equiform.data.formats.species import numbers_of
from equiform.data.units import GPA
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_ENERGIES = ("uncorrected_total_energy", "energy", "total_energy", "corrected_total_energy")
_STRESSES = ("virial_stress", "stress")
_KBAR = GPA / 10


def is_materials(head: str) -> bool:
    """Whether JSON that begins like this holds pymatgen structures."""
    return '"lattice"' in head or '"sites"' in head or '"@module": "pymatgen' in head or '"@module":"pymatgen' in head


def read_materials(file: Path, how: How) -> Iterator[Frame]:
    """All entries of a file.

    Raises:
        UserError: It is not JSON, holds no structures, or one of them is broken.
    """
    from ase.io.formats import open_with_compression

    try:
        with open_with_compression(str(file), "rt") as stream:
            tree = json.load(stream)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{file} cannot be read as JSON: {reason(error)}") from None
    number, stresses = 0, 0
    for entry in _entries(tree):
        try:
            atoms = _structure(entry)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            line = f"{file}: structure {number} is broken as pymatgen's JSON ({reason(error)})"
            if not how.skip_invalid:
                raise UserError(f"{line}; fix it, or leave it out with data.skip_invalid=true") from None
            how.warn(f"{line}; it is left out")
            atoms = None
        if atoms is not None:
            stresses += "stress" in atoms.info
            yield Frame(atoms, number, file, True)
        number += 1
    if not number:
        raise UserError(
            f"{file} is JSON without pymatgen structures (a mapping with lattice and sites); convert it to extended XYZ"
        )
    if stresses:
        how.warn(
            f"{file}: stresses are taken for VASP's, in kbar and positive under compression (data.stress_key=… for others)"
        )


def _entries(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, list):
        for item in tree:
            yield from _entries(item)
    elif isinstance(tree, dict):
        if "lattice" in tree and "sites" in tree:
            yield {"structure": tree}
        elif isinstance(tree.get("structure"), dict):
            yield tree
        else:
            for item in tree.values():
                yield from _entries(item)


def _structure(entry: dict[str, Any]) -> "ase.Atoms":
    from ase import Atoms

    structure = entry["structure"]
    cell = np.array(structure["lattice"]["matrix"], float)
    names, positions = [], []
    for site in structure["sites"]:
        species = site["species"]
        if len(species) != 1 or float(species[0].get("occu", 1)) != 1:
            raise ValueError("a site is not fully occupied by one element")
        names.append(str(species[0].get("element", species[0].get("specie"))).rstrip("+-0123456789"))
        positions.append(site["xyz"] if "xyz" in site else np.array(site["abc"], float) @ cell)
    pbc = structure["lattice"].get("pbc", [True, True, True])
    atoms = Atoms(numbers_of(names), positions=np.array(positions, float), cell=cell, pbc=pbc)
    labels = {**entry, **entry.get("outputs", {})}
    for name in _ENERGIES:
        if isinstance(labels.get(name), (int, float)):
            atoms.info["energy"] = float(labels[name])
            break
    forces = labels.get("forces", labels.get("force"))
    if forces is not None:
        atoms.arrays["forces"] = np.array(forces, float).reshape(len(atoms), 3)
    for name in _STRESSES:
        if labels.get(name) is not None:
            atoms.info["stress"] = -_KBAR * _vasp(np.array(labels[name], float))
            break
    for name in ("description", "group", "tag", "mp_id", "material_id", "matpes_id", "functional"):
        if isinstance(labels.get(name), str):
            atoms.info[name] = labels[name]
    return atoms


def _vasp(stress: np.ndarray) -> np.ndarray:
    if stress.size == 6:
        xx, yy, zz, xy, yz, zx = stress.ravel()
        return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
    return stress.reshape(3, 3)
