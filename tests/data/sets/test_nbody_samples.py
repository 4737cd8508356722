"""The published sets, their files, and what they look like as graphs."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from equiform.cli import app
from equiform.data.formats.nbody import is_nbody_file
from equiform.data.sets import nbody
from equiform.data.sets.nbody_samples import NBodySamples, find_set, linear_baseline, make_set
from equiform.errors import UserError
from equiform.graph import batch


@pytest.fixture(scope="module")
def egnn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nbody")
    return make_set("nbody-egnn", folder, counts={"validation": 1, "test": 500})


def small(**metadata):
    x = np.cumsum(np.ones((4, 6, 3, 3)), axis=1) * np.arange(1, 4)[:, None]
    trajectories = nbody.Trajectories(x, 10 * x, np.ones((4, 3)))
    return NBodySamples(trajectories, {"start": 1, "horizon": 3} | metadata)


def test_the_linear_baseline_of_egnns_task_is_the_known_one(egnn):
    """One fitted parameter: t = 0.726 and 0.0869 on 14,000 other simulations, here 3,000 with a standard error of 0.0023."""
    train, test = (NBodySamples.read(egnn[split]) for split in ("train", "test"))
    assert (len(train), len(test)) == (3000, 500)
    found = linear_baseline(train, train)
    assert abs(found["linear"] - 0.0869) < 3 * 0.0023
    assert abs(found["time"] - 0.726) < 0.02
    assert abs(found["still"] - 0.2697) < 0.02
    assert abs(linear_baseline(train, test)["linear"] - 0.0869) < 4 * 0.0052


def test_the_linear_baseline_of_demetars_task_is_the_known_one(tmp_path):
    files = make_set("nbody-demetar", tmp_path, counts={"validation": 1, "test": 1})
    train = NBodySamples.read(files["train"])
    found = linear_baseline(train, train)
    assert abs(found["linear"] - 0.0026) < 0.0003 and abs(found["time"] - 0.165) < 0.01 and abs(found["still"] - 0.0104) < 0.001


def test_fewer_simulations_are_the_first_of_the_published_ones(egnn, tmp_path):
    files = make_set("nbody-egnn", tmp_path, counts={"train": 2, "validation": 1, "test": 3})
    for split in ("train", "test"):
        few, many = NBodySamples.read(files[split]), NBodySamples.read(egnn[split])
        np.testing.assert_array_equal(few.trajectories.positions, many.trajectories.positions[: len(few)])
    again = make_set("nbody-egnn", tmp_path / "again", counts={"train": 2, "validation": 1, "test": 3})
    assert all(files[split].read_bytes() == again[split].read_bytes() for split in ("train", "validation"))


def test_frame_30_of_the_file_is_step_3100(egnn):
    """The published programs record their first frame after 100 steps."""
    state = nbody.ChargedStream(43).draw(1)
    chunks = nbody.simulate(
        state,
        nbody.charge_coupling(state.charges),
        frames=range(3100, 3101),
        steps_per_frame=1,
        max_force=nbody.MAX_FORCE,
    )
    sample = NBodySamples.read(egnn["train"])
    np.testing.assert_allclose(sample[0].positions, next(chunks).positions[0, 0], atol=1e-6)
    assert sample.path(0).shape == (11, 5, 3)


def test_a_sample_is_a_fully_connected_graph_with_labels():
    samples = small()
    graph = samples[2]
    assert graph.capacity == (3, 6, 1) and (graph.species == 0).all()
    x = samples.trajectories.positions[2]
    np.testing.assert_array_equal(graph.positions, x[1])
    np.testing.assert_array_equal(graph.node_fields["velocity"], 10 * x[1])
    np.testing.assert_array_equal(graph.node_fields["displacement"], x[4] - x[1])
    np.testing.assert_array_equal(graph.node_fields["velocity_change"], 10 * (x[4] - x[1]))
    assert (np.diff(graph.receivers) >= 0).all() and (graph.senders != graph.receivers).all()
    joined = batch([samples[0], samples[1]])
    assert joined.node_fields["charge"].shape == (6,) and (samples.num_edges == 6).all()
    assert len(samples[1:]) == 3 and (samples[1:][0].positions == samples[1].positions).all()


def test_a_random_start_changes_with_the_epoch_and_only_in_training():
    samples = small(start="random", horizon=2)
    frames = samples.trajectories.positions[1]
    drawn = [samples.drawn(1, 0, epoch).positions[0, 0] for epoch in range(40)]
    assert set(drawn) == set(frames[:4, 0, 0])
    assert drawn == [samples.drawn(1, 0, epoch).positions[0, 0] for epoch in range(40)]
    assert drawn != [samples.drawn(1, 1, epoch).positions[0, 0] for epoch in range(40)]
    assert [samples.start(k) for k in range(4)] == [0, 1, 2, 3]
    assert (small().drawn(1, 0, 7).positions == small()[1].positions).all()


def test_the_walls_set_keeps_inside_and_spreads_its_test_frames(tmp_path):
    files = make_set("nbody-se3", tmp_path, counts={"train": 4, "validation": 3, "test": 5})
    train, test = NBodySamples.read(files["train"]), NBodySamples.read(files["test"])
    assert train.random_start and train.trajectories.positions.shape == (4, 49, 5, 3)
    assert np.abs(train.trajectories.positions).max() <= nbody.BOX
    assert not test.random_start and test.trajectories.positions.shape == (5, 11, 5, 3)


def test_gravity_leaves_out_what_is_flung_away(tmp_path):
    files = make_set("nbody-gravity", tmp_path, counts={"train": 500, "validation": 1, "test": 1})
    samples = NBodySamples.read(files["train"])
    assert len(samples) == 500 and samples.num_bodies == 4
    moved = np.linalg.norm(samples.trajectories.positions[:, -1] - samples.trajectories.positions[:, 0], axis=-1)
    assert moved.max() <= 2


def test_mistakes_are_told(tmp_path, egnn):
    with pytest.raises(UserError, match="did you mean 'nbody-egnn'"):
        find_set("nbody-egn")
    with pytest.raises(UserError, match="1 to 2000 simulations for test, not 3000"):
        make_set("nbody-egnn", tmp_path, counts={"test": 3000})
    with pytest.raises(UserError, match="1 to 0 simulations for tset"):
        make_set("nbody-egnn", tmp_path, counts={"tset": 3})
    assert is_nbody_file(egnn["test"]) and not is_nbody_file(tmp_path / "absent.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(egnn["test"].read_bytes()[:-200])
    assert not is_nbody_file(broken)
    with pytest.raises(UserError, match="no N-body file, or damaged"):
        NBodySamples.read(broken)
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        NBodySamples.read(tmp_path / "absent.npz")
    x = np.zeros((2, 3, 5, 3))
    for change, message in (
        ({"horizon": 9}, "too few for start 0 and horizon 9"),
        ({"format_version": 9}, "reads format version 1, not 9"),
        ({}, "do not fit together"),
    ):
        about = {"format": "equiform-nbody", "format_version": 1, "start": 0, "horizon": 1} | change
        charges = np.zeros((2, 5 if change else 4))
        np.savez(tmp_path / "odd.npz", positions=x, velocities=x, charges=charges, metadata=np.array(json.dumps(about)))
        with pytest.raises(UserError, match=message):
            NBodySamples.read(tmp_path / "odd.npz")


def test_the_command_makes_a_set_and_tells_what_to_beat(tmp_path):
    command = [
        "data",
        "make",
        "nbody-demetar",
        "-o",
        str(tmp_path / "set"),
        "--train",
        "50",
        "--validation",
        "2",
        "--test",
        "9",
    ]
    made = CliRunner().invoke(app, ["--no-cache", *command])
    assert made.exit_code == 0, made.stderr
    assert "mean squared position error" in made.stdout
    assert len(NBodySamples.read(tmp_path / "set" / "test.npz")) == 9
    failed = CliRunner().invoke(app, ["--no-cache", "data", "make", "nbody-demeter"])
    assert failed.exit_code == 1 and "did you mean 'nbody-demetar'" in failed.stderr
