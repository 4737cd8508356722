"""Read structures from any file that ASE reads, with errors that say which structure and line is broken."""

import glob
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from equiform.data.formats.labels import LabelKeys, find_labels, read_labels
from equiform.data.formats.nbody import is_nbody_file
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

_COUNT = re.compile(r"\s*\d{1,9}\s*")  # the first line of a structure in an xyz file

__all__ = ["LabelKeys", "find_labels", "read_labels", "read_structures"]


def read_structures(
    path: "str | Path | Sequence[str | Path]",
    index: str | int = ":",
    *,
    skip_invalid: bool = False,
    warnings: list[str] | None = None,
) -> "list[ase.Atoms]":
    """Read all structures of a file, of a pattern (`runs/*.traj`), or of a list of those.

    Args:
        path: What to read; `FILE@0:100` selects structures of one file.
        index: Which structures of each file, as in ASE (`:`, `-1`, `0:100:5`).
        skip_invalid: Leave out structures that cannot be read instead of raising.
        warnings: Collects a line for every structure left out.

    Raises:
        UserError: A file is missing, empty, not readable, or broken; the message names the structure (and
            line).
    """
    files = _files(path)
    structures: list[ase.Atoms] = []
    for file, part in files:
        structures += _read_file(file, index if part is None else part, skip_invalid, warnings)
    if not structures:
        raise UserError(f"no structures in {', '.join(str(file) for file, _ in files)}")
    return structures


def _files(path: "str | Path | Sequence[str | Path]") -> list[tuple[Path, str | None]]:
    if not isinstance(path, (str, Path)):
        return [file for item in path for file in _files(item)]
    text, part = str(path), None
    if not Path(text).exists():
        stem, at, tail = text.rpartition("@")
        if at and re.fullmatch(r"-?\d*(:-?\d*){0,2}", tail):
            text, part = stem, tail
    if not Path(text).exists() and glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise UserError(f"no file matches {text}")
        return [(Path(match), part) for match in matches]
    file = Path(text)
    if not file.exists():
        raise UserError(f"{file}: no such file (working directory: {Path.cwd()})")
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file, or a pattern such as {file / '*.xyz'}")
    if file.suffix == ".npz" and is_nbody_file(file):
        hint = f"train a model of particles with: equiform train nbody-egnn data.folder={file.parent}"
        raise UserError(f"{file} holds simulated particles, not structures of atoms; {hint}")
    return [(file, part)]


def _read_file(file: Path, index: str | int, skip: bool, warnings: list[str] | None) -> "list[ase.Atoms]":
    try:
        if file.stat().st_size == 0:
            raise UserError(f"{file} is empty")
        form = _format(file)
        if form == "xyz":
            return _select(_read_xyz(file, skip, warnings), index, file)
        if form == "db":
            return _select(_read_database(file), index, file)
        return _read_other(file, index, skip, warnings)
    except PermissionError:
        raise UserError(f"{file}: permission to read it is denied") from None


def _format(file: Path) -> str | None:
    """`xyz` and `db` have readers here; None is left to ASE."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() not in (".gz", ".bz2", ".xz")]
    if suffixes and suffixes[-1] in (".xyz", ".extxyz"):
        return "xyz"
    if suffixes and suffixes[-1] == ".db":
        return "db"
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    try:
        known = filetype(str(file))
        get_ioformat(known)  # ASE takes a suffix that it does not know for the name of a format
    except UnknownFileTypeError:
        raise UserError(f"{file}: not a format that ASE recognises; extended XYZ (.xyz, .extxyz), .traj and .db are") from None
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{file} cannot be read: {_reason(error)}") from None
    return {"xyz": "xyz", "extxyz": "xyz", "db": "db"}.get(known)


def _select(structures: "list[ase.Atoms]", index: str | int, file: Path) -> "list[ase.Atoms]":
    if isinstance(index, str) and ":" in index:
        return structures[slice(*(int(part) if part else None for part in index.split(":")))]
    try:
        return [structures[int(index)]]
    except IndexError:
        raise UserError(f"{file} has {len(structures)} structures; there is no number {index}") from None


def _read_other(file: Path, index: str | int, skip: bool, warnings: list[str] | None) -> "list[ase.Atoms]":
    from ase.io import iread

    structures: list[ase.Atoms] = []
    try:
        for atoms in iread(str(file), index=index, do_not_split_by_at_sign=True):
            structures.append(atoms)
    except PermissionError:
        raise
    except Exception as error:  # ASE's many parsers raise whatever the broken content trips them over
        problem = f"{file}: structure {len(structures)} cannot be read ({_reason(error)})"
        if not (skip and structures):
            good = f"; the {len(structures)} before it are readable (data.skip_invalid=true)" if structures else ""
            raise UserError(problem + good) from None
        if warnings is not None:
            warnings.append(f"{problem}; it and any after it are left out")
    return structures


def _read_database(file: Path) -> "list[ase.Atoms]":
    """ASE's own reader leaves out the columns and data that people store their labels in."""
    import sqlite3

    from ase.db import connect

    try:
        database = connect(str(file), type="db", use_lock_file=False)
        return [row.toatoms(add_additional_information=True) for row in database.select()]
    except sqlite3.Error as error:
        raise UserError(f"{file} cannot be read as an ASE database: {_reason(error)}") from None


class _Frame(NamedTuple):
    """One structure of an xyz file: its first line (from 1), its text, and what is wrong with it."""

    line: int
    text: list[str]
    problem: str | None


def _read_xyz(file: Path, skip: bool, warnings: list[str] | None) -> "list[ase.Atoms]":
    """ASE's reader frame by frame: it stops silently at a blank line, and does not say where a file is broken."""
    from ase.io.extxyz import read_xyz
    from ase.io.formats import open_with_compression

    structures: list[ase.Atoms] = []
    try:
        with open_with_compression(str(file), "rt") as stream:
            for number, frame in enumerate(_frames(stream)):
                problem = frame.problem
                if problem is None:
                    try:
                        structures.append(next(iter(read_xyz(io.StringIO("".join(frame.text)), index=0))))
                        continue
                    except Exception as error:  # ASE's parser raises whatever the broken content trips it over
                        problem = _reason(error)
                line = f"{file}, line {frame.line}: structure {number} is broken ({problem})"
                if not skip:
                    good = f"; {len(structures)} before it are fine" if structures else ""
                    raise UserError(f"{line}{good}; mend it, or leave it out with data.skip_invalid=true")
                if warnings is not None:
                    warnings.append(f"{line}; it is left out")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file, as an .xyz file has to be") from None
    except (EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise UserError(f"{file} cannot be read: {_reason(error)}") from None
    return structures


def _frames(stream: Any) -> Iterator[_Frame]:
    """Split an xyz file into its structures; after a broken one go on at the next line that is a lone integer."""
    number, line = 0, stream.readline()
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
            yield _Frame(start, [], problem)
            continue
        count = int(line)
        text, problem = [line, stream.readline()], None
        number += 1
        line = stream.readline()
        if count == 0:
            problem = "it has no atoms"
        for atom in range(count):
            if not line or len(line.split()) < 4:
                found = f"found {line.strip()[:40]!r}" if line.strip() else "the file ends" if not line else "blank line"
                problem = f"{atom} of {count} atoms, then {found}"
                break
            text.append(line)
            number += 1
            line = stream.readline()
        while problem and line and not _COUNT.fullmatch(line):
            number += 1
            line = stream.readline()
        yield _Frame(start, text, problem)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
