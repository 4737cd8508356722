"""Studies that `equiform recipe run` knows by name: settings, a small form, and what is printed at the end."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from equiform.errors import UserError, suggest
from equiform.papers import rays_novel_view, rays_occupancy
from equiform.recipes import yaml_lines
from equiform.runtime.files import explained, to_json, write_atomically

STUDY = "study.json"

Rows = list[tuple[str, ...]]


class Study(NamedTuple):
    """A study.

    Attributes:
        about: What it is, in one line.
        settings: The class of its settings, with a method `scaled`.
        run: Does what is missing in a folder, and returns the results.
        columns: Heads of the table of results.
        rows: Its rows.
    """

    about: str
    settings: type[Any]
    run: Callable[..., dict[str, Any]]
    columns: tuple[str, ...]
    rows: Callable[[dict[str, Any]], Rows]


def _occupancy_rows(results: dict[str, Any]) -> Rows:
    def figure(found: dict[str, float | None]) -> str:
        return " ± ".join("–" if found[key] is None else f"{found[key]:.3f}" for key in ("iou", "iou_standard_error"))

    return [
        (
            name,
            f"{row['parameters']:,}",
            figure(row["I"]),
            figure(row["SO(3)"]),
            f"{row['I']['accuracy']:.3f}",
            str(row["seconds"]),
        )
        for name, row in results.items()
    ]


def _novel_view_rows(results: dict[str, Any]) -> Rows:
    tests = {name: found for name, found in results.items() if isinstance(found, dict)}
    return [(name, f"{found['psnr']:.2f}", f"{found['nearest_view']:.2f}") for name, found in tests.items()]


STUDIES: dict[str, Study] = {
    "rays-occupancy": Study(
        "occupancy from four small views: the ray transformer against baselines, upright and moved",
        rays_occupancy.OccupancyStudy,
        rays_occupancy.run_study,
        ("model", "parameters", "IoU, I/I", "IoU, I/SO(3)", "accuracy", "seconds"),
        _occupancy_rows,
    ),
    "rays-novel-view": Study(
        "views that were held out, rendered from the others: procedural scenes, or photographs with scene=PATH",
        rays_novel_view.NovelViewStudy,
        rays_novel_view.run_study,
        ("test", "PSNR, dB", "nearest view, dB"),
        _novel_view_rows,
    ),
}


def settings_of(name: str, changes: Sequence[str], *, scaled: bool, seed: int | None) -> BaseModel:
    """The settings of a study, with changes `KEY=VALUE`.

    Raises:
        UserError: There is no such setting, or a value is wrong.
    """
    kind = STUDIES[name].settings
    base = kind().scaled() if scaled else kind()
    given: dict[str, Any] = {} if seed is None else {"seed": seed}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in kind.model_fields:
            raise UserError(
                f"{text!r} is no setting of {name}{suggest(key, kind.model_fields)}; there are {', '.join(kind.model_fields)}"
            )
        given[key] = yaml_lines.parse_value(value)
    try:
        return kind.model_validate(base.model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}; received {first['input']!r}") from None


def start(folder: Path, name: str, settings: BaseModel) -> None:
    """Write what a run is, so that it can be resumed.

    Raises:
        UserError: The folder has a run of another kind or other settings.
    """
    content = {"name": name, "settings": settings.model_dump(mode="json")}
    if (folder / STUDY).is_file() and read(folder) != (name, settings):
        raise UserError(f"{folder} has a run with other settings; choose another folder, or resume it with --resume {folder}")
    with explained(f"cannot write {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / STUDY, to_json(content))


def is_study(folder: Path) -> bool:
    """Whether a folder holds the run of a study."""
    return (folder / STUDY).is_file()


def read(folder: Path) -> tuple[str, BaseModel]:
    """Name and settings of a run.

    Raises:
        UserError: The folder is damaged.
    """
    with explained(f"cannot read {folder / STUDY}", "check its permissions"):
        text = (folder / STUDY).read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        name = content["name"]
        return name, STUDIES[name].settings.model_validate(content["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / STUDY} is damaged; start the run again in another folder") from error
