"""Attention over edges: the plain form against NumPy, and the streaming form against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irreps
from equiform.edges import Edges, make_edges
from equiform.graph import Capacity, Graph, batch, fully_connected_edges, make_graph, to_device
from equiform.nn.attention import attention, edge_softmax, streaming_attention

HEADS, IRREPS = 2, Irreps.parse("4x0e+2x1e")


def structure() -> Graph:
    """Nine atoms with their neighbours, one alone in its graph, one with a single neighbour far out, and padding."""
    rng = np.random.default_rng(0)
    senders, receivers = fully_connected_edges(9)
    crowd = make_graph(1.2 * rng.normal(size=(9, 3)), None, senders, receivers)
    alone = make_graph(np.zeros((1, 3)), None)
    pair = make_graph(np.array([[0, 0, 0], [2.9, 0, 0]]), None, [1], [0])
    joined = batch([crowd, alone, pair], Capacity(14, 80, 4))
    senders = np.array(joined.senders)
    senders[-7:] = 3  # padding edges into the last atom, from a real one
    return to_device(joined.replace(senders=senders), np.float64)


def edges(kind: str, chunk: int = 0) -> Edges:
    return make_edges(structure(), 3.0, kind, zero_length=False, chunk=chunk)  # type: ignore[arg-type]


def message(x, scale) -> tuple:
    """Logits of large spread, and values, from inputs of each edge."""
    logits = 40 * jnp.sin(x[:, :HEADS] * scale[:, None])
    blocks = [jnp.cos(x[:, None, :4]), x[:, 4:].reshape(-1, 3, 2) ** 2]
    return logits, Features(blocks, IRREPS)


def inputs(count: int) -> tuple:
    rng = np.random.default_rng(1)
    rows = jnp.asarray(rng.normal(size=(count, 10)))
    return rows, jnp.asarray(rng.uniform(1, 2, count))


def padded(arguments: tuple, count: int) -> tuple:
    return jax.tree.map(lambda x: jnp.concatenate([x, jnp.ones((count - len(x), *x.shape[1:]))]), arguments)


@pytest.mark.parametrize("kind", ["smooth", "sharp"])
def test_the_plain_form_is_the_formula(kind) -> None:
    where = edges(kind)
    arguments = inputs(80)
    summed, weights = attention(message, arguments, where)
    logits, values = (jax.tree.map(np.asarray, part) for part in message(*arguments))
    fade, expected = np.asarray(where.weight), np.zeros((80, HEADS))
    for atom in range(14):
        mine = np.flatnonzero(np.asarray(where.receivers == atom) & np.asarray(where.inside))
        if len(mine):
            grown = np.exp(logits[mine] - logits[mine].max(axis=0)) * fade[mine, None]
            expected[mine] = fade[mine, None] * grown / grown.sum(axis=0)
    np.testing.assert_allclose(weights, expected, rtol=1e-12, atol=1e-15)
    for block, found in zip(values.blocks, summed.blocks):
        total = np.zeros((14, *block.shape[1:]))
        for edge in range(80):
            heads = np.repeat(expected[edge], block.shape[2] // HEADS)
            total[int(where.receivers[edge])] += block[edge] * heads
        np.testing.assert_allclose(found, total, atol=1e-12)
    assert not np.asarray(summed.blocks[0])[9].any()  # the atom that is alone
    if kind == "sharp":
        np.testing.assert_allclose(where.sum_at_receivers(weights)[:9], 1, atol=1e-12)


def test_the_weight_of_a_lone_neighbour_vanishes_at_the_cutoff() -> None:
    where = edges("smooth")
    lone = int(np.flatnonzero(np.asarray(where.receivers == 10))[0])
    weights = edge_softmax(jnp.zeros((80, 1)), where)
    np.testing.assert_allclose(weights[lone, 0], where.weight[lone], rtol=1e-12)
    assert 0 < float(weights[lone, 0]) < 2e-3


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["smooth", "sharp-inclusive"])
@pytest.mark.parametrize("chunk", [0, 13, 80])
def test_the_streaming_form_is_the_plain_one_with_its_derivatives(kind, chunk, rate) -> None:
    where = edges(kind, chunk)
    count = where.distance.shape[0]
    assert (where.chunk is None) == (chunk != 13)
    arguments = padded(inputs(80), count)
    # The key draws a mask for every edge, padding of chunks too: both forms see the same.
    key = jax.random.key(2) if rate else None
    pull = [jnp.asarray(np.random.default_rng(3).normal(size=(14, *size))) for size in ((1, 4), (3, 2))]

    def scalar(form, arguments, envelope):
        moved = Edges(**{name: getattr(where, name) for name in where.__dataclass_fields__} | {"envelope": envelope})
        summed, weights = form(message, arguments, moved, dropout_rate=rate, key=key)
        total = sum((a * b).sum() for a, b in zip(summed.blocks, pull, strict=True))
        return total, (summed, weights)

    results = []
    for form in (attention, streaming_attention):
        gradient = jax.jit(jax.value_and_grad(lambda *of, form=form: scalar(form, *of), argnums=(0, 1), has_aux=True))
        results.append(gradient(arguments, where.envelope))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        assert jnp.isfinite(one).all()
        # The plain form divides by total + 1e-16 with another shift than the streaming one's.
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-12 * max(float(jnp.abs(one).max()), 1.0))
    assert float(jnp.abs(results[0][1][0][0]).max()) > 1e-2
