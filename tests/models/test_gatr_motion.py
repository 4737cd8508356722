"""Particles in rows: rows and segments give the same, a perceptron says where it cannot, and P's network is blind to moves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.graph import Capacity, batch, fully_connected_edges, make_graph
from equiform.models.gatr_motion import MotionGATr, MotionGATrConfig, embedded, position_of
from equiform.models.particle_rows import by_graph
from equiform.models.token_motion import TokenMotion, TokenMotionConfig

ALGEBRAS = ("euclidean", "projective", "improved-projective", "conformal")


def graph_of(bodies, seed):
    rng = np.random.default_rng(seed)
    fields = {"velocity": rng.normal(size=(bodies, 3)), "charge": rng.uniform(1, 2, bodies)}
    return make_graph(rng.normal(size=(bodies, 3)), None, *fully_connected_edges(bodies), node_fields=fields)


def mean_of_set(inputs, segments):
    """The mean over each token's set, written out."""
    same = (segments[:, :, None] == segments[:, None]).astype(inputs.dtype)
    return same @ inputs / same.sum(-1, keepdims=True)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (7, 1, 2), (2, 9, 1)])
def test_particles_meet_those_of_their_graph_whatever_the_sizes(sizes):
    graphs = [graph_of(size, seed) for seed, size in enumerate(sizes)]
    atoms = sum(sizes)
    graph = batch(graphs, Capacity(atoms + 3, sum(g.capacity.edges for g in graphs), len(sizes)))
    values = np.random.default_rng(9).normal(size=(atoms + 3, 2))
    found = jax.jit(lambda values: by_graph(mean_of_set, graph, values))(jnp.asarray(values))
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        np.testing.assert_allclose(found[rows], np.broadcast_to(values[rows].mean(0), (size, 2)), atol=1e-13)
        start += size


@pytest.mark.parametrize("algebra", ALGEBRAS)
def test_positions_that_go_in_come_out(algebra):
    x, v = np.random.default_rng(0).normal(size=(2, 5, 3))
    tokens = embedded(algebra, jnp.asarray(x), jnp.asarray(v), jnp.ones(5))
    np.testing.assert_allclose(position_of(algebra, tokens[:, 0]), x, atol=1e-14)


def test_the_euclidean_algebra_needs_a_centre():
    with pytest.raises(ValueError, match="needs centred=true"):
        MotionGATrConfig(algebra="euclidean", centred=False)


def test_published_sizes_have_the_published_parameters():
    for config, kind, count in (
        (MotionGATrConfig(), MotionGATr, 2_209_058),
        (TokenMotionConfig(), TokenMotion, 11_827_587),
        (TokenMotionConfig(network="mlp"), TokenMotion, 163_596),
    ):
        model = eqx.filter_eval_shape(lambda kind=kind, config=config: kind(config, key=jax.random.key(0)))
        assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(eqx.filter(model, _is_array))) == count


def _is_array(leaf):
    return isinstance(leaf, jax.ShapeDtypeStruct)


def test_a_perceptron_has_no_number_for_particles_beyond_its_own():
    model = TokenMotion(TokenMotionConfig(network="mlp", channels=8, num_bodies=4), key=jax.random.key(0))
    found = np.isfinite(model(graph_of(6, 0))["displacement"]).all(axis=1)
    assert found.tolist() == [True] * 4 + [False] * 2
    assert np.isfinite(model(graph_of(3, 0))["displacement"]).all()
