"""`equiform train`: run folders, reports, recipes, and how it ends."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import ase.io

from tests.cli.commands import Result, structures


def test_train_reports_what_it_found_and_leaves_everything(trained):
    run, result = trained
    for text in ("structures", "H2O", "parameters", "meV/Å", "meV/atom", str(run / "report.html")):
        assert text in result.out, text
    for name in (
        "recipe.yaml",
        "metrics.jsonl",
        "learning_curve.png",
        "parity.png",
        "report.html",
        "errors.json",
    ):
        assert (run / name).is_file(), name
    assert (run / "best" / "config.json").is_file() and (run / "last" / "config.json").is_file()


def test_the_report_is_one_file_with_errors_units_plots_recipe_and_versions(trained):
    run, _ = trained
    page = (run / "report.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3  # a structure, the curves, parity
    assert f"equiform evaluate {run} DATA" in page
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)
    for text in ("meV/Å", "meV/atom", "name: toy", "jaxlib", "validation"):
        assert text in page, text


def test_the_effective_recipe_trains_again_to_the_same_weights(trained, tmp_path):
    run, _ = trained
    again = tmp_path / "again"
    assert Result("train", run / "recipe.yaml", "-o", again).status == 0
    weights = [(folder / "best" / "weights.safetensors").read_bytes() for folder in (run, again)]
    assert weights[0] == weights[1]


def test_a_finished_run_can_be_resumed_and_changes_nothing(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained[0], copy)
    before = (copy / "best" / "weights.safetensors").read_bytes()
    assert Result("train", "--resume", copy).status == 0
    assert (copy / "best" / "weights.safetensors").read_bytes() == before


def test_default_run_folders_are_numbered_and_nothing_is_overwritten(trained, data, tmp_path):
    shutil.copytree(trained[0], tmp_path / "runs" / "water-1")
    arguments = ("train", data, "model.name=toy", "training.max_steps=1")
    assert Result(*arguments).status == 0
    assert (tmp_path / "runs" / "water-2" / "report.html").is_file()
    before = (tmp_path / "runs" / "water-1" / "metrics.jsonl").read_bytes()
    assert "holds an earlier run" in Result(*arguments, "-o", "runs/water-1").error()
    assert (tmp_path / "runs" / "water-1" / "metrics.jsonl").read_bytes() == before


def test_a_run_folder_that_cannot_be_made(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in Result("train", data, "model.name=toy", "-o", "file/run").error()


def test_a_used_run_folder_is_refused_before_the_data_are_read(trained):
    assert "holds an earlier run" in Result("train", "gone.xyz", "-o", trained[0]).error()


def test_a_misspelt_recipe_is_not_taken_for_a_data_file():
    assert "did you mean the recipe ethanol?" in Result("train", "ethanoll").error()


def test_a_mistake_in_a_recipe_is_told_before_anything_is_read(tmp_path):
    Path("recipe.yaml").write_text("data:\n  train: absent.xyz\ntraining:\n  batchsize: 3\n")
    assert "recipe.yaml:4: unknown key 'batchsize'" in Result("train", "recipe.yaml").error()
    assert "'model.nme=toy'" in Result("train", "absent.xyz", "model.nme=toy").error()


def test_ctrl_c_ends_with_130_and_a_hint(data, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("equiform.training.fit.fit", interrupted)
    result = Result("train", data, "model.name=toy", "-o", "run")
    assert result.status == 130 and result.err.splitlines()[-1].endswith("equiform train --resume run")


def test_a_model_of_tagged_atoms_is_trained_evaluated_and_used_on_tagged_structures(data, tmp_path):
    settings = ["model.name=toy", "model.num_tags=3", "training.max_steps=2", "training.batch_size=4"]
    assert "a training structure has none" in Result("train", data, *settings, "-o", tmp_path / "run").error()
    frames = structures(12)
    for atoms in frames:
        atoms.set_tags([2, 1, 0])
    ase.io.write(tmp_path / "tagged.xyz", frames, format="extxyz")
    result = Result("train", tmp_path / "tagged.xyz", *settings, "-o", tmp_path / "run2")
    assert result.status == 0, result.err
    found = json.loads(Result("evaluate", tmp_path / "run2", tmp_path / "tagged.xyz", "--json").out)
    assert found["forces"]["mae"] > 0
    assert "has none" in Result("evaluate", tmp_path / "run2", data, "--json").error()
    assert "has none" in Result("predict", tmp_path / "run2", data, "-o", "p.xyz").error()
    assert Result("predict", tmp_path / "run2", tmp_path / "tagged.xyz", "-o", "p.xyz").status == 0
    assert ase.io.read("p.xyz").get_tags().tolist() == [2, 1, 0]


def test_everything_said_is_in_the_text_log_too(trained):
    run, result = trained
    log = (run / "log.txt").read_text()
    for text in ("12 of 12 structures", "run folder", "compiling the training step", "finished after", "evaluating the model"):
        assert text in log and text in result.out + result.err, text
    assert all(line[:2] == "20" for line in log.splitlines())


def test_several_files_and_folders_are_one_training_set_and_what_is_overridden_is_said(data, tmp_path):
    from equiform.cli.train import _read

    (tmp_path / "more").mkdir()
    ase.io.write(tmp_path / "more" / "b.xyz", structures(4, seed=1), format="extxyz")
    (tmp_path / "more" / "notes.txt").write_text("not structures")
    quick = ("model.name=toy", "training.max_steps=1", "-o", tmp_path / "run", "--quiet")
    result = Result("train", data, tmp_path / "more", *quick)
    assert result.status == 0, result.err
    assert "16 structures" in (tmp_path / "run" / "log.txt").read_text()
    assert "structures" not in result.out.replace("STRUCTURE", "") and "meV/Å" in result.out
    assert _read(str(data), ["data.train=other.xyz"], None).data.train.endswith("other.xyz")


def test_a_model_that_has_hardly_been_trained_is_called_that_everywhere(data, tmp_path):
    settings = ("model.name=toy", "training.max_steps=1", "training.batch_size=2", "-o", tmp_path / "run")
    result = Result("train", data, *settings)
    said = "this model is not trained: it has seen only 0.17 of one pass"
    assert result.status == 0 and said in result.err.splitlines()[-1]
    assert "best model" not in result.out + result.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r"<h1>[^<]*</h1>\s*<p>This model is not trained", page) and "best model" not in page
    assert said in Result("info", tmp_path / "run").out
    assert said in Result("evaluate", tmp_path / "run", data).err
