"""Models of simulated particles on the command line: errors, predictions, animations, and what they cannot do."""

import json

import ase.io
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule

from equiform.data.sets.nbody_samples import NBodySamples, make_set, simple_rules
from equiform.jobs.particles import by_simulation
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.persist.modelfile import save_model
from equiform.tasks.motion import Motion
from equiform.training.evaluate import Evaluation, Values
from tests.cli.commands import Result, save_toy

FACTORS = (0.6, -0.3)


@pytest.fixture(scope="module")
def walls(tmp_path_factory):
    """A set with positions and velocities to predict, and frames in between."""
    folder = tmp_path_factory.mktemp("walls")
    make_set("nbody-se3", folder, counts={"train": 40, "validation": 3, "test": 20})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, walls):
    """The velocity times one number for each vector: errors and predictions are known without the code under test."""
    built = build_model(preset("linear-nbody"), key=jax.random.key(0))
    built = eqx.tree_at(jax.tree.leaves, built, [jnp.asarray([FACTORS], jnp.float64)])
    settings = {"data": {"set": "nbody-se3", "folder": str(walls)}}
    return save_model(tmp_path_factory.mktemp("models") / "m", Motion(built), metadata=settings)


def ends(samples):
    """States of the input and of the target frames."""
    rows = np.arange(len(samples))
    starts = np.array([samples.start(int(k)) for k in rows])
    x, v, _ = samples.trajectories
    return x[rows, starts], v[rows, starts], x[rows, starts + samples.horizon], v[rows, starts + samples.horizon]


