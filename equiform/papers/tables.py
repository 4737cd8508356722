"""The papers' tables: published rows, and our own rows from run folders."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from equiform.papers.run import Result, read_result
from equiform.recipes import yaml_lines
from equiform.recipes.schema import builtin_recipes, load_recipe

TABLES = ("qm9", "md17", "rmd17", "oc20", "nbody", "polymers")


class PaperTable(BaseModel):
    """A table of a paper, without the rows that are defined in recipes.

    Attributes:
        title: The title.
        columns: Column headings by key; a key is `column` or `column/quantity` of a recipe.
        rows: Values of other methods, by method and column key.
        source: Reference for these values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    columns: dict[str, str]
    rows: dict[str, dict[str, float]]
    source: str


class Row(NamedTuple):
    """A row of an assembled table.

    Attributes:
        method: The method.
        cells: Values by column key; several runs of ours as mean ± standard deviation.
        note: How our value was obtained; empty for published rows.
    """

    method: str
    cells: dict[str, str]
    note: str = ""


def read_table(name: str) -> PaperTable:
    """A table by name."""
    text = Path(str(resources.files("equiform"))) / "papers" / f"{name}.yaml"
    return PaperTable.model_validate(yaml_lines.load_with_lines(text)[0])


def assemble(name: str, folders: Sequence[Path]) -> tuple[PaperTable, list[Row]]:
    """The published rows, then ours: one per method and form, averaged over runs that differ only in the seed.

    Raises:
        UserError: A folder is not a finished run of a table entry, or belongs to another table.
    """
    from equiform.errors import UserError

    table = read_table(name)
    results = [read_result(folder) for folder in folders]
    for folder, result in zip(folders, results):
        if result.table != name:
            raise UserError(f"{folder} is a run of {result.recipe}, which belongs to the table {result.table}, not {name}")
    in_recipes = _published(name)
    published = {method: {key: f"{value:g}" for key, value in cells.items()} for method, cells in table.rows.items()}
    for method, cells in in_recipes.items():
        published[method] = {**published.get(method, {}), **cells}
    lines = [Row(f"{method} (published)" if method in in_recipes else method, cells) for method, cells in published.items()]
    lines += [_own(method, form, members, table) for (method, form, _), members in _alike(results).items()]
    return table, lines


def markdown(table: PaperTable, lines: Sequence[Row]) -> str:
    """The table as Markdown."""
    keys = [key for key in table.columns if any(key in row.cells for row in lines)]
    head = ["Method", *(table.columns[key] for key in keys), "How"]
    body = [[row.method, *(row.cells.get(key, "") for key in keys), row.note] for row in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


@cache
def _published(table: str) -> Mapping[str, Mapping[str, str]]:
    """The published values in the built-in recipes, by method and column key."""
    found: dict[str, dict[str, str]] = {}
    for path in builtin_recipes().values():
        entry = load_recipe(path)[0].benchmark
        if entry is None or entry.table != table:
            continue
        for quantity, (value, _) in entry.published.items():
            found.setdefault(entry.row, {})[_key(entry.column, quantity)] = f"{value:g}"
    return found


def _alike(results: Sequence[Result]) -> dict[tuple[str, str, int], list[Result]]:
    """Runs for each line: of one method and form, and within a column with the same changes and sizes.

    Where runs of a method and column differ in more than the seed, the method has as many lines.
    """
    variants: dict[tuple[str, str, str], list[tuple[list[str], str]]] = {}
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        known = variants.setdefault((result.row, result.form, result.column), [])
        variant = (sorted(result.changes), result.protocol)
        if variant not in known:
            known.append(variant)
        groups.setdefault((result.row, result.form, known.index(variant)), []).append(result)
    return groups


def _own(method: str, form: str, members: Sequence[Result], table: PaperTable) -> Row:
    cells: dict[str, list[float]] = {}
    for result in members:
        for quantity, (value, _) in result.values.items():
            cells.setdefault(_key(result.column, quantity), []).append(value)
    protocols = dict.fromkeys(result.protocol for result in members)
    seeds = sorted({result.seed for result in members})
    note = f"{form}: {'; '.join(protocols)}; seed {', '.join(map(str, seeds))}"
    shown = {key: _mean(values) for key, values in cells.items() if key in table.columns}
    return Row(f"{method} (ours, {form})", shown, note)


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.4g}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.4g} ± {deviation:.2g}"


def _key(column: str, quantity: str) -> str:
    return column if column == quantity else f"{column}/{quantity}"
