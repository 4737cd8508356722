"""Samples of equal shapes that take long to make, in files of a few each: a stopped command resumes.

A sample is a named tuple of arrays and follows from its number alone. `NAME-00050.npz` holds the samples from number 50 on.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from equiform.errors import UserError
from equiform.runtime.files import explained, write_atomically

Sample = TypeVar("Sample", bound=tuple)


def make_shards(
    folder: Path,
    name: str,
    count: int,
    make: Callable[[int], Any],
    *,
    size: int,
    progress: Callable[[int, int], Any] | None = None,
) -> None:
    """Make the first samples, those that are missing.

    Args:
        folder: An existing folder.
        name: First part of the file names.
        count: How many samples.
        make: The sample of a number, a named tuple of arrays.
        size: Samples of a file.
        progress: Progress callback `(done, total)`, in samples.
    """
    for first in range(0, count, size):
        numbers = range(first, min(first + size, count))
        file = _file(folder, name, first)
        if not file.is_file() or len(_arrays(file)[0]) < len(numbers):
            _write(file, [make(number) for number in numbers])
        if progress is not None:
            progress(numbers[-1] + 1, count)


def read_shards(kind: type[Sample], folder: Path, name: str, count: int | None = None, *, size: int) -> Sample:
    """The first samples, stacked: a named tuple whose arrays have a leading axis of samples, maybe of length 0.

    Args:
        kind: The named tuple's class.
        folder: Where they were made.
        name: First part of the file names.
        count: How many at most; None: all that are there.
        size: Samples of a file.

    Raises:
        UserError: A file is damaged.
    """
    parts: list[list[np.ndarray]] = []
    found = 0
    while count is None or found < count:
        file = _file(folder, name, found)
        if not file.is_file():
            break
        parts.append(_arrays(file))
        found += len(parts[-1][0])
        if found % size:
            break
    fields: Any = kind
    if not parts:
        return fields(*[np.zeros(0)] * len(fields._fields))
    return fields(*(np.concatenate(arrays)[:count] for arrays in zip(*parts)))


def _file(folder: Path, name: str, first: int) -> Path:
    return folder / f"{name}-{first:05d}.npz"


def _write(file: Path, samples: list[Any]) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {field: np.stack([getattr(s, field) for s in samples]) for field in samples[0]._fields}
    np.savez_compressed(buffer, **arrays)
    with explained(f"cannot write {file}", "free some space or choose another folder"):
        write_atomically(file, buffer.getvalue())


def _arrays(file: Path) -> list[np.ndarray]:
    try:
        with np.load(file) as stored:
            return [stored[name] for name in stored.files]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged; delete it and run the command again") from error
