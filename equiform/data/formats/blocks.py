"""Text formats of blocks: MTP's `.cfg` (BEGIN_CFG … END_CFG) and n2p2's `input.data` (begin … end)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.frames import Frame, How, elements_of_types
from equiform.data.formats.species import numbers_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_STRESS = ("xx", "yy", "zz", "yz", "xz", "xy")


def read_mtp(file: Path, how: How) -> Iterator[Frame]:
    """MTP configurations: eV, Å; `PlusStress` is the virial, −volume · stress, in eV.

    Raises:
        UserError: A configuration is broken, or the elements of the types are not given.
    """
    blocks = list(_blocks(file, "BEGIN_CFG", "END_CFG"))
    parsed = [_mtp_rows(lines, file, line, number) for number, (line, lines) in enumerate(blocks)]
    kinds = max((int(types.max()) for types, *_ in parsed), default=0) + 1
    numbers = numbers_of(elements_of_types(how.types, kinds, file))
    for number, (types, positions, forces, cell, entries) in enumerate(parsed):
        from ase import Atoms

        atoms = Atoms(numbers[types], positions=positions, cell=cell, pbc=cell is not None)
        if forces is not None:
            atoms.arrays["forces"] = forces
        if "energy" in entries:
            atoms.info["energy"] = float(entries["energy"][0])
        if "stress" in entries and cell is not None:
            atoms.info["virial"] = np.array(entries["stress"], float)
        converged = entries.get("EFS_by", [""])[0] != "unconverged"
        yield Frame(atoms, number, file, False, converged)


def _mtp_rows(lines: list[str], file: Path, first: int, number: int) -> tuple:
    size, cell, columns, entries = 0, None, [], {}
    rows: list[list[str]] = []
    try:
        k = 0
        while k < len(lines):
            words = lines[k].split()
            name = words[0].rstrip(":") if words else ""
            if name == "Size":
                size, k = int(lines[k + 1]), k + 1
            elif name in ("Supercell", "SuperCell"):
                cell = []
                while len(cell) < 3 and len(parts := lines[k + 1].split()) == 3 and _is_number(parts[0]):
                    cell.append([float(part) for part in parts])
                    k += 1
            elif name == "AtomData":
                columns = words[1:]
                rows = [lines[k + 1 + atom].split() for atom in range(size)]
                k += size
            elif name == "Energy":
                entries["energy"], k = lines[k + 1].split(), k + 1
            elif name in ("PlusStress", "Stress"):
                values = dict(zip(words[1:], lines[k + 1].split()))
                sign = 1 if name == "PlusStress" else -1
                entries["stress"] = [sign * float(values[axes]) for axes in _STRESS]
                k += 1
            elif name == "Feature" and len(words) > 2:
                entries[words[1]] = words[2:]
            k += 1
        table = np.array(rows, float).reshape(size, len(columns))
        place = {name: column for column, name in enumerate(columns)}
        types = table[:, place["type"]].astype(int)
        if "cartes_x" in place:
            positions = table[:, [place[f"cartes_{axis}"] for axis in "xyz"]]
        else:
            positions = table[:, [place[f"direct_{axis}"] for axis in "xyz"]] @ np.array(cell)
        forces = table[:, [place[f"f{axis}"] for axis in "xyz"]] if "fx" in place else None
        box = None if not cell else np.array(cell, float)
        if box is not None and len(box) != 3:
            raise ValueError(f"{len(box)} of 3 cell vectors")
        return types, positions, forces, box, entries
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{file}, line {first}: configuration {number} is broken as MTP .cfg ({error}); fix it or leave it out"
        ) from None


def read_n2p2(file: Path, how: How) -> Iterator[Frame]:
    """n2p2 (RuNNer) structures: the format fixes no units, so the user has to name them.

    Raises:
        UserError: The units are not given, or a structure is broken.
    """
    if not how.has_units:
        raise UserError(
            f"{file} is an n2p2 (RuNNer) file, which is in whatever units it was written in; name them: "
            "data.length_unit=Bohr data.energy_unit=Hartree, or data.length_unit=Å data.energy_unit=eV"
        )
    for number, (line, lines) in enumerate(_blocks(file, "begin", "end")):
        try:
            yield Frame(_n2p2_structure(lines), number, file)
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{file}, line {line}: structure {number} is broken as n2p2 ({error}); fix it or leave it out"
            ) from None


def _n2p2_structure(lines: list[str]) -> "ase.Atoms":
    from ase import Atoms

    cell, rows, symbols, info = [], [], [], {}
    for line in lines:
        words = line.split()
        if not words:
            continue
        if words[0] == "lattice":
            cell.append([float(word) for word in words[1:4]])
        elif words[0] == "atom":
            symbols.append(words[4])
            rows.append([float(words[k]) for k in (1, 2, 3, 5, 6, 7, 8, 9)])
        elif words[0] in ("energy", "charge"):
            info["energy" if words[0] == "energy" else "total_charge"] = float(words[1])
        elif words[0] == "comment":
            info["comment"] = " ".join(words[1:])
    if not rows or len(cell) not in (0, 3):
        raise ValueError(f"{len(rows)} atoms and {len(cell)} lattice vectors")
    table = np.array(rows)
    atoms = Atoms(numbers_of(symbols), positions=table[:, :3], cell=cell or None, pbc=bool(cell), info=info)
    atoms.arrays["forces"] = table[:, 5:8]
    if table[:, 3].any():
        atoms.set_initial_charges(table[:, 3])
    return atoms


def _blocks(file: Path, begin: str, end: str) -> Iterator[tuple[int, list[str]]]:
    lines: list[str] = []
    first = 0
    with open(file, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            word = line.strip()
            if word == begin:
                lines, first = [], number
            elif word == end and first:
                yield first, lines
                first = 0
            elif first:
                lines.append(line)
    if first:
        raise UserError(f"{file}, line {first}: a structure begins and does not end ({end} is missing); the file is cut")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
