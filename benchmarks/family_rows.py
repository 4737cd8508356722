"""The whole family on QM9 and MD17 at equal budget: the same structures and the same wall time for every model.

python -m benchmarks.family_rows --folder runs/family                    run what is missing, both tasks
python -m benchmarks.family_rows --folder runs/family --minutes 30       start no run after half an hour
python -m benchmarks.family_rows --folder runs/family --table            the tables of the finished runs

Every run is the scaled form of its model's recipe (small model, 4,000 molecules or 950 frames) with the settings of `EQUAL`:
the length is a wall time that includes validations, and warm-up and validations scale with it. Models differ most in compile
time, which is negligible in a run of days: every run uses programs compiled by a one-step run before it.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.many_runs import finished, make_missing, mean_and_spread
from equiform.papers.run import Result, read_result

EQUAL = (
    "training.max_minutes=3",
    "training.epochs=null",
    "training.schedule=step",
    "training.warmup_epochs=null",
    "training.warmup_fraction=0.03",
    "training.validate_every=null",  # every epoch, but at most a hundred validations
    "training.early_stopping=null",
)
"""Settings shared by all runs; with the size of the data they define the budget."""

SEEDS = (1,)


class Task(NamedTuple):
    """A table.

    Attributes:
        title: Its heading.
        recipes: One recipe per model.
        changes: Changes to all of them, in addition to `EQUAL`.
        errors: Names of the test errors in a result, with their column headings.
    """

    title: str
    recipes: dict[str, str]
    changes: Sequence[str]
    errors: dict[str, str]


TASKS = {
    "qm9": Task(
        "QM9, ε_HOMO",
        {
            "Equiformer": "qm9-homo",
            "TorchMD-NET ET": "qm9-homo-torchmd-et",
            "SE(3)-Transformer": "qm9-homo-se3-transformer",
            "EGNN": "qm9-homo-egnn",
            "DEMETAr, corrected": "qm9-homo-demetar",
        },
        ["data.split=published"],  # the same molecules also for models whose papers split QM9 differently
        {"homo": "ε_HOMO, meV"},
    ),
    "md17": Task(
        "MD17, ethanol",
        {
            "Equiformer": "md17-ethanol-l2",
            "TorchMD-NET ET": "md17-ethanol-torchmd-et",
            "SE(3)-Transformer": "md17-ethanol-se3-transformer",
            "EGNN": "md17-ethanol-egnn",
            "DEMETAr, corrected": "md17-ethanol-demetar",
        },
        [],
        {"energy": "energy, meV", "forces": "forces, meV/Å"},
    ),
}


def place(folder: Path, task: str, model: str, seed: int) -> Path:
    """The folder of a run."""
    return folder / task / TASKS[task].recipes[model] / str(seed)


def settings(task: str, model: str, seed: int) -> list[str]:
    """The arguments of `equiform recipe run`."""
    chosen = TASKS[task]
    return [chosen.recipes[model], "--scaled", *chosen.changes, *EQUAL, "--seed", str(seed)]


def runs(
    folder: Path, tasks: Sequence[str], models: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[Sequence[str], Path]]:
    """All runs, ordered by seed."""
    for seed in seeds:
        for task in tasks:
            for model in models:
                yield settings(task, model, seed), place(folder, task, model, seed)


def table(folder: Path) -> str:
    """The tables of the finished runs, as Markdown."""
    lines = []
    for name, task in TASKS.items():
        common = " ".join(["--scaled", *task.changes, *EQUAL, "--seed N"])
        lines += [
            f"\n{task.title}: each `equiform recipe run RECIPE {common}`\n",
            f"| model | {' | '.join(task.errors.values())} | parameters | structures seen | epochs | seeds | RECIPE |",
            "|---" * (len(task.errors) + 6) + "|",
        ]
        for model, recipe in task.recipes.items():
            found = sorted(path for path in place(folder, name, model, 0).parent.glob("*") if finished(path))
            if not found:
                continue
            results = [read_result(path) for path in found]
            errors = [mean_and_spread([result.values[key][0] for result in results], ".1f") for key in task.errors]
            seeds = ", ".join(path.name for path in found)
            seen, epochs = zip(*(_seen(result) for result in results))
            cells = [model, *errors, results[0].protocol.split(", ")[-1].removesuffix(" parameters")]
            cells += [f"{sum(seen) / len(seen):,.0f}", f"{sum(epochs) / len(epochs):.1f}", seeds, f"`{recipe}`"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seen(result: Result) -> tuple[float, float]:
    """Number of structures seen in training, counting repeats, and number of epochs."""
    structures, epochs = re.match(r"([\d,]+) / .* structures, (\S+) epochs", result.protocol).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return float(structures.replace(",", "")) * float(epochs), float(epochs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--task", choices=TASKS, action="append", help="one task only")
    parser.add_argument("--model", choices=TASKS["qm9"].recipes, action="append", help="some models only")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later than this")
    parser.add_argument("--table", action="store_true", help="print the tables")
    given = parser.parse_args()
    if given.table:
        print(table(given.folder))
    else:
        requested = runs(given.folder, given.task or list(TASKS), given.model or list(TASKS["qm9"].recipes), given.seeds)
        make_missing(requested, given.minutes, compiled_before=True)
