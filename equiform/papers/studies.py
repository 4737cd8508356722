"""Studies: results that take more than one training run, as recipes with a full and a scaled form.

A study has settings, fills a folder part by part, and reports after every finished part. The folder holds `study.json` (name
and settings), `report.md`, and whatever the study saves; running it again in the same folder resumes it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from equiform.errors import UserError, suggest
from equiform.recipes import yaml_lines
from equiform.runtime.files import explained, to_json, write_atomically

SETTINGS, REPORT = "study.json", "report.md"

Progress = Callable[[int, int, str], Any]
"""Progress callback `(done, total, note)`."""

STUDIES = {
    "slmc-double-exchange": "Self-learning Monte Carlo on the double-exchange model: error, acceptance and cost by model.",
    "rays-occupancy": "Occupancy from four small views: the ray transformer against baselines, upright and moved.",
    "scaling-bodies": "Loss of GATr and of transformers over compute, data and steps, on rigid bodies that collide.",
    "rays-novel-view": "Held-out views rendered from the others: procedural scenes, or photographs with scene=PATH.",
}
"""Names and contents, for lists that import nothing else."""


class StudyRecipe(NamedTuple):
    """How to run a study.

    Attributes:
        settings: Class of its settings, frozen; the defaults are the full form, and `scaled()` gives the scaled one.
        growing: Settings that may change when a study is resumed.
        run: Called with folder, settings and progress callback; yields the report as Markdown after every finished part.
        source: Reference for what is reproduced.
        cost: Cost of the full form, and of the scaled one.
    """

    settings: type[BaseModel]
    growing: tuple[str, ...]
    run: Callable[[Path, Any, Progress], Iterator[str]]
    source: str
    cost: tuple[str, str]


class Planned(NamedTuple):
    """A study, its settings and its folder.

    Attributes:
        name: One of `STUDIES`.
        recipe: How to run it.
        settings: The effective settings.
        folder: Where the results go.
    """

    name: str
    recipe: StudyRecipe
    settings: BaseModel
    folder: Path


def find_study(name: str) -> StudyRecipe:
    """A study by name.

    Raises:
        UserError: There is no such study.
    """
    if name == "slmc-double-exchange":
        from equiform.papers.double_exchange import GROWING, StudyConfig
        from equiform.papers.double_exchange_report import reports

        source = "Nagai and Tomiya, J. Phys. Soc. Jpn. 93, 114007 (arXiv:2306.11527)"
        cost = ("1.5 hours on one shared core up to 8 × 8, and more for larger lattices", "two minutes of one core")
        return StudyRecipe(StudyConfig, GROWING, reports, source, cost)
    rays = "Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871); scenes and sizes are ours"
    if name == "rays-occupancy":
        from equiform.papers.rays_occupancy import GROWING, OccupancyStudy, run_study

        cost = ("not measured", "an hour of one idle core; a quarter of it for models=[ray-transformer]")
        return StudyRecipe(OccupancyStudy, GROWING, run_study, rays, cost)
    if name == "rays-novel-view":
        from equiform.papers.rays_novel_view import NovelViewStudy, run_study

        return StudyRecipe(NovelViewStudy, (), run_study, rays, ("not measured", "2 minutes of one idle core for photographs"))
    if name == "scaling-bodies":
        from equiform.papers.scaling import GROWING, ScalingStudy, run_study

        source = "Brehmer, Behrends, de Haan and Cohen, TMLR 2025 (arXiv:2410.23179); scenes and sizes are ours"
        return StudyRecipe(ScalingStudy, GROWING, run_study, source, ("not measured; for a GPU", "20 minutes of one core"))
    raise UserError(f"there is no study {name!r}{suggest(name, STUDIES)}; available: {', '.join(STUDIES)}")


def plan(name: str, changes: Sequence[str], folder: Path, *, scaled: bool) -> Planned:
    """A study in a folder, new or to be resumed there.

    Args:
        name: One of `STUDIES`.
        changes: `setting=value`, the value in YAML.
        folder: Where the results go.
        scaled: Whether to start from the scaled form.

    Raises:
        UserError: A change is wrong, or the folder holds a study of other settings.
    """
    recipe = find_study(name)
    start: Any = recipe.settings()
    settings = _changed(name, recipe, start.scaled() if scaled else start, changes)
    if (folder / SETTINGS).exists():
        stored = resume(folder, [])
        if stored.name != name:
            raise UserError(f"{folder} holds the study {stored.name}; choose another folder")
        _check_growth(stored, settings)
    return Planned(name, recipe, settings, folder)


def resume(folder: Path, changes: Sequence[str]) -> Planned:
    """The study of a folder, with more of what may grow.

    Raises:
        UserError: There is none, it is damaged, or a change is wrong.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise UserError(f"{folder} holds no study: it has no {SETTINGS}; start one with `equiform recipe run`")
    with explained(f"cannot read {path}", "check its permissions"):
        text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        recipe = find_study(content["study"])
        stored = Planned(content["study"], recipe, recipe.settings.model_validate(content["settings"]), folder)
    except (ValueError, KeyError, TypeError) as error:  # a ValidationError is a ValueError
        raise UserError(f"{path} is damaged; start the study again in another folder") from error
    settings = _changed(stored.name, recipe, stored.settings, changes)
    _check_growth(stored, settings)
    return stored._replace(settings=settings)


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study."""
    return (folder / SETTINGS).is_file()


def run(planned: Planned, progress: Progress) -> str:
    """Run or resume a study; its report, also written to the folder after every finished part."""
    folder, text = planned.folder, ""
    with explained(f"cannot write {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"study": planned.name, "settings": planned.settings.model_dump(mode="json")}
        write_atomically(folder / SETTINGS, to_json(stored))
    for text in planned.recipe.run(folder, planned.settings, progress):
        write_atomically(folder / REPORT, text.encode())
    return text


def describe(planned: Planned) -> list[str]:
    """Human-readable description of what will be run."""
    full = planned.recipe.settings()
    changed = [name for name in type(full).model_fields if _differs(name, full, planned.settings)]
    lines = [f"{planned.name}: {STUDIES[planned.name]}", f"source: {planned.recipe.source}"]
    if not changed:
        return [*lines, f"the full form; expected cost: {planned.recipe.cost[0]}; --scaled runs a small form"]
    lines.append(f"NOT the full form, which costs {planned.recipe.cost[0]} (scaled: {planned.recipe.cost[1]}); changed:")
    return lines + [f"  {name}={_text(planned.settings, name)}" for name in changed]


def defaults(name: str) -> str:
    """The settings of the full form as YAML."""
    settings = find_study(name).settings()
    lines = [f"# {STUDIES[name]}", *(f"{field}: {_text(settings, field)}" for field in type(settings).model_fields)]
    return "\n".join(lines)


def _changed(name: str, recipe: StudyRecipe, settings: BaseModel, changes: Sequence[str]) -> BaseModel:
    values, known = settings.model_dump(), type(settings).model_fields
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise UserError(f"'{text}' is not a setting of {name}{suggest(key, known)}; available: {', '.join(known)}")
        values[key] = yaml_lines.parse_value(value)
    try:
        return recipe.settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}, {where}: {first['msg']}, but {first['input']!r} was given") from error


def _check_growth(stored: Planned, settings: BaseModel) -> None:
    changed = [name for name in type(settings).model_fields if _differs(name, stored.settings, settings)]
    fixed = [name for name in changed if name not in stored.recipe.growing]
    if fixed:
        values = ", ".join(f"{name}={_text(stored.settings, name)}" for name in fixed)
        raise UserError(f"{stored.folder} holds this study with {values}; give the same, or choose another folder")


def _differs(name: str, one: BaseModel, two: BaseModel) -> bool:
    return _text(one, name) != _text(two, name)


def _text(settings: BaseModel, name: str) -> str:
    return json.dumps(settings.model_dump(mode="json")[name], ensure_ascii=False)
