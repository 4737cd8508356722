"""DEMETAr's N-body tables reproduced: test error at the best validation epoch and equivariance error, several seeds per row.

python -m benchmarks.demetar --folder runs/demetar                    run what is missing, both tasks
python -m benchmarks.demetar --folder runs/demetar --minutes 9        start no run after nine minutes
python -m benchmarks.demetar --folder runs/demetar --table            the tables of the finished runs
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.many_runs import make_missing, mean_and_spread

TASKS = {"demetar": "nbody-demetar", "egnn": "nbody-egnn"}
SEEDS = (1, 2, 3)


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        recipe: Suffix of the task's recipe name.
        changes: Changes to the recipe.
        said: The blog's value on its own task; all are test errors of the first epoch.
        tasks: The tasks on which it is run.
    """

    recipe: str
    changes: Sequence[str] = ()
    said: str = "–"
    tasks: Sequence[str] = ("demetar", "egnn")


ROWS = {
    "released, double encoder, 64 channels": Row("-published", said=".050895 (validation .003538)"),
    "released, double encoder, 128 channels": Row(
        "-published", ["model.channels=128"], ".036390 (validation .003886)", ["demetar"]
    ),
    "released, atoms only, 128 channels": Row(
        "-published", ["model.channels=128", "model.edges=false"], ".051746 (validation .004038)"
    ),
    "released, atoms only, 4 layers": Row("-published", ["model.edges=false", "model.node_layers=4"], ".051638", ["demetar"]),
    "released, edge embedding and cross-attention": Row("-published", ["model.edge_layers=0"], ".040679"),
    "released, positions in and out": Row("-published", ["model.vectors=position"], "1.259675", ["demetar"]),
    "released, x + v + y": Row("-published", ["model.vectors=offset"], ".364862", ["demetar"]),
    "released, x + v + y ⊙ (x − x̄)": Row(
        "-published", ["model.vectors=centre-components"], ".313850 (validation .1620)", ["demetar"]
    ),
    "corrected, one number per velocity": Row("", ["model.vectors=velocity"]),
    "corrected, and one per pair": Row("", []),
    "corrected, atoms only": Row("", ["model.edges=false"]),
    "corrected, edge embedding and cross-attention": Row("", ["model.edge_layers=0"]),
    "EGNN": Row("-egnn", said=".0025"),
}


def settings(task: str, name: str, seed: int) -> list[str]:
    """The arguments of `equiform recipe run`."""
    row = ROWS[name]
    recipe = f"nbody-{task}" if task == "demetar" else f"nbody-{task}-demetar"
    recipe, changes = recipe + row.recipe, list(row.changes)
    if name == "EGNN" and task == "egnn":  # with the same short schedule as the others
        recipe, changes = "nbody-demetar-egnn", ["data.set=nbody-egnn", "benchmark.column=egnn"]
    return [recipe, *changes, f"training.seed={seed}"]


def place(folder: Path, task: str, name: str, seed: int) -> Path:
    """The folder of a run."""
    return folder / task / name.replace(" ", "_") / str(seed)


def runs(
    folder: Path, tasks: Sequence[str], names: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[Sequence[str], Path]]:
    """All runs, ordered by seed."""
    for seed in seeds:
        for task in tasks:
            for name in names:
                if task in ROWS[name].tasks:
                    yield settings(task, name, seed), place(folder, task, name, seed)


def errors_of_equivariance(folder: Path) -> float:
    """Δ_EQ of a run's model on a hundred test simulations, in float64 (the mean over rotations)."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from equiform.data.sets.config import SetConfig
    from equiform.data.sets.nbody_prepare import prepare_nbody
    from equiform.graph import batch, to_device
    from equiform.persist.modelfile import load_model
    from equiform.persist.parameters import with_dtype
    from equiform.report.equivariance import equivariance_error

    with jax.enable_x64(True):
        model = with_dtype(load_model(folder / "best").task, "float64").model
        data = prepare_nbody(SetConfig.model_validate({"set": TASKS[folder.parts[-3]]}), 1000.0).tests["test"]
        called = eqx.filter_jit(model)
        graph = batch(data.gathered(range(100), None))
        return equivariance_error(lambda g: called(to_device(g, jnp.float64))["displacement"], graph)


def table(folder: Path) -> str:
    """The tables of the finished runs, as Markdown."""
    lines = []
    for task in TASKS:
        lines += [
            f"\n{TASKS[task]}\n",
            "| model | test MSE | Δ_EQ | parameters | seeds | the blog |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in ROWS.items():
            found = sorted(place(folder, task, name, 0).parent.glob("*/benchmark.json"))
            if not found:
                continue
            results = [json.loads(path.read_text()) for path in found]
            error = mean_and_spread([result["values"]["displacement"][0] for result in results], ".5f")
            equivariance = np.mean([errors_of_equivariance(path.parent) for path in found])
            parameters = results[0]["protocol"].split(", ")[-1].removesuffix(" parameters")
            said = row.said if task == "demetar" else "–"
            seeds = ", ".join(path.parent.name for path in found)
            lines.append(f"| {name} | {error} | {equivariance:.1e} | {parameters} | {seeds} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--task", choices=TASKS, action="append", help="one task only")
    parser.add_argument("--row", choices=ROWS, action="append", help="some rows only")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run later than this")
    parser.add_argument("--table", action="store_true", help="print the tables")
    given = parser.parse_args()
    if given.table:
        print(table(given.folder))
    else:
        make_missing(runs(given.folder, given.task or list(TASKS), given.row or list(ROWS), given.seeds), given.minutes)
