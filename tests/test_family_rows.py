"""The rows of the family at equal budget: what is called equal is equal, and runs become lines."""

import json

import pytest

from benchmarks import family_rows, many_runs
from equiform.data.sets.config import SetConfig
from equiform.models import MODELS
from equiform.papers.run import read_entry

TASKS = family_rows.TASKS


def effective(task, model):
    name, _, *changes = family_rows.settings(task, model, 1)
    changes = [change for change in changes if "=" in change]
    return read_entry(name, changes, scaled=True, folder=None)


@pytest.mark.parametrize("task", TASKS)
def test_models_see_the_same_structures_for_the_same_time(task):
    recipes = [effective(task, model) for model in TASKS[task].recipes]
    data = recipes[0].data
    assert isinstance(data, SetConfig) and data.train_size == {"qm9": 4000, "md17": None}[task] and data.test_size == 1000
    for recipe in recipes:
        assert recipe.data == data
        training = recipe.training
        assert training.max_minutes == recipes[0].training.max_minutes is not None
        assert (training.epochs, training.max_steps) == (None, None)
        assert training.warmup_epochs is None and training.validate_every is None and training.schedule == "step"
        assert training.early_stopping is None


def test_every_architecture_with_a_recipe_for_the_tasks_is_there():
    for task in TASKS:
        assert len(TASKS[task].recipes) == 5 == len(set(TASKS[task].recipes.values()))
    assert {"equiformer", "torchmd-et", "egnn", "se3-transformer", "demetar"} <= set(MODELS)


def finished_run(folder, task, model, seed, values):
    place = family_rows.place(folder, task, model, seed)
    place.mkdir(parents=True)
    protocol = "950 / 50 / 1,000 structures, 20 epochs, 104,325 parameters"
    about = {"recipe": "", "table": "md17", "row": model, "column": "ethanol", "form": "scaled", "changes": [], "source": ""}
    course = {"published": {}, "progress": {}, "seed": seed, "device": "", "minutes": 4.0, "command": ""}
    content = {**about, **course, "values": values, "protocol": protocol}
    (place / "benchmark.json").write_text(json.dumps(content), encoding="utf-8")


def test_seeds_of_a_model_become_a_line(tmp_path):
    for seed, forces in ((1, 20.0), (2, 22.0)):
        finished_run(tmp_path, "md17", "EGNN", seed, {"energy": (3.0, "meV"), "forces": (forces, "meV/Å")})
    (line,) = [line for line in family_rows.table(tmp_path).splitlines() if line.startswith("| EGNN")]
    # The mean of 20 and 22 is 21, their deviation √2; 20 epochs of 950 frames are 19,000.
    assert line == "| EGNN | 3.0 ± 0.0 | 21.0 ± 1.4 | 104,325 | 19,000 | 20.0 | 1, 2 | `md17-ethanol-egnn` |"


def test_only_missing_runs_are_made_and_interrupted_ones_resumed(tmp_path, monkeypatch):
    finished_run(tmp_path, "md17", "EGNN", 1, {})
    begun = family_rows.place(tmp_path, "md17", "TorchMD-NET ET", 1)
    begun.mkdir(parents=True)
    (begun / "run.json").write_text("{}", encoding="utf-8")
    typed = []
    monkeypatch.setattr(many_runs, "_equiform", lambda *arguments: typed.append(arguments))
    models = ["TorchMD-NET ET", "EGNN", "Equiformer"]
    many_runs.make_missing(family_rows.runs(tmp_path, ["md17"], models, [1]), 1.0, compiled_before=True)
    assert typed[0] == ("recipe", "run", "--resume", str(begun))
    fresh = family_rows.place(tmp_path, "md17", "Equiformer", 1)
    assert "training.max_steps=1" in typed[1] and str(fresh) not in typed[1]
    assert typed[2] == ("recipe", "run", *family_rows.settings("md17", "Equiformer", 1), "-o", str(fresh))
    assert len(typed) == 3
