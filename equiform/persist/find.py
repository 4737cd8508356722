"""Resolve a path, or the name of a model that comes with the package, to a model folder."""

from pathlib import Path

from equiform.errors import UserError, suggest
from equiform.persist.shipped import shipped_models


def find_model(path: Path) -> Path:
    """The model folder that a path refers to: itself, the best model of a run folder, or a model of the package.

    Args:
        path: A folder; or, where there is none of that name, the name of a model of the package.

    Raises:
        UserError: Nothing is there, or a run that has no model yet.
    """
    if not path.exists():
        shipped = shipped_models()
        if str(path) in shipped:
            return shipped[str(path)]
        hint = suggest(str(path), shipped) or (f"; models of the package: {', '.join(shipped)}" if shipped else "")
        raise UserError(f"{path}: no such model or run folder{hint}")
    if not (path / "run.json").is_file():
        return path
    for name in ("best", "last"):
        if (path / name / "config.json").is_file():
            return path / name
    raise UserError(f"{path} is a run that has not written a model yet; resume it with: equiform train --resume {path}")
