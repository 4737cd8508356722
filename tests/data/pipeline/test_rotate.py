"""Random orientations: what turns, what does not, and that it is the same again for the same seed."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.data.pipeline.rotate import drawn_rotations, random_rotations, rotated
from equiform.graph import batch, make_graph
from equiform.training.batches import BatchStream
from tests.training.toys import molecules


def graph(seed):
    rng = np.random.default_rng(seed)
    fields = {"velocity": rng.normal(size=(4, 3)), "charge": rng.normal(size=4), "tags": rng.integers(0, 3, (4, 3))}
    labels = {"energy": 1.5, "stress": rng.normal(size=(3, 3)), "dipole": rng.normal(size=3)}
    return make_graph(
        rng.normal(size=(4, 3)), None, [0], [1], cell=rng.normal(size=(3, 3)), node_fields=fields, graph_fields=labels
    )


def test_vectors_and_matrices_turn_with_the_positions_and_numbers_stay():
    first, second = graph(0), graph(1)
    turns = Rotation.from_rotvec([[0.3, -1.0, 2.0], [1.0, 1.0, -0.2]]).as_matrix()
    both = rotated(batch([first, second]), turns)
    for index, (one, turn) in enumerate(((first, turns[0]), (second, turns[1]))):
        rows = slice(4 * index, 4 * index + 4)
        np.testing.assert_allclose(both.positions[rows], one.positions @ turn.T, atol=1e-14)
        np.testing.assert_allclose(both.node_fields["velocity"][rows], one.node_fields["velocity"] @ turn.T, atol=1e-14)
        np.testing.assert_allclose(both.cell[index], one.cell[0] @ turn.T, atol=1e-14)
        np.testing.assert_allclose(
            both.graph_fields["stress"][index], turn @ one.graph_fields["stress"][0] @ turn.T, atol=1e-14
        )
        np.testing.assert_allclose(both.graph_fields["dipole"][index], turn @ one.graph_fields["dipole"][0], atol=1e-14)
        assert (both.node_fields["charge"][rows] == one.node_fields["charge"]).all()
        assert (both.node_fields["tags"][rows] == one.node_fields["tags"]).all()
        assert both.graph_fields["energy"][index] == 1.5


def test_rotations_are_proper_and_uniform():
    turns = random_rotations(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12)
    # Moments of the Haar measure: the mean is zero, each element has variance 1/3.
    np.testing.assert_allclose(turns.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose((turns**2).mean(axis=0), 1 / 3, atol=0.02)


def test_a_stream_turns_each_structure_by_seed_epoch_and_structure():
    data = molecules(12)

    def taken(rotate, **start):
        with BatchStream(data, batch_size=4, seed=3, rotate=rotate, dtype="float64", **start) as stream:
            return [next(stream) for _ in range(6)]

    plain, turned = taken(False), taken(True)
    for one, other in zip(plain, turned):
        expected, start = drawn_rotations(one.indices, 3, one.epoch), 0
        for turn, index in zip(expected, one.indices):
            count = len(data[int(index)].species)
            rows = slice(start, start + count)
            found = np.asarray(other.graph.positions)[rows]
            np.testing.assert_allclose(found, np.asarray(one.graph.positions)[rows] @ turn.T, atol=1e-12)
            forces = np.asarray(one.graph.node_fields["forces"])[rows]
            np.testing.assert_allclose(np.asarray(other.graph.node_fields["forces"])[rows], forces @ turn.T, atol=1e-12)
            start += count
    epochs = {batch.epoch for batch in turned}
    assert len(epochs) > 1
    assert np.abs(drawn_rotations([0], 3, 0) - drawn_rotations([0], 3, 1)).max() > 0.1
    later = taken(True, epoch=turned[4].epoch, position=turned[4].position)[0]
    assert (np.asarray(later.graph.positions) == np.asarray(turned[4].graph.positions)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fields_keep_their_precision(dtype):
    one = graph(2)
    one = one.replace(node_fields={"velocity": one.node_fields["velocity"].astype(dtype)})
    assert rotated(one, random_rotations(1, np.random.default_rng(0))).node_fields["velocity"].dtype == dtype
