"""Dumps and data files of LAMMPS: numbered types, units where the file states them, and no invented energy."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats.frames import How, elements_of_types
from equiform.data.formats.species import numbers_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

FORMATS = ("lammps-dump-text", "lammps-data")
"""The formats read here, by ASE's names."""

_STYLES = ("real", "metal", "si", "cgs", "electron", "micro", "nano")


def lammps_format(text: str) -> str | None:
    """`lammps-dump-text` or `lammps-data` if a file that begins like this is one."""
    if text.startswith(("ITEM: TIMESTEP", "ITEM: UNITS", "ITEM: TIME\n")):
        return "lammps-dump-text"
    header = text[:5000]
    counted = re.search(r"^\s*\d+\s+atoms\s*$", header, re.MULTILINE) and re.search(
        r"^\s*\d+\s+atom types\s*$", header, re.MULTILINE
    )
    return "lammps-data" if counted and re.search(r"^.*\bxlo\s+xhi\s*$", header, re.MULTILINE) else None


def stated_style(file: Path, form: str) -> str | None:
    """The style of units that a file states: a dump written with `units yes`, a data file in its first line.

    Raises:
        UserError: Its units have no size (`lj`).
    """
    head = "".join(_lines(file, 3))
    pattern = r"\AITEM: UNITS\s+(\w+)" if form == "lammps-dump-text" else r"\A.*\bunits = (\w+)"
    found = re.search(pattern, head)
    if found is None:
        return None
    if found[1] not in _STYLES:
        raise UserError(f"{file} is in LAMMPS's units {found[1]!r}, which are not eV and Å times a number; convert it first")
    return found[1]


def read_dump(file: Path, how: How) -> "Iterator[ase.Atoms]":
    """The structures of a dump. ASE gives each the energy 0, which no dump holds; it is taken out.

    Raises:
        UserError: Its types have no elements.
    """
    from ase.io import iread

    columns = next((line.split()[2:] for line in _lines(file) if line.startswith("ITEM: ATOMS")), [])
    style = stated_style(file, "lammps-dump-text") or "metal"
    structures: list[ase.Atoms] = list(iread(str(file), index=":", format="lammps-dump-text", units=style))
    for atoms in structures:
        results: Any = atoms.calc.results if atoms.calc is not None else {}
        results.pop("energy", None)
    if "element" in columns or not structures:
        yield from structures
        return
    types = [np.asarray(atoms.arrays.get("type", atoms.numbers), int) for atoms in structures]
    symbols = elements_of_types(how.types, max(int(kinds.max()) for kinds in types), file)
    numbers = numbers_of(symbols)
    for atoms, kinds in zip(structures, types):
        atoms.numbers = numbers[kinds - 1]
        yield atoms


def read_data_file(file: Path, how: How) -> "Iterator[ase.Atoms]":
    """The structure of a data file.

    Raises:
        UserError: Its types have no elements.
    """
    from ase.io import read

    text = "".join(_lines(file))
    match = re.search(r"^\s*(\d+)\s+atom types", text, re.MULTILINE)
    count = int(match[1]) if match else 1
    style = re.search(r"^\s*Atoms\s*#\s*(\w+)", text, re.MULTILINE)
    symbols = elements_of_types(how.types, count, file)
    numbers = {kind + 1: int(number) for kind, number in enumerate(numbers_of(symbols))}
    options: dict[str, Any] = {"Z_of_type": numbers} | ({"atom_style": style[1]} if style else {})
    found: Any = read(str(file), format="lammps-data", units=stated_style(file, "lammps-data") or "metal", **options)
    yield found


def _lines(file: Path, count: int | None = None) -> Iterator[str]:
    from ase.io.formats import open_with_compression

    with open_with_compression(str(file), "rt") as stream:
        for number, line in enumerate(stream):
            if count is not None and number >= count:
                return
            yield line
