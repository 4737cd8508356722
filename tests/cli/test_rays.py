"""Scenes of rays on the command line: data, a tiny study that resumes, prediction, and one line for what is wrong."""

import json

import pytest

from tests.cli.commands import Result

TINY = ["scenes=2", "tests=2", "steps=2", "rays=8", "points=8", "models=[visual-hull, view-mlp]"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of two models and two scenes."""
    folder = tmp_path_factory.mktemp("rays") / "run"
    return folder, Result("recipe", "run", "rays-occupancy", "--scaled", *TINY, "-o", folder)


def test_scenes_are_made_with_pictures(tmp_path):
    done = Result(
        "data",
        "make",
        "rays-scenes",
        "-o",
        tmp_path / "s",
        "--train",
        0,
        "--validation",
        0,
        "--test",
        1,
        "--pixels",
        6,
        "--pictures",
        1,
    )
    assert done.status == 0 and "2" not in done.err
    assert len(json.loads((tmp_path / "s/scene-000/transforms.json").read_text())["frames"]) == 5
    other = Result("data", "make", "rays-scenes", "-o", tmp_path / "s", "--test", 1, "--train", 0, "--validation", 0)
    assert "scenes of other settings" in other.error()


def test_a_study_prints_its_table_and_resumes(study):
    folder, done = study
    assert done.status == 0 and "visual-hull" in done.out and "IoU, I/SO(3)" in done.out
    results = json.loads((folder / "results.json").read_text())
    assert results["view-mlp"]["I"]["iou"] == pytest.approx(results["view-mlp"]["SO(3)"]["iou"], abs=0.02)
    again = Result("recipe", "run", "--resume", folder)
    assert again.status == 0 and again.out.splitlines()[-4:] == done.out.splitlines()[-4:]
    assert "| view-mlp |" in (folder / "report.md").read_text()


def test_more_test_scenes_train_nothing_again(study):
    folder, _ = study
    weights = (folder / "view-mlp/weights.safetensors").read_bytes()
    more = ["tests=3", *(setting for setting in TINY if not setting.startswith("tests"))]
    done = Result("recipe", "run", "rays-occupancy", "--scaled", *more, "-o", folder)
    results = json.loads((folder / "results.json").read_text())
    assert done.status == 0 and {row["tests"] for row in results.values()} == {3}
    assert (folder / "view-mlp/weights.safetensors").read_bytes() == weights


def test_wrong_settings_and_scenes_are_one_line(study, tmp_path):
    folder, _ = study
    assert "is not a setting of rays-occupancy" in Result("recipe", "run", "rays-occupancy", "stepz=3").error()
    assert "steps" in Result("recipe", "run", "rays-occupancy", "steps=0", "-o", tmp_path / "r").error()
    clash = Result("recipe", "run", "rays-occupancy", "--scaled", "-o", folder)
    assert "holds this study with" in clash.error()
    missing = Result("recipe", "run", "rays-novel-view", "--scaled", f"scene={tmp_path / 'no.json'}", "-o", tmp_path / "n")
    assert "there is no file" in missing.error()
    model = folder / "view-mlp"
    assert "must end with .ply" in Result("predict", model, tmp_path, "-o", tmp_path / "views").error()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "transforms.json").write_text('{"camera_angle_x": 0.6, "frames": []}')
    assert "transform" in Result("predict", model, tmp_path / "one", "-o", tmp_path / "m.ply").error()
