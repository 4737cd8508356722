"""Training on particles: vectors per node, no energy, no elements, the same command line."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from equiform.cli import app
from equiform.data.pipeline.dataset import Dataset
from equiform.data.sets.config import SetConfig
from equiform.data.sets.nbody_prepare import prepare_nbody
from equiform.data.sets.nbody_samples import NBodySamples, make_set
from equiform.errors import UserError
from equiform.fields import Field
from equiform.graph import to_device
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.persist.modelfile import load_model
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.evaluate import evaluate
from equiform.training.scale import initial_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    make_set("nbody-egnn", folder, counts={"train": 60, "validation": 20, "test": 20})
    return folder


def command(*arguments):
    ended = CliRunner().invoke(app, ["--no-cache", *map(str, arguments)])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended


def test_a_recipe_trains_validates_and_reports(folder, tmp_path):
    settings = ["training.epochs=30", "training.validate_every=6", "training.learning_rate=5e-3", "training.batch_size=10"]
    settings += ["model.channels=16", "model.num_layers=2", f"data.folder={folder}", "-o", tmp_path / "run"]
    ended = command("train", "nbody-egnn", *settings)
    assert ended.exit_code == 0, ended.stderr
    assert "mean squared error" in ended.stdout and "displacement" in ended.stdout
    assert f"equiform analyze trajectory {tmp_path / 'run'}" in ended.stdout
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())
    assert set(errors["test"]) == {"displacement"} and errors["test"]["displacement"]["count"] == 20 * 15
    loaded = load_model(tmp_path / "run" / "best").task
    assert isinstance(loaded, Motion) and loaded.quantity == "displacement" and loaded.scales == ()
    data = prepare_nbody(SetConfig(set="nbody-egnn", folder=str(folder)), 5.0)
    again = evaluate(loaded, data.tests["test"])["displacement"]
    np.testing.assert_allclose(again["rmse"], errors["test"]["displacement"]["rmse"], rtol=1e-4)
    fresh = initial_task(build_model(loaded.model.config, key=jax.random.key(0)), TrainingConfig(), data.train, (0,))
    assert again["rmse"] < 0.8 * evaluate(fresh, data.tests["test"])["displacement"]["rmse"]


def test_a_model_without_energy_gives_its_vectors_and_no_forces(folder):
    graph = to_device(NBodySamples.read(folder / "test.npz")[0], jnp.float64)
    model = build_model(preset("egnn-nbody", channels=4), key=jax.random.key(0))
    assert set(eqx.filter_jit(Motion(model).predict)(graph, ())) == {"displacement"}
    with pytest.raises(ValueError, match="predicts no energy, so it is not a potential; it predicts displacement"):
        Potential(model)


def test_another_start_is_trained_on_in_every_epoch(tmp_path):
    make_set("nbody-se3", tmp_path, counts={"train": 8, "validation": 2, "test": 2})
    data = prepare_nbody(SetConfig(set="nbody-se3", folder=str(tmp_path)), 5.0)
    assert isinstance(data.train, Dataset) and data.train.noised and not data.validation.noised
    with BatchStream(data.train, batch_size=8, dtype="float64") as stream:
        epochs = [next(stream) for _ in range(2)]
    first = [batch.graph.positions[np.argmin(batch.indices) * 5] for batch in epochs]
    assert np.abs(np.asarray(first[0] - first[1])).max() > 1e-6
    assert epochs[0].signature == epochs[1].signature


def test_a_missing_set_is_made_where_the_data_are(tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIFORM_DATA", str(tmp_path))
    data = prepare_nbody(SetConfig(set="nbody-demetar", train_size=5, test_size=7), 5.0)
    assert (tmp_path / "nbody-demetar" / "train.npz").is_file()
    assert (len(data.train), len(data.validation), len(data.tests["test"])) == (5, 2000, 7)
    assert data.elements == (0,) and data.train.target == Field("displacement", "atoms", "polar")


def test_mistakes_are_told(folder):
    with pytest.raises(UserError, match=r"train_size=61, but .* has 60 simulations"):
        prepare_nbody(SetConfig(set="nbody-egnn", folder=str(folder), train_size=61), 5.0)
    with pytest.raises(UserError, match="has no split 'official'"):
        prepare_nbody(SetConfig(set="nbody-egnn", folder=str(folder), split="official"), 5.0)
    failed = command("train", "nbody-egnn", "model=egnn-nbdy")
    assert failed.exit_code == 1 and "did you mean 'egnn-nbody'" in failed.stderr
