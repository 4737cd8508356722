"""`training.members`: a run that ends as a committee, with the errors of each member, and that resumes exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from equiform.deploy.predictor import load
from equiform.errors import UserError
from equiform.jobs.train import resume
from equiform.jobs.uncertainty import calibrate, judge_file
from equiform.models.committee import Committee
from equiform.persist.modelfile import load_model
from equiform.persist.parameters import named
from equiform.recipes.schema import load_recipe
from tests.jobs.tuned import interrupted, run, write

OFFSETS = {"H": -13.0, "O": -2000.0}
MODEL = ["model.name=torchmd-et", "model.num_layers=1", "model.channels=8", "model.num_heads=2", "model.num_basis=4"]
SETTINGS = [*MODEL, "training.members=2", "training.dtype=float64", "training.max_steps=4", "training.checkpoint_every=2"]
SETTINGS += ["training.batch_size=8", "training.log_every=2", "training.losses.forces=null", "data.validation=0.5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    data = write(folder / "water.xyz", "H2O", 32, 0, OFFSETS)
    return *run(folder / "run", data, *SETTINGS), folder / "run", data


@pytest.mark.slow  # It trains.
def test_the_model_is_a_committee_of_members_with_seeds_of_their_own(trained):
    outcome, _, folder, _ = trained
    task = load_model(folder / "best").task
    assert isinstance(task.model, Committee)
    assert task.model.config.members == 2
    weights = named(task.model.members)["embedding"]
    assert np.abs(np.asarray(weights[0]) - np.asarray(weights[1])).max() > 0.1
    assert set(outcome.errors) == {"validation", "validation, member 1", "validation, member 2"}
    errors = [outcome.errors[f"validation{name}"]["energy_per_atom"]["rmse"] for name in ("", ", member 1", ", member 2")]
    # The error of a mean is at most the mean error; and the members are not the same.
    assert errors[0] <= np.sqrt((errors[1] ** 2 + errors[2] ** 2) / 2) * (1 + 1e-6)
    assert errors[1] != pytest.approx(errors[2], rel=1e-3)
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    entry = next(entry for entry in entries if entry["kind"] == "train")
    assert entry["loss"] == pytest.approx((entry["loss_member_1"] + entry["loss_member_2"]) / 2, rel=1e-9)


@pytest.mark.slow  # It trains.
def test_the_committee_is_calibrated_and_evaluated_like_any(trained):
    _, _, folder, data = trained
    assert calibrate(folder, None, dtype="float64", say=str).table["energy"]["count"] == 16
    judged = judge_file(folder, str(data), load_recipe(folder / "recipe.yaml")[0].data, None, dtype="float64")
    assert judged is not None
    assert judged.table["energy"]["expected"] > 0
    assert load(folder, dtype="float64")


@pytest.mark.slow  # It trains.
def test_an_interrupted_committee_resumes_exactly(trained, tmp_path: Path):
    folder = trained[2]
    copy = interrupted(folder, tmp_path / "copy")
    resume(copy, [], say=str, warn=str, progress=False)
    ends = [named(load_model(place / "last").task.model) for place in (folder, copy)]
    assert ends[0].keys() == ends[1].keys()
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    errors = [json.loads((place / "errors.json").read_text()) for place in (folder, copy)]
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.members=0"], "training.members"),
        (["training.members=2", "from=organic-gfn2"], "all members would start from the weights of from=organic-gfn2"),
        (["training.members=2", "freeze=embedding"], "leave training.freeze out"),
        (["training.members=2", "training.devices=2"], "share one device"),
        (["training.members=2", "model=egnn"], "committees can be made of equiformer, torchmd-et, not of egnn"),
        (["training.members=2", "adapters=2"], "give from=MODEL"),
    ],
    ids=["none", "from", "frozen", "devices", "architecture", "adapters"],
)
def test_members_with_a_setting_that_excludes_them_is_one_clear_line(tmp_path, settings, said):
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "run", tmp_path / "none.xyz", *settings)
    assert "\n" not in str(error.value)
