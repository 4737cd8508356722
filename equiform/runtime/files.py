"""Atomic file writes: a reader sees the old content or the new one, never a partial file."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equiform.errors import UserError


@contextmanager
def explained(action: str, advice: str) -> Iterator[None]:
    """Turn errors of the operating system (disk full, no permission, ...) into one clear line.

    Args:
        action: What was attempted, such as "cannot write the checkpoint".
        advice: What to do, and what is unaffected.

    Raises:
        UserError: An `OSError` happened inside.
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"{action}: {error.strerror or error}{where}; {advice}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, sync it to disk, and rename it.

    Raises:
        OSError: It cannot be written; an earlier file of that name is unchanged.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, so that a rename survives a power failure."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def to_json(value: Any) -> bytes:
    """Human-readable JSON; floats round-trip exactly, NaN and infinity are refused."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
