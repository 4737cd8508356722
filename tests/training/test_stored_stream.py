"""Streams from a store: their order is a function of seed and epoch, and is entered at any place."""

import numpy as np
import pytest

from equiform.data.pipeline.dataset import Dataset
from equiform.data.store.files import Store
from equiform.data.store.graphs import Noise, StoredGraphs
from equiform.data.store.neighborhood import Neighborhood
from equiform.training.batches import BatchStream
from tests.data.store.test_files import write

HOOD = Neighborhood(5.0)


@pytest.fixture
def stored(tmp_path):
    write(tmp_path / "s", 53)
    return Store(tmp_path / "s")


def dataset(store, noise=None):
    rows = np.random.default_rng(0).permutation(len(store))
    labels = {"energy": store["energy"][rows]}
    return Dataset(StoredGraphs(store, rows, store.edges(HOOD), graph_labels=labels, noise=noise), 5.0)


def taken(data, count, **settings):
    with BatchStream(data, batch_size=4, seed=3, dtype="float64", **settings) as stream:
        return [next(stream) for _ in range(count)]


def test_a_stream_is_entered_at_any_place_with_the_same_bits(stored):
    def draw(row, rng):
        moved = stored.rows("positions", row) + 0.3 * rng.normal(size=(stored["num_atoms"][row], 3))
        return moved, {"moved": moved}

    data = dataset(stored, Noise(draw, HOOD))
    straight = taken(data, 30)
    for start in (1, 13, 14, 20):
        at = straight[start]
        again = taken(data, 3, epoch=at.epoch, position=at.position)
        for one, other in zip(straight[start : start + 3], again):
            assert one.indices.tolist() == other.indices.tolist()
            np.testing.assert_array_equal(one.graph.positions, other.graph.positions)
            np.testing.assert_array_equal(one.graph.senders, other.graph.senders)
    # Noised positions: the labels go with them, and the next epoch has others.
    first = straight[0].graph
    real = np.asarray(first.atom_mask)
    np.testing.assert_array_equal(np.asarray(first.positions)[real], np.asarray(first.node_fields["moved"])[real])
    assert straight[0].graph.capacity.edges >= int(np.asarray(first.edge_mask).sum())


def test_batches_are_planned_without_opening_structures(stored, monkeypatch):
    data = dataset(stored)
    opened, original = [], StoredGraphs.__getitem__
    monkeypatch.setattr(StoredGraphs, "__getitem__", lambda self, k: opened.append(k) or original(self, k))
    assert data.num_atoms.sum() == stored["num_atoms"].sum() and data.elements == stored.elements()
    assert data.has_label("energy") and not data.has_label("forces") and np.isfinite(data.energy_rms)
    assert len(BatchStream(data, batch_size=4).plan(0)) == 14
    assert len(opened) < 5  # The run-time type checks of the tests look at one item of a sequence.
