"""GATr's n-body sets: the published order of random numbers, the published statistics, and the yardsticks of the task."""

import json

import numpy as np
import pytest

from equiform.data.sets import nbody, nbody_gatr
from equiform.data.sets.config import SetConfig
from equiform.data.sets.nbody_prepare import prepare_nbody
from equiform.data.sets.nbody_samples import NBodySamples, find_set, make_set
from equiform.data.sets.nbody_yardsticks import yardsticks
from equiform.errors import UserError

CASES = [(0, 3, 0.0), (1, 5, 0.0), (2, 3, 200.0)]


@pytest.mark.parametrize(("seed", "planets", "shift"), CASES)
def test_states_and_motion_are_the_stored_ones(parity_folder, seed, planets, shift):
    stored = np.load(parity_folder / "gatr" / "nbody_data" / "samples.npz")
    state = nbody_gatr.drawn_states(np.random.RandomState(seed), 3, planets, shift=shift)
    np.testing.assert_array_equal(state.charges, stored[f"seed{seed}.m"])
    # Rotations come from LAPACK, whose builds differ in the last bit.
    np.testing.assert_allclose(state.positions, stored[f"seed{seed}.x_initial"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(state.velocities, stored[f"seed{seed}.v_initial"], rtol=0, atol=1e-14)
    (found,) = nbody.simulate(state, nbody.gravity_coupling(state.charges), frames=range(2), steps_per_frame=100)
    np.testing.assert_allclose(found.positions[:, 1], stored[f"seed{seed}.x_final"], atol=1e-12)


def test_all_sets_share_one_stream(parity_folder):
    stored, settings = np.load(parity_folder / "gatr" / "nbody_data" / "seed42_first2.npz"), find_set("nbody-gatr")
    planets = {"train": 3, "validation": 3, "test": 3, "e3": 3, "object": 5}
    states = nbody_gatr.gatr_states(42, settings.drawn, planets, far="e3")
    published = ("train", "val", "eval", "e3_generalization", "object_generalization")
    for (name, state), their in zip(states.items(), published):
        np.testing.assert_array_equal(state.charges[:2], stored[f"{their}.m"], err_msg=name)
        np.testing.assert_allclose(state.positions[:2], stored[f"{their}.x_initial"], atol=1e-12, err_msg=name)


def test_statistics_are_within_four_standard_errors(parity_folder):
    known = json.loads((parity_folder / "gatr" / "nbody_data" / "stats_10000.json").read_text())["planets3"]
    state = nbody_gatr.drawn_states(np.random.RandomState(7), 4000, 3)
    star = state.charges.argmax(axis=1)[:, None]
    is_star = np.arange(4) == star
    planet_speed = np.linalg.norm(state.velocities, axis=-1)[~is_star]
    found = {
        "log10_star_mass": np.log10(state.charges[is_star]),
        "log10_planet_mass": np.log10(state.charges[~is_star]),
        "planet_speed": planet_speed,
    }
    for name, values in found.items():
        error = known[name]["std"] * np.sqrt(1 / len(values) + 1 / known[name]["n"])
        assert abs(values.mean() - known[name]["mean"]) < 4 * error, name


def test_rotations_are_proper():
    matrices = nbody_gatr.drawn_rotations(np.random.RandomState(0), 50)
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("gatr")
    make_set("nbody-gatr", place, counts=dict.fromkeys(("train", "validation", "test", "e3", "object"), 40))
    return place


def test_test_sets_have_their_published_names(folder):
    data = prepare_nbody(SetConfig(set="nbody-gatr", folder=str(folder)), None)
    assert list(data.tests) == ["eval", "e3", "object"]
    assert [part[0].positions.shape[0] for part in data.tests.values()] == [4, 4, 6]
    assert data.tests["e3"][0].positions[:, 0].mean() > 100
    assert sum("star only" in line for line in data.report.lines()) == 3
    chosen = prepare_nbody(SetConfig(set="nbody-gatr", folder=str(folder), tests=("object",)), None)
    assert list(chosen.tests) == ["object"]
    with pytest.raises(UserError, match="no test set 'e4'; it has: eval, e3, object"):
        prepare_nbody(SetConfig(set="nbody-gatr", folder=str(folder), tests=("e4",)), None)


def test_yardsticks_order_as_they_know_more(folder):
    found = yardsticks(NBodySamples.read(folder / "test.npz"))
    medians = [median for _, median in found.values()]
    assert list(found) == ["x", "x + 0.1 v", "star only", "same integrator"]
    assert medians == sorted(medians, reverse=True) and medians[-1] < 1e-9
