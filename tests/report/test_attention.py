"""Attention statistics: against attention that is known, and files that can be read."""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms

from equiform.data.sets.structures import some_structures
from equiform.errors import UserError
from equiform.graph import Graph
from equiform.models.api import AttendingModel, all_decay
from equiform.neighbors import graph_from_atoms
from equiform.report.attention import as_dict, bonded, collect_attention, overall, write_analysis


class Attentive(AttendingModel):
    """Block 1 spreads evenly; block 2 attends to oxygen only (head 1) and evenly (head 2)."""

    config: Any = eqx.field(static=True, default=None)

    def __call__(self, graph: Graph, *, key=None):
        raise NotImplementedError

    def decay_mask(self):
        return all_decay(self)

    def descriptors(self, graph: Graph):
        raise NotImplementedError

    def attention(self, graph: Graph):
        degree = jnp.zeros(graph.species.shape[0]).at[graph.receivers].add(graph.edge_mask.astype(jnp.float64))
        oxygen = ((graph.species[graph.senders] == 8) & graph.edge_mask).astype(jnp.float64)
        oxygens = jnp.zeros(graph.species.shape[0]).at[graph.receivers].add(oxygen)
        even = graph.edge_mask.astype(jnp.float64) / jnp.maximum(degree, 1)[graph.receivers]
        chosen = jnp.where(oxygens[graph.receivers] > 0, oxygen / jnp.maximum(oxygens, 1)[graph.receivers], even)
        return [jnp.stack([even, even], -1), jnp.stack([chosen, even], -1)]


def predictor():
    found = SimpleNamespace(cutoff=5.0, dtype="float64", task=SimpleNamespace(model=Attentive()))
    found.graph = lambda atoms, index=None: graph_from_atoms(atoms, 5.0)
    found.precision = nullcontext
    return found


def water(scale=1.0):
    return Atoms("OH2", scale * np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))


@pytest.fixture
def statistics():
    # 20 molecules: more than one batch, and the last one is padded.
    return collect_attention(predictor(), [water(1 + 0.01 * k) for k in range(20)])


def test_means_are_those_of_known_attention(statistics):
    assert statistics.elements == (1, 8)
    even, chosen = statistics.relative()
    np.testing.assert_allclose(even, [[1, 1], [1, np.nan]])
    # A hydrogen has two senders: all of one head's attention to oxygen is twice an even spread, and nothing to hydrogen.
    np.testing.assert_allclose(chosen, [[0.5, 1.5], [1, np.nan]])
    np.testing.assert_allclose(statistics.share()[1], [[0.25, 0.75], [1, 0]])
    np.testing.assert_allclose(statistics.share().sum(axis=2), 1)


def test_bonds_are_told_apart(statistics):
    assert bonded(np.array([8, 1, 1]), np.array([0, 2]), np.array([1, 1]), np.array([0.96, 1.52])).tolist() == [True, False]
    # O–H both ways are bonded, H–H is not.
    assert overall(statistics, "bonded") == pytest.approx((1 + (1.5 + 1) / 2) / 2)
    assert overall(statistics, "non-bonded") == pytest.approx((1 + 0.5) / 2)
    assert overall(statistics, "all") == pytest.approx((4 * (1 + 1.25) / 2 + 2 * 0.75) / 6)


def test_distance_bins_hold_every_edge(statistics):
    assert statistics.distance_count[0].sum() == 20 * 6
    near = statistics.by_distance("bonded")
    assert np.isfinite(near[0]).any() and np.isnan(near[0][30:]).all()


def test_files_are_written(statistics, tmp_path):
    paths = write_analysis(statistics, tmp_path / "out", "title")
    assert [path.suffix for path in paths] == [".json", ".png", ".png"] and all(path.stat().st_size > 1000 for path in paths)
    content = json.loads(paths[0].read_text())
    assert content == json.loads(json.dumps(as_dict(statistics))) and content["all"]["relative"][0][1][1] is None


def test_structures_come_from_files_and_are_spread(tmp_path):
    from ase.io import write

    write(tmp_path / "w.xyz", [water(1 + k) for k in range(10)])
    chosen = some_structures(str(tmp_path / "w.xyz"), 3)
    assert [round(atoms.positions[1, 0] / 0.96) for atoms in chosen] == [1, 5, 10]
    with pytest.raises(UserError, match="--from goes with a data set"):
        some_structures(str(tmp_path / "w.xyz"), 3, tmp_path)