@pytest.mark.parametrize("data", ["nbody-se3", "folder", "file"])
def test_errors_of_every_vector_stand_beside_those_of_simple_rules(model, walls, data):
    named = {"folder": walls, "file": walls / "test.npz"}.get(data, data)
    result = Result("evaluate", model, named, "--json", "--dtype", "float64")
    assert result.status == 0, result.err
    errors = json.loads(result.out)
    x, v, x_later, v_later = (array.astype(float) for array in ends(NBodySamples.read(walls / "test.npz")))
    train = [array.astype(float) for array in ends(NBodySamples.read(walls / "train.npz"))]
    changes = {"displacement": (x_later - x, train[2] - train[0]), "velocity_change": (v_later - v, train[3] - train[1])}
    assert set(errors) == set(changes)
    for number, (name, (change, learnt)) in enumerate(changes.items()):
        found, difference = errors[name], FACTORS[number] * v - change
        assert found["mse"] == pytest.approx((difference**2).mean(), rel=1e-6)
        assert found["mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-6)
        assert found["still"] == pytest.approx((change**2).mean(), rel=1e-6)
        best = np.linalg.lstsq(train[1].reshape(-1, 1), learnt.reshape(-1), rcond=None)[0][0]
        assert found["factor"] == pytest.approx(best, rel=1e-6)
        assert found["linear"] == pytest.approx(((best * v - change) ** 2).mean(), rel=1e-6)
        assert found["equivariance_error"] < 1e-12


def test_another_task_than_the_models_own_is_warned_about(model, tmp_path):
    make_set("nbody-demetar", tmp_path, counts={"train": 3, "validation": 1, "test": 2})
    result = Result("evaluate", model, tmp_path)
    assert result.status == 0
    assert "warning: these simulations are of nbody-demetar, but the model was trained on nbody-se3" in result.err


def test_errors_are_printed_with_the_rules_and_where_they_were_fitted(model, walls, tmp_path):
    result = Result("evaluate", model, walls, "--split", "validation")
    assert result.status == 0 and "3 simulations" in result.out and "fitted on the training part" in result.out
    assert "displacement" in result.out and "velocity_change" in result.out and "MSE of no change" in result.out
    (tmp_path / "test.npz").write_bytes((walls / "test.npz").read_bytes())
    assert "fitted on these simulations themselves" in Result("evaluate", model, tmp_path / "test.npz").out


def test_a_model_that_moves_nothing_has_errors_but_none_of_equivariance(walls, tmp_path):
    built = build_model(preset("linear-nbody"), key=jax.random.key(0))  # its numbers begin at zero
    save_model(tmp_path / "zero", Motion(built))
    errors = json.loads(Result("evaluate", "zero", walls, "--json").out)["displacement"]
    assert errors["equivariance_error"] is None and errors["mse"] == pytest.approx(errors["still"], rel=1e-6)
    assert Result("evaluate", "zero", walls).status == 0
    assert "name one, such as nbody-egnn" in Result("analyze", "trajectory", "zero").error()


@pytest.mark.parametrize("suffix", ["npz", "extxyz"])
def test_predicted_states_are_written(model, walls, tmp_path, suffix):
    result = Result("predict", model, "nbody-se3", "-o", f"later.{suffix}", "--dtype", "float64")
    assert result.status == 0, result.err
    x, v, *_ = (array.astype(float) for array in ends(NBodySamples.read(walls / "test.npz")))
    if suffix == "npz":
        with np.load(tmp_path / "later.npz", allow_pickle=False) as file:
            found = [file[name] for name in ("positions", "velocities", "start_positions", "charges")]
            assert "nbody-se3" in json.loads(str(file["metadata"]))["particles"]
    else:
        frames = ase.io.read(tmp_path / "later.extxyz", ":")
        assert [atoms.info["simulation"] for atoms in frames] == list(range(20))
        columns = ("positions", "velocities", "start", "initial_charges")
        found = [np.stack([atoms.arrays[name] for atoms in frames]) for name in columns]
    np.testing.assert_allclose(found[0], x + FACTORS[0] * v, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[1], v + FACTORS[1] * v, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found[2], x)
    np.testing.assert_array_equal(np.abs(found[3]), 1)


def test_states_of_ones_own_are_predicted_but_not_evaluated(model, tmp_path):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 4, 7, 3))  # seven particles, though five were learnt
    np.savez(tmp_path / "mine.npz", positions=x, velocities=v, charges=np.ones((4, 7)))
    assert Result("predict", model, "mine.npz", "-o", "later.npz", "--dtype", "float64").status == 0
    with np.load(tmp_path / "later.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["positions"], x + FACTORS[0] * v, rtol=1e-12)
    assert "no later state to compare with" in Result("evaluate", model, "mine.npz").error()
    assert "no true path" in Result("analyze", "trajectory", model, "mine.npz").error()


def test_predictions_keep_their_simulation_whatever_the_batches(walls):
    """An evaluation has its rows in the order of its batches."""
    samples = NBodySamples.read(walls / "test.npz")
    order = np.random.default_rng(0).permutation(20)
    rows = np.repeat(order, 5)
    values = np.stack([rows, rows, np.tile(np.arange(5), 20)], axis=1).astype(float)
    vectors = by_simulation(Evaluation({}, {"displacement": Values(values, values, rows)}), samples)["displacement"]
    assert (vectors[:, :, 0] == np.arange(20)[:, None]).all() and (vectors[:, :, 2] == np.arange(5)).all()


def test_bad_particles_are_told_in_one_line(model, walls, tmp_path):
    line = Result("evaluate", model, "nbody-se4").error()
    assert "did you mean 'nbody-se3'" in line
    assert "did you mean 'test'" in Result("evaluate", model, walls, "--split", "tst").error()
    ase.io.write("water.xyz", molecule("H2O"), format="extxyz")
    assert "water.xyz holds no particles; a model of particles takes" in Result("evaluate", model, "water.xyz").error()
    np.savez("half.npz", positions=np.zeros((1, 2, 3)))
    assert "lacks velocities, charges" in Result("predict", model, "half.npz", "-o", "p.npz").error()
    np.savez("flat.npz", positions=np.zeros((2, 3)), velocities=np.zeros((2, 3)), charges=np.zeros(2))
    assert "have shapes (2, 3), (2, 3), (2,)" in Result("predict", model, "flat.npz", "-o", "p.npz").error()
    bad = np.full((1, 2, 3), np.nan)
    np.savez("nan.npz", positions=bad, velocities=bad, charges=np.zeros((1, 2)))
    assert "not finite" in Result("predict", model, "nan.npz", "-o", "p.npz").error()
    assert "has no test.npz" in Result("evaluate", model, tmp_path).error()
    assert "*.npz or *.extxyz" in Result("predict", model, walls, "-o", "p.txt").error()
    assert Result("evaluate", model, walls, "--energy-key", "E").status == 2


def test_a_model_of_particles_has_no_energy_and_one_of_atoms_no_particles(model, walls, tmp_path):
    ase.io.write("water.xyz", molecule("H2O"), format="extxyz")
    expected = "this is a model of the motion task: it gives displacement, velocity_change, not energies and forces"
    assert expected in Result("md", model, "water.xyz", "--steps", 1).error()
    assert expected in Result("relax", model, "water.xyz", "-o", "r.extxyz").error()
    save_toy(tmp_path / "toy")
    assert "holds simulated particles, not structures" in Result("evaluate", "toy", walls / "test.npz").error()
    assert Result("evaluate", "toy", "water.xyz", "--split", "train").status == 2
    assert "not the motion of particles" in Result("analyze", "trajectory", "toy", walls).error()


def test_info_describes_a_set(walls):
    samples = {split: NBodySamples.read(walls / f"{split}.npz") for split in ("train", "test")}
    text = Result("info", walls).out
    assert "nbody-se3" in text and "5 particles" in text and "1,000 steps" in text and "test.npz: 20 simulations" in text
    rules = simple_rules(samples["train"], samples["test"])["velocity_change"]
    assert f"velocity_change: mean squared error {rules.still:.4g} for no change" in text
    assert "test.npz: 20 simulations" in Result("info", walls / "test.npz").out


def test_an_animation_is_written_of_the_runs_own_set(model, tmp_path):
    from PIL import Image

    result = Result("analyze", "trajectory", model, "-o", "ways.gif", "--simulations", 2)
    assert result.status == 0, result.err
    with Image.open(tmp_path / "ways.gif") as picture:
        # Forty pictures of the way and its beginning, and one of the predictions, which stays.
        assert getattr(picture, "n_frames") == 42 and picture.info["loop"] == 0  # noqa: B009
        pixels = []
        for frame in (0, 40, 41):
            picture.seek(frame)
            pixels.append(np.asarray(picture.convert("RGB"), int))
    assert picture.info["duration"] > 1000
    assert np.abs(pixels[1] - pixels[0]).max() > 100  # particles moved
    dark = [int((frame.max(axis=-1) < 60).sum()) for frame in pixels]
    assert dark[2] > dark[1] + 2 * 5 * 10  # a black cross for each of five particles
    assert "exists already" in Result("analyze", "trajectory", model, "-o", "ways.gif").error()
    assert "name the file *.gif" in Result("analyze", "trajectory", model, "-o", "ways.mp4").error()
