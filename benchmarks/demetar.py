"""DEMETAr's N-body tables made again: test error at the best validation epoch and error of equivariance, several seeds per row.

python -m benchmarks.demetar --folder runs/demetar                    run what is missing, both tasks
python -m benchmarks.demetar --folder runs/demetar --minutes 9        begin no run after nine minutes
python -m benchmarks.demetar --folder runs/demetar --table            the tables of what is there
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

TASKS = {"demetar": "nbody-demetar", "egnn": "nbody-egnn"}
SEEDS = (1, 2, 3)


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        recipe: What the task's recipe is called after its name.
        changes: What is changed in it.
        said: The blog's number on its own task, all test errors of a first epoch.
        tasks: Where it is run.
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


def command(task: str, name: str, seed: int, folder: Path) -> list[str]:
    """What makes one run."""
    row = ROWS[name]
    recipe = f"nbody-{task}" if task == "demetar" else f"nbody-{task}-demetar"
    recipe, changes = recipe + row.recipe, list(row.changes)
    if name == "EGNN" and task == "egnn":  # at the same short schedule as the others
        recipe, changes = "nbody-demetar-egnn", ["data.set=nbody-egnn", "benchmark.column=egnn"]
    changes.append(f"training.seed={seed}")
    return ["recipe", "run", recipe, *changes, "-o", str(folder / task / name.replace(" ", "_") / str(seed))]


def run(folder: Path, tasks: Sequence[str], names: Sequence[str], seeds: Sequence[int], minutes: float) -> None:
    """Make the runs that are missing, seed by seed."""
    start = time.monotonic()
    for seed in seeds:
        for task in tasks:
            for name in names:
                arguments = command(task, name, seed, folder)
                if task not in ROWS[name].tasks or (Path(arguments[-1]) / "benchmark.json").is_file():
                    continue
                if time.monotonic() - start > 60 * minutes:
                    return
                if (Path(arguments[-1]) / "run.json").is_file():
                    arguments = ["recipe", "run", "--resume", arguments[-1]]
                print("equiform", *arguments, flush=True)
                subprocess.run(
                    [sys.executable, "-c", "from equiform.cli import main; main()", *arguments],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )


def errors_of_equivariance(folder: Path) -> float:
    """Δ_EQ of a run's model on a hundred test simulations, in float64 (the mean over rotations)."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from equiform.analysis.equivariance import equivariance_error
    from equiform.data.nbody_data import prepare_nbody
    from equiform.data.set_config import SetConfig
    from equiform.graph import batch, to_device
    from equiform.modelfile import load_model
    from equiform.training.parameters import with_dtype

    with jax.enable_x64(True):
        model = with_dtype(load_model(folder / "best").potential, "float64").model
        data = prepare_nbody(SetConfig.model_validate({"set": TASKS[folder.parts[-3]]}), 1000.0).tests["test"]
        called = eqx.filter_jit(model)
        graph = batch(data.gathered(range(100), None))
        return equivariance_error(lambda g: called(to_device(g, jnp.float64))["displacement"], graph)


def table(folder: Path) -> str:
    """The tables of the runs that are there, as Markdown."""
    lines = []
    for task in TASKS:
        lines += [
            f"\n{TASKS[task]}\n",
            "| model | test MSE | Δ_EQ | parameters | seeds | the blog |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in ROWS.items():
            runs = sorted((folder / task / name.replace(" ", "_")).glob("*/benchmark.json"))
            if not runs:
                continue
            results = [json.loads(path.read_text()) for path in runs]
            values = np.array([result["values"]["displacement"][0] for result in results])
            spread = f" ± {values.std(ddof=1):.5f}" if len(values) > 1 else ""
            turned = np.mean([errors_of_equivariance(path.parent) for path in runs])
            parameters = results[0]["protocol"].split(", ")[-1].removesuffix(" parameters")
            said = row.said if task == "demetar" else "–"
            seeds = ", ".join(path.parent.name for path in runs)
            lines.append(f"| {name} | {values.mean():.5f}{spread} | {turned:.1e} | {parameters} | {seeds} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are")
    parser.add_argument("--task", choices=TASKS, action="append", help="one task only")
    parser.add_argument("--row", choices=ROWS, action="append", help="some rows only")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--table", action="store_true", help="print the tables")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.folder))
    else:
        run(arguments.folder, arguments.task or list(TASKS), arguments.row or list(ROWS), arguments.seeds, arguments.minutes)
