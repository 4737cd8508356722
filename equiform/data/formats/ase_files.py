"""What ASE reads, with what its readers leave out: which structures did not converge, several molecules of an SDF file, a
Gaussian log whose forces are in another frame than its positions, units in a database's metadata."""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiform.data.formats.convergence import converged_steps
from equiform.data.formats.frames import Frame, How, frames_of, reason
from equiform.data.formats.lammps_files import FORMATS, read_data_file, read_dump, stated_style
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

STORES = ("traj", "json", "db", "extxyz", "bundletrajectory", "netcdftrajectory", "lammps-dump-text", "lammps-data", "cfg")
"""ASE's formats that hold what somebody put there, in whatever unit; the others are outputs of programs, which ASE converts."""


def read_ase(file: Path, form: str, how: How) -> list[Frame]:
    """All structures of a file in one of ASE's formats.

    Raises:
        UserError: It is not a file of that format, or is broken.
    """
    structures: list[ase.Atoms] = []
    problem = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for atoms in _iterate(file, form, how):
                structures.append(atoms)
        except (PermissionError, UserError):
            raise
        except Exception as error:  # ASE's parsers raise any type of exception
            problem = f"{file}, read as {form}: structure {len(structures)} cannot be read ({reason(error)})"
    for line in {str(warning.message) for warning in caught if not issubclass(warning.category, ResourceWarning)}:
        how.warn(f"{file}, read as {form}: {' '.join(line.split())[:200]}")
    if problem is not None:
        if not (how.skip_invalid and structures):
            good = f"; the {len(structures)} before it are readable (data.skip_invalid=true)" if structures else ""
            raise UserError(
                f"{problem}{good}; if it is another format, name it with data.format=…, or convert it to extended XYZ"
            )
        how.warn(f"{problem}; it and any after it are left out")
    filled = [atoms for atoms in structures if len(atoms)]
    if not filled:
        raise UserError(f"{file}, read as {form}, has no structures; if it is another format, name it with data.format=…")
    if form == "gaussian-out":
        _check_orientation(file, filled, how)
    converged = converged_steps(file, form, len(filled), how)
    fixed = form not in STORES or (form in FORMATS and stated_style(file, form) is not None)
    return [Frame(atoms, k, file, fixed, good) for k, (atoms, good) in enumerate(zip(filled, converged))]


def _iterate(file: Path, form: str, how: How) -> "Iterator[ase.Atoms]":
    from ase.io import iread

    if form == "lammps-dump-text":
        return read_dump(file, how)
    if form == "lammps-data":
        return read_data_file(file, how)
    return iter(iread(str(file), index=":", format=form, do_not_split_by_at_sign=True))


def _check_orientation(file: Path, structures: "list[ase.Atoms]", how: How) -> None:
    """Gaussian prints forces in the input orientation; where it prints only the standard one, they do not go with the
    positions."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if "Input orientation:" in text or "Z-Matrix orientation:" in text or "Standard orientation:" not in text:
        return
    number = 0
    for atoms in structures:
        results = getattr(atoms.calc, "results", {})
        if results.pop("forces", None) is not None:
            number += 1
    if number:
        how.warn(
            f"{file}: the forces of {number} structures are left out: Gaussian printed the positions in the standard "
            "orientation only, and the forces in the frame of the input; run with nosymm, or without suppressing the input "
            "orientation"
        )


def read_sdf(file: Path, how: How) -> list[Frame]:
    """All molecules of an SDF file, with their data fields.

    Raises:
        UserError: A molecule is broken.
    """
    from ase.io.sdf import read_sdf as read_molecule

    structures, number = [], 0
    for block in re.split(r"^\$\$\$\$.*\n?", file.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE):
        if not block.strip():
            continue
        try:
            atoms: Any = read_molecule(io.StringIO(block))
        except Exception as error:  # ASE's parser raises any type of exception
            line = f"{file}, read as SDF: structure {number} cannot be read ({reason(error)})"
            if not how.skip_invalid:
                raise UserError(f"{line}; fix it, or leave it out with data.skip_invalid=true") from None
            how.warn(f"{line}; it is left out")
            atoms = None
        if atoms is not None and len(atoms):
            for name, value in re.findall(r"^>.*?<([^>]+)>.*\n(.*)\n", block, flags=re.MULTILINE):
                atoms.info[name] = _number_or_text(value)
            structures.append(Frame(atoms, number, file, True))
        number += 1
    return structures


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def read_database(file: Path, form: str, how: How) -> list[Frame]:
    """An ASE database, with the columns and data that people store their labels in and the units in its metadata.

    Raises:
        UserError: It is not one.
    """
    from ase.db import connect

    try:
        database = connect(str(file), type=form, use_lock_file=False)
        metadata: Any = database.metadata
        units = _metadata_units(metadata)
        structures = []
        for row in database.select():
            atoms = row.toatoms(add_additional_information=True)
            atoms.info.update({name: unit for name, unit in units.items() if name not in atoms.info})
            structures.append(atoms)
        return frames_of(structures, file)
    except PermissionError:
        raise
    except Exception as error:  # SQLite's, JSON's and ASE's own
        raise UserError(f"{file} cannot be read as an ASE database: {reason(error)}") from None


def _metadata_units(metadata: dict[str, Any]) -> dict[str, str]:
    """`_distance_unit` and `_property_unit_dict` (SchNetPack), and any entry with a unit's name."""
    units: dict[str, str] = {}
    for name, value in metadata.items():
        if "unit" in name.lower() and isinstance(value, str):
            units[name.strip("_")] = value
        elif "unit" in name.lower() and isinstance(value, dict):
            units |= {f"{label}_unit": unit for label, unit in value.items() if isinstance(unit, str)}
    return units
