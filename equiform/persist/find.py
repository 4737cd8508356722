"""Resolve a path to a model folder."""

from pathlib import Path

from equiform.errors import UserError


def find_model(path: Path) -> Path:
    """The model folder that a path refers to: itself, or the best model of a run folder.

    Raises:
        UserError: Nothing is there, or a run that has no model yet.
    """
    if not path.exists():
        raise UserError(f"{path}: no such model or run folder")
    if not (path / "run.json").is_file():
        return path
    for name in ("best", "last"):
        if (path / name / "config.json").is_file():
            return path / name
    raise UserError(f"{path} is a run that has not written a model yet; resume it with: equiform train --resume {path}")
