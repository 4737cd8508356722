"""Which model folder a path means."""

from pathlib import Path

from equiform.errors import UserError


def find_model(path: Path) -> Path:
    """The model folder that a path means: itself, or the best model of a run folder.

    Raises:
        UserError: There is nothing, or a run that has no model yet.
    """
    if not path.exists():
        raise UserError(f"{path}: no such model or run folder")
    if not (path / "run.json").is_file():
        return path
    for name in ("best", "last"):
        if (path / name / "config.json").is_file():
            return path / name
    raise UserError(f"{path} is a run that has not written a model yet; go on with: equiform train --resume {path}")
