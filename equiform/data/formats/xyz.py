"""XYZ, plain and extended: structure by structure, with the line number of errors.

ASE's reader stops silently at a blank line, does not say where a file is broken, takes `lattice=` for metadata, and is slower.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from equiform.data.formats.comment import RESERVED, parse_comment
from equiform.data.formats.cp2k_xyz import Cp2kPartner, cp2k_step
from equiform.data.formats.frames import Frame, How, reason
from equiform.data.formats.species import masses_of, numbers_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_COUNT = re.compile(r"\s*\d{1,9}\s*")  # the first line of a structure
_PLAIN = "species:S:1:pos:R:3"
_CELL_KEYS = ("lattice", "cell", "unit_cell", "unitcell", "box")
_SYMBOLS = ("species", "symbols", "symbol", "element", "elements", "specie", "atom", "atoms")
_NUMBERS = ("z", "numbers", "atomic_numbers", "atomic_number")
_POSITIONS = ("pos", "positions", "position", "coords", "coord", "coordinates", "xyz")
_PER_ATOM = ("energies", "forces", "stresses", "charges", "magmoms")
_PER_STRUCTURE = ("energy", "free_energy", "stress", "dipole", "magmom", "polarization", "dielectric_tensor")


class _Text(NamedTuple):
    """One structure of a file: its first line (from 1), its text, and what is wrong with it."""

    line: int
    text: list[str]
    problem: str | None


class _Column(NamedTuple):
    name: str
    kind: str
    start: int
    count: int


def read_xyz(file: Path, how: How) -> Iterator[Frame]:
    """All structures of a file.

    Raises:
        UserError: It is not a text file, or a structure is broken and not to be left out.
    """
    from ase.io.formats import open_with_compression

    partner = Cp2kPartner(file)
    good = 0
    try:
        with open_with_compression(str(file), "rt") as stream:
            for number, text in enumerate(_texts(stream)):
                problem = text.problem
                if problem is None:
                    try:
                        atoms = _atoms(text.text, file, how)
                    except (ValueError, IndexError, KeyError, TypeError) as error:
                        problem = reason(error) if not isinstance(error, _Broken) else str(error)
                    else:
                        fixed = cp2k_step(text.text[1]) is not None
                        if fixed:
                            partner.complete(atoms, text.text[1], how)
                        good += 1
                        yield Frame(atoms, number, file, fixed)
                        continue
                line = f"{file}, line {text.line}: structure {number} is broken ({problem})"
                if not how.skip_invalid:
                    fine = f"; {good} before it are fine" if good else ""
                    raise UserError(f"{line}{fine}; fix it, or leave it out with data.skip_invalid=true")
                how.warn(f"{line}; it is left out")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file, as an .xyz file has to be") from None
    except (EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise UserError(f"{file} cannot be read: {reason(error)}") from None


class _Broken(ValueError):
    """What is wrong with a structure."""


def _texts(stream: Any) -> Iterator[_Text]:
    """Split a file into its structures; after a broken one resume at the next line that is a lone integer."""
    number, line = 0, stream.readline().removeprefix("\ufeff")  # Windows editors write a mark first
    while line:
        number += 1
        if not line.strip():
            line = stream.readline()
            continue
        start = number
        if not _COUNT.fullmatch(line):
            problem = f"a number of atoms was expected, not {line.strip()[:40]!r}"
            line = stream.readline()
            while line and not _COUNT.fullmatch(line):
                number += 1
                line = stream.readline()
            yield _Text(start, [], problem)
            continue
        count = int(line)
        text, problem = [line, stream.readline()], None
        number += 1
        line = stream.readline()
        if count == 0:
            problem = "it has no atoms"
        for atom in range(count):
            if not line or len(line.split(None, 4)) < 4:
                found = f"found {line.strip()[:40]!r}" if line.strip() else "the file ends" if not line else "blank line"
                problem = f"{atom} of {count} atoms, then {found}"
                break
            text.append(line)
            number += 1
            line = stream.readline()
        while problem is None and line.startswith("VEC"):
            text.append(line)
            number += 1
            line = stream.readline()
        while problem and line and not _COUNT.fullmatch(line):
            number += 1
            line = stream.readline()
        yield _Text(start, text, problem)


def _atoms(text: list[str], file: Path, how: How) -> "ase.Atoms":
    from ase import Atoms

    count = int(text[0])
    info = parse_comment(text[1].strip())
    own = {key.lower(): key for key in info if key.lower() in RESERVED + _CELL_KEYS}
    columns, width = _columns(str(info.pop(own["properties"]))) if "properties" in own else _columns(_PLAIN)
    rows = [line.split() for line in text[2 : 2 + count]]
    shortest = min(map(len, rows))
    if shortest < width:
        atom = next(k for k, row in enumerate(rows) if len(row) < width)
        raise _Broken(f"atom {atom} has {len(rows[atom])} of {width} columns")
    if "properties" not in own and max(map(len, rows)) > width:
        how.warn(f"{file}: columns after the positions have no names (Properties=…) and are not read")
    cell, pbc = _cell(info, own, text[2 + count :])
    arrays = {column.name: _column(rows, column) for column in columns}
    species = next((arrays.pop(column.name) for column in columns if column.name == "symbols"), None)
    if species is None and "numbers" not in arrays:
        raise _Broken("no column has the elements (species:S:1 or Z:I:1)")
    numbers = np.asarray(arrays.pop("numbers")) if species is None else numbers_of(species)
    positions = arrays.pop("positions", None)
    if positions is None or np.shape(positions) != (count, 3):
        raise _Broken("no columns have the positions (pos:R:3)")
    atoms = Atoms(numbers, positions=positions, cell=cell, pbc=pbc, info=info)
    if species is not None and "masses" not in arrays and (masses := masses_of(species, numbers)) is not None:
        atoms.set_array("masses", masses)
    _attach(atoms, arrays)
    return atoms


@lru_cache(maxsize=1000)
def _columns(properties: str) -> tuple[tuple[_Column, ...], int]:
    fields = properties.split(":")
    if len(fields) % 3:
        raise _Broken(f"Properties={properties[:80]} is not NAME:TYPE:COLUMNS:…")
    found, start = [], 0
    for name, kind, count in zip(fields[::3], fields[1::3], fields[2::3]):
        lower, kind = name.lower(), kind.upper()
        if kind not in ("S", "R", "I", "L") or not count.isdigit():
            raise _Broken(f"Properties: {name}:{kind}:{count} is not NAME:TYPE:COLUMNS with a type of S, R, I or L")
        if lower in _SYMBOLS and kind == "S":
            name = "symbols"
        elif lower in _NUMBERS and kind == "I":
            name = "numbers"
        elif lower in _POSITIONS and count == "3":
            name = "positions"
        elif lower == "charge" and kind == "R":
            name = "charges"
        found.append(_Column(name, kind, start, int(count)))
        start += int(count)
    return tuple(found), start


def _column(rows: list[list[str]], column: _Column) -> Any:
    start, stop = column.start, column.start + column.count
    if column.kind == "S":
        if column.count == 1:
            texts = [row[start] for row in rows]
            return texts if column.name == "symbols" else np.array(texts)
        return np.array([row[start:stop] for row in rows])
    flat = chain.from_iterable(row[start:stop] for row in rows)
    total = len(rows) * column.count
    if column.kind == "L":
        values: np.ndarray = np.fromiter((_truth(text) for text in flat), bool, total)
    elif column.kind == "I":
        values = np.fromiter(map(_integer, flat), np.int64, total)
    else:
        try:
            values = np.fromiter(map(float, flat), np.float64, total)
        except ValueError:
            values = np.array([_float(text) for row in rows for text in row[start:stop]])
    return values if column.count == 1 else values.reshape(len(rows), column.count)


def _float(text: str) -> float:
    """Also as Fortran (`1.0D-3`) and Mathematica (`1.2*^-6`) write it."""
    return float(text.replace("*^", "e").replace("D", "e").replace("d", "e"))


def _integer(text: str) -> int:
    return int(text) if text.lstrip("+-").isdigit() else int(float(text))


def _truth(text: str) -> bool:
    lower = text.lower()
    if lower in ("t", "true", "1", ".true."):
        return True
    if lower in ("f", "false", "0", ".false."):
        return False
    raise _Broken(f"{text!r} is neither T nor F")


def _cell(info: dict[str, Any], own: dict[str, str], vectors: Sequence[str]) -> tuple[np.ndarray | None, Any]:
    """The cell and where it repeats, taken out of the entries."""
    cell = None
    for name in _CELL_KEYS:
        if name not in own or cell is not None:
            continue
        value = info[own[name]]
        numbers = np.asarray(value, np.float64) if isinstance(value, np.ndarray) and value.dtype.kind in "if" else None
        if numbers is not None and numbers.size == 3:
            numbers = np.diag(numbers.ravel())
        if numbers is not None and numbers.size == 9:
            cell = numbers.reshape(3, 3)
            del info[own[name]]
        elif name == "lattice":
            raise _Broken(f"{own[name]} has to be nine numbers, not {str(value)[:60]!r}")
    if vectors:
        cell = np.zeros((3, 3))
        for line in vectors:
            name, *numbers = line.split()
            cell[int(name[3:]) - 1] = [float(number) for number in numbers]
    if "pbc" not in own:
        return cell, cell is not None if not vectors else np.array([row.any() for row in np.asarray(cell)])
    pbc = info.pop(own["pbc"])
    if isinstance(pbc, str):
        pbc = [_truth(letter) for letter in pbc.replace(",", " ").split()] or False
        pbc = pbc[0] if isinstance(pbc, list) and len(pbc) == 1 else pbc
    flags = np.asarray(pbc).astype(bool)
    if flags.size not in (1, 3):
        raise _Broken("pbc has to be one or three of T and F")
    return cell, flags


def _attach(atoms: "ase.Atoms", arrays: dict[str, Any]) -> None:
    """Constraints, results of a calculation, and everything else, where ASE has them."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms, FixCartesian

    mask = arrays.pop("move_mask", None)
    if mask is not None and mask.ndim == 1:
        atoms.set_constraint(FixAtoms(mask=~mask.astype(bool)))
    elif mask is not None and mask.shape[1] == 3:
        free = mask.astype(bool)
        atoms.set_constraint([FixCartesian(k, mask=~row) for k, row in enumerate(free) if not row.all()])
    results: dict[str, Any] = {}
    for name, array in arrays.items():
        if name in _PER_ATOM:
            results[name] = array
        else:
            atoms.set_array(name, array)
    for name in _PER_STRUCTURE:
        value = atoms.info.get(name)
        if value is None or isinstance(value, (str, bool, list)):
            continue
        if name == "stress" and np.size(value) == 9:
            matrix = np.reshape(value, (3, 3))
            matrix = 0.5 * (matrix + matrix.T)
            value = matrix[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        elif np.size(value) != {"stress": 6, "dipole": 3}.get(name, np.size(value)):
            continue
        if name in ("energy", "free_energy") and np.size(value) != 1:
            continue
        results[name] = value
        del atoms.info[name]
    if results:
        calculator = SinglePointCalculator(atoms)
        calculator.results = results
        atoms.calc = calculator
