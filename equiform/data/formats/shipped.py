"""Data files shipped with the package: `equiform:NAME` wherever a file can be named."""

from importlib import resources
from pathlib import Path

from equiform.errors import UserError, suggest

SHIPPED = "equiform:"
"""Prefix of a path that refers to a file shipped with the package."""


def shipped_data(name: str) -> Path:
    """Path of a data file of the package.

    Raises:
        UserError: There is no such file.
    """
    folder = Path(str(resources.files("equiform"))) / "data" / "shipped"
    path = folder / name
    if not path.is_file():
        have = sorted(entry.name for entry in folder.glob("*.extxyz")) if folder.is_dir() else []
        raise UserError(f"{SHIPPED}{name}: no such data file in the package{suggest(name, have)}; available: {', '.join(have)}")
    return path


def on_disk(text: str) -> str:
    """A path as it is, or that of a shipped file; `@0:100` stays."""
    if not text.startswith(SHIPPED):
        return text
    name, at, part = text.removeprefix(SHIPPED).partition("@")
    return f"{shipped_data(name)}{at}{part}"
