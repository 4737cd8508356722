"""Attention along edges, in frames of the nodes' own, is attention about a common origin; translators are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.clifford import conformal, geometry as geometries, projective
from equiform.algebra.clifford.products import sandwich
from equiform.edges import Edges
from equiform.graph import fully_connected_edges
from equiform.nn.multivector_attention import multivector_attention
from equiform.nn.multivector_edges import edge_attention, moved, translation_generators

SPACES = {"P": (geometries.projective(), projective), "C": (geometries.conformal(), conformal)}
COUNT = 5


@pytest.mark.parametrize("name", SPACES)
def test_moving_is_the_action_of_the_translator(name):
    geometry, space = SPACES[name]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(COUNT, 1, 2, geometry.algebra.num_components)))
    r = jnp.asarray(rng.normal(size=(COUNT, 3)))
    versors = jnp.broadcast_to(space.translation(r)[:, None, None], x.shape)
    expected = sandwich(geometry.algebra, versors, x, odd=False)
    np.testing.assert_allclose(moved(geometry, x, r), expected, atol=1e-13)
    origin = space.point(jnp.zeros((COUNT, 3)))[:, None, None]
    np.testing.assert_allclose(space.extract_point(moved(geometry, origin, r))[:, 0, 0], r, atol=1e-13)


def test_the_euclidean_algebra_has_no_translations():
    with pytest.raises(ValueError, match="no translations"):
        translation_generators(geometries.euclidean())


@pytest.mark.parametrize("name", SPACES)
def test_along_all_edges_it_is_attention_about_a_common_origin(name):
    geometry, _ = SPACES[name]
    size, rng = geometry.algebra.num_components, np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(COUNT, 3)))

    def draw(heads):
        return jnp.asarray(rng.normal(size=(COUNT, heads, 2, size))), jnp.asarray(rng.normal(size=(COUNT, heads, 4)))

    q, k, v = draw(2), draw(1), draw(1)  # in the frames about each node
    log_weights = jnp.asarray(rng.normal(size=(2, 2))) if name == "P" else None
    senders, receivers = (jnp.asarray(ends) for ends in fully_connected_edges(COUNT))
    order = np.argsort(np.asarray(receivers), kind="stable")
    senders, receivers = senders[order], receivers[order]
    vectors = x[senders] - x[receivers]
    ones = jnp.ones(len(senders))
    edges = Edges(senders, receivers, vectors, vectors, ones, ones > 0, ones, COUNT, None)
    (y, t), weights = jax.jit(
        lambda q, k, v: edge_attention(geometry, q, k, v, edges, log_weights=log_weights, displacement=None)
    )(q, k, v)

    about_origin = [(moved(geometry, part, x), scalars) for part, scalars in (q, k, v)]
    others = ~jnp.eye(COUNT, dtype=bool)
    expected, scalars = multivector_attention(geometry, *about_origin, log_weights=log_weights, mask=others)
    seen = jax.ops.segment_sum(weights, receivers, COUNT)  # the rest is the sink's
    assert np.all(np.asarray(seen) < 1)
    np.testing.assert_allclose(moved(geometry, y, x), seen[..., None, None] * expected, atol=1e-11)
    np.testing.assert_allclose(t, seen[..., None] * scalars, atol=1e-12)
