"""Reproducing a table entry from its recipe: the plan, the run, and the result next to the published value."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from equiform.errors import UserError
from equiform.recipes.benchmark import Benchmark
from equiform.recipes.schema import Recipe, find_recipe, read_source, validate
from equiform.report.run_report import Outcome
from equiform.runtime.files import explained, to_json, write_atomically
from equiform.training.metrics import in_millis

RESULT = "benchmark.json"
_INTERRUPTED = "interrupted.json"
_IRRELEVANT = ("run.", "training.seed", "data.folder", "training.evaluation_batch_size", "training.checkpoint_")
"""Changes that do not affect the protocol."""


class Result(NamedTuple):
    """One run's entry of a table.

    Attributes:
        recipe: The built-in recipe's name.
        table: The table.
        row: The method.
        column: The molecule, target or data.
        form: "full", "scaled" or "changed".
        changes: Changes from the full protocol.
        values: Test errors by quantity, each with its unit.
        published: The published errors.
        source: Reference for the published errors.
        protocol: Numbers of structures, epochs and parameters.
        progress: Validation error at the first and at the best validation, by quantity, with its unit.
        seed: Seed of weights and data order.
        device: The device it ran on.
        minutes: Wall time of all sessions together.
        command: The command line.
    """

    recipe: str
    table: str
    row: str
    column: str
    form: str
    changes: list[str]
    values: dict[str, tuple[float, str]]
    published: dict[str, tuple[float, str]]
    source: str
    protocol: str
    progress: dict[str, tuple[float, float, str]]
    seed: int
    device: str
    minutes: float
    command: str


def read_entry(name: str, changes: Sequence[str], *, scaled: bool, folder: Path | None) -> Recipe:
    """The recipe of a table entry, with its scaled form and further changes applied.

    Raises:
        UserError: There is no such recipe, it belongs to no table, or a change is invalid.
    """
    path = find_recipe(name)
    full = validate(read_source(path))
    if full.benchmark is None:
        raise UserError(f"{name} reproduces no published result; train it with: equiform train {name}")
    overrides = [*(full.benchmark.scaled if scaled else ()), *changes]
    base: dict[str, dict[str, Any]] = {} if folder is None else {"run": {"folder": str(folder)}}
    recipe = validate(read_source(path, overrides, base))
    relevant = [change for change in overrides if not change.startswith(_IRRELEVANT)]
    own = [change for change in changes if not change.startswith(_IRRELEVANT)]
    form = "scaled" if scaled else "changed" if own else "full"
    noted = full.benchmark.model_copy(update={"recipe": path.stem, "form": form, "changes": tuple(relevant)})
    return recipe.model_copy(update={"benchmark": noted})


def plan(recipe: Recipe) -> list[str]:
    """Human-readable description of what will be run."""
    entry = _entry(recipe)
    lines = [f"{entry.row}, {entry.column}: {_in_words(entry.published) or 'no published value'} ({entry.source})"]
    if entry.form == "full":
        lines.append(f"the full protocol, as published; expected cost: {entry.cost}; --scaled runs a small form")
    else:
        lines.append(f"NOT the full protocol (which costs {entry.cost}), but {len(entry.changes)} settings changed:")
        lines += [f"  {change}" for change in entry.changes]
    for known in entry.measured:
        units = {"energy": "meV", "forces": "meV/Å"} | {name: unit for name, (_, unit) in entry.published.items()}
        values = ", ".join(f"{name} {value:g} {units.get(name, '')}".rstrip() for name, value in known.values.items())
        form = "scaled" if known.scaled else "full"
        where = f"{known.device}, {known.minutes:g} minutes"
        lines.append(f"our own result ({form}; {known.protocol}; seed {known.seed}; {where}): {values}")
    return lines


def conclude(outcome: Outcome, recipe: Recipe, seconds: float) -> Result:
    """Write the result of a finished run into its folder.

    Args:
        outcome: The outcome of the run.
        recipe: Its effective recipe.
        seconds: Wall time of this session.
    """
    from equiform.training.metrics import read_metrics
    from equiform.training.run_folder import RunFolder

    entry = _entry(recipe)
    tests = {name: errors for name, errors in outcome.errors.items() if name not in ("validation", "training")}
    values = _values(tests, entry)
    records = [record for record in read_metrics(outcome.folder) if record["kind"] == "validation"]
    earlier = _minutes(outcome.folder)
    epochs = read_metrics(outcome.folder)[-1].get("epoch") or 0.0
    counts = [outcome.facts.get(f"{name} structures", "0") for name in ("training", "validation")]
    counts.append(" + ".join(outcome.facts.get(f"{name} structures", "0") for name in tests) or "0")
    run = RunFolder.open(outcome.folder)
    result = Result(
        recipe=entry.recipe,
        table=entry.table,
        row=entry.row,
        column=entry.column,
        form=entry.form,
        changes=list(entry.changes),
        values=values,
        published=dict(entry.published),
        source=entry.source,
        protocol=f"{' / '.join(counts)} structures, {epochs:.4g} epochs, {outcome.facts.get('parameters', '?')} parameters",
        progress=_progress(records, outcome.errors.get("validation", {})),
        seed=recipe.training.seed,
        device=str(run.provenance.get("device", "")),
        minutes=round(earlier + seconds / 60, 2),
        command=str(run.provenance.get("command", "")),
    )
    write_atomically(outcome.folder / RESULT, to_json(result._asdict()))
    return result


def read_result(folder: Path) -> Result:
    """The result of a run of a table entry.

    Raises:
        UserError: It is not such a run, or it has not finished.
    """
    path = folder / RESULT
    if not path.is_file():
        unfinished = (folder / "run.json").is_file()
        hint = (
            "it has not finished; resume with: equiform recipe run --resume"
            if unfinished
            else "was it made by equiform recipe run?"
        )
        raise UserError(f"{folder} has no result of a table entry: {hint}{f' {folder}' if unfinished else ''}")
    with explained(f"cannot read {path}", "check its permissions"):
        text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        for name in ("values", "published", "progress"):
            content[name] = {key: tuple(entry) for key, entry in content[name].items()}
        return Result(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def rows(result: Result) -> list[tuple[str, str, str, str, str]]:
    """Entry, our value, published value, unit and protocol; one row per quantity."""
    protocol = f"{result.form}: {result.protocol}"
    lines = []
    for name, (value, unit) in result.values.items():
        published = result.published.get(name)
        label = result.column if name == result.column else f"{result.column}, {name}"
        lines.append((label, f"{value:.4g}", f"{published[0]:g}" if published else "–", unit, protocol))
    return lines


def progress_in_words(result: Result) -> str:
    """The validation errors at the first and the best validation, as text."""
    parts = [f"{name} {first:.4g} → {last:.4g} {unit}" for name, (first, last, unit) in result.progress.items()]
    return "validation error, first → best: " + ", ".join(parts) if parts else "no validation"


def note_time(folder: Path, seconds: float) -> None:
    """Store the wall time of an interrupted session, for the result of the session that finishes the run."""
    write_atomically(folder / _INTERRUPTED, to_json({"minutes": round(_minutes(folder) + seconds / 60, 2)}))


def _minutes(folder: Path) -> float:
    """Wall time of the earlier sessions, minutes."""
    for name in (RESULT, _INTERRUPTED):
        if (folder / name).is_file():
            return float(json.loads((folder / name).read_text(encoding="utf-8"))["minutes"])
    return 0.0


class Clock:
    """Wall time since its creation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def _values(tests: Mapping[str, Mapping[str, Mapping[str, Any]]], entry: Benchmark) -> dict[str, tuple[float, str]]:
    """Errors on the test sets in the published units; with several sets (OC20) keyed by the set names."""
    found: dict[str, tuple[float, str]] = {}
    several = len(tests) > 1 or entry.by_set
    for set_name, errors in tests.items():
        for quantity, error in errors.items():
            if quantity in ("energy_per_atom", "stress") or error.get("mae") is None:
                continue
            name = (set_name if quantity == "energy" else f"{set_name} {quantity}") if several else quantity
            unit = str(error["unit"])
            shown = entry.published.get(name, entry.published.get(quantity, (0.0, _table_unit(unit, entry.table))))[1]
            found[name] = (_error(error, entry.metric) * _factor(unit, shown), shown)
            if entry.metric == "mse" and "median_mse" in error:
                found[f"{name} median"] = float(error["median_mse"]) * _factor(unit, shown), shown
            if "equivariance_error" in error:
                found[f"{name} Δ_EQ"] = (float(error["equivariance_error"]), "")
    return found


