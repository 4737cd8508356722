"""Files, patterns and parts of files as frames: structures as written, each with its file and its number in it."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiform.data.formats.deepmd import is_deepmd
from equiform.data.formats.frames import Frame, How
from equiform.data.formats.nbody import is_nbody_file
from equiform.data.formats.recognise import is_structure_file, reader_of
from equiform.data.formats.shipped import on_disk
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

__all__ = ["read_frames", "read_structures"]


def read_frames(path: "str | Path | Sequence[str | Path]", index: str | int = ":", how: How | None = None) -> list[Frame]:
    """Read a file, a pattern (`runs/*.traj`), or a list of those.

    Args:
        path: What to read; `FILE@0:100` selects structures of one file, a folder stands for the files of structures in it,
            `equiform:NAME` for a file of the package.
        index: Which structures of each file, as in ASE (`:`, `-1`, `0:100:5`).
        how: How to read them, and where warnings go.

    Raises:
        UserError: A file is missing, empty, not readable, or broken; the message names the structure (and
            line).
    """
    how = how or How()
    files = _files(path, how)
    frames: list[Frame] = []
    for file, part in files:
        frames += _read_file(file, index if part is None else part, how)
    if not frames:
        raise UserError(f"no structures in {', '.join(str(file) for file, _ in files)}")
    return frames


def read_structures(
    path: "str | Path | Sequence[str | Path]",
    index: str | int = ":",
    *,
    skip_invalid: bool = False,
    warnings: list[str] | None = None,
) -> "list[ase.Atoms]":
    """The structures of files as written, without conversion of units (`reading.read_unlabelled` does that).

    Args:
        path: What to read, see `read_frames`.
        index: Which structures of each file.
        skip_invalid: Leave out structures that cannot be read instead of raising.
        warnings: Collects a line for every structure left out.

    Raises:
        UserError: See `read_frames`.
    """
    how = How(skip_invalid=skip_invalid, warnings=[] if warnings is None else warnings)
    return [frame.atoms for frame in read_frames(path, index, how)]


def _files(path: "str | Path | Sequence[str | Path]", how: How) -> list[tuple[Path, str | None]]:
    if not isinstance(path, (str, Path)):
        return [file for item in path for file in _files(item, how)]
    text, part = on_disk(str(path)), None
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
    if file.is_dir() and how.format is None and not is_deepmd(file):
        return [(inside, part) for inside in _inside(file)]
    if not file.exists():
        raise UserError(f"{file}: no such file (working directory: {Path.cwd()})")
    if file.suffix == ".npz" and is_nbody_file(file):
        hint = f"train a model of particles with: equiform train nbody-egnn data.folder={file.parent}"
        raise UserError(f"{file} holds simulated particles, not structures of atoms; {hint}")
    return [(file, part)]


def _inside(folder: Path) -> list[Path]:
    """The files of structures in a folder and its subfolders; others, such as notes and scripts, are passed over."""
    files = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and is_structure_file(path):
            files.append(path)
    if not files:
        raise UserError(
            f"{folder} is a folder without files of structures; name a file, or a pattern such as {folder / '*.out'}"
        )
    return files


def _read_file(file: Path, index: str | int, how: How) -> list[Frame]:
    try:
        if file.is_file() and file.stat().st_size == 0:
            raise UserError(f"{file} is empty")
        frames = list(reader_of(file, how)(file, how))
    except PermissionError:
        raise UserError(f"{file}: permission to read it is denied") from None
    return _select(frames, index, file)


def _select(frames: list[Frame], index: str | int, file: Path) -> list[Frame]:
    if isinstance(index, str) and ":" in index:
        bounds: list[Any] = [int(part) if part else None for part in index.split(":")]
        return frames[slice(*bounds)]
    try:
        return [frames[int(index)]]
    except IndexError:
        raise UserError(f"{file} has {len(frames)} structures; there is no number {index}") from None