def _error(error: Mapping[str, Any], metric: str) -> float:
    """The error in the table's metric. (Only dimensionless quantities are published as mean squared errors.)"""
    return float(error["rmse"]) ** 2 if metric == "mse" else float(error["mae"])


def _progress(
    records: Sequence[Mapping[str, Any]], errors: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[float, float, str]]:
    best = next((record for record in reversed(records) if record.get("best")), None)
    if best is None:
        return {}
    names = [name for name in errors if records[0].get(f"{name}_mae") is not None]
    shown = {name: in_millis(str(errors[name]["unit"])) for name in names}
    return {
        name: (records[0][f"{name}_mae"] * factor, best[f"{name}_mae"] * factor, unit) for name, (factor, unit) in shown.items()
    }


def _table_unit(unit: str, table: str) -> str:
    return unit if table == "oc20" else in_millis(unit)[1]


def _factor(unit: str, published: str) -> float:
    if unit == published:
        return 1.0
    factor, shown = in_millis(unit)
    if shown != published:
        raise UserError(f"an error in {unit or 'no unit'} cannot be compared with one in {published}")
    return factor


def _entry(recipe: Recipe) -> Benchmark:
    if recipe.benchmark is None:
        raise UserError("this run is not a run of a table entry")
    return recipe.benchmark


def _in_words(values: Mapping[str, tuple[float, str]]) -> str:
    return ", ".join(f"{name} {value:g} {unit}" for name, (value, unit) in values.items())
