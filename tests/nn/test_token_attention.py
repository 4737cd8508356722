"""Attention in groups against the softmax written out pair by pair, however long the rows are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.nn.token_attention import attend, group_tokens

GROUP = np.array([0, 0, 0, 1, 3, 3, 3, 3, 3, 3])
PRESENT = np.array([1, 1, 1, 1, 1, 0, 1, 1, 1, 0], bool)  # group 2 is empty; gaps within group 3


def tokens(number, heads=2, depth=3, seed=0):
    return np.random.default_rng(seed).normal(size=(3, number, heads, depth))


def written_out(q, k, v, weight, sink, allowed=lambda i, j: True):
    out = np.zeros(q.shape)
    for i in np.flatnonzero(PRESENT):
        for h in range(q.shape[1]):
            total, value = float(sink), np.zeros(q.shape[2])
            for j in np.flatnonzero(PRESENT & (GROUP[i] == GROUP)):
                if weight[j] > 0 and allowed(i, j):
                    share = weight[j] * np.exp(q[i, h] @ k[j, h] / np.sqrt(q.shape[2]))
                    total, value = total + share, value + share * v[j, h]
            out[i, h] = value / total if total else 0
    return out.reshape(len(q), -1)


def grouped(slots=None):
    return group_tokens((jnp.asarray(GROUP), jnp.asarray(PRESENT)), num_groups=4, slots=slots)


@pytest.mark.parametrize("slots", [None, 4, 2, 1], ids=["as needed", "just enough", "too few", "one"])
@pytest.mark.parametrize("sink", [False, True])
def test_a_group_attends_to_itself_alone(slots, sink):
    q, k, v = tokens(10)
    weight = np.array([1, 0.5, 2, 1, 0, 9, 0.1, 3, 1, 9])
    rows = grouped(slots)
    assert int(rows.longest) == 4
    found = jax.jit(lambda *x: attend(*x, rows, rows, weight=jnp.asarray(weight), sink=sink))(q, k, v)
    np.testing.assert_allclose(found, written_out(q, k, v, weight, sink), atol=1e-13)
    odd = lambda i, j: (i + j) % 2 == 1  # noqa: E731
    found = jax.jit(lambda *x: attend(*x, rows, rows, weight=jnp.asarray(weight), sink=sink, allowed=odd))(q, k, v)
    np.testing.assert_allclose(found, written_out(q, k, v, weight, sink, odd), atol=1e-13)


def test_tokens_of_a_second_part_join_the_groups():
    parts = [(jnp.asarray(GROUP), jnp.asarray(PRESENT)), (jnp.arange(4), jnp.ones(4, bool))]
    rows = group_tokens(*parts, num_groups=4, slots=6)
    found = [sorted(np.asarray(row)[np.asarray(filled)].tolist()) for row, filled in zip(rows.rows, rows.filled)]
    assert found == [[0, 1, 2, 10], [3, 11], [12], [4, 6, 7, 8, 13]]


@pytest.mark.parametrize("slots", [4, 2])
def test_second_derivatives_agree_with_differences(slots):
    q, k, v = map(jnp.asarray, tokens(10, seed=1))
    rows = grouped(slots)

    def slope(x):
        def value(x):
            return (attend(q, k + x, v, rows, rows, weight=jnp.exp(x[:, 0, 0]), sink=True) ** 2).sum()

        return jax.jvp(value, (x,), (jnp.ones_like(x),))[1]

    x = jnp.zeros_like(k)
    exact = jax.jit(jax.grad(slope))(x)
    step = jnp.zeros_like(x).at[7, 1, 2].set(1e-5)
    numeric = (jax.jit(slope)(x + step) - jax.jit(slope)(x - step)) / 2e-5
    np.testing.assert_allclose(exact[7, 1, 2], numeric, rtol=1e-6)


def test_large_scores_do_not_overflow_and_no_key_gives_nothing():
    q, k, v = map(jnp.asarray, tokens(10))
    rows = grouped()
    found = attend(300 * q, 300 * k, v, rows, rows)
    assert np.isfinite(found).all()
    none = attend(q, k, v, rows, rows, weight=jnp.zeros(10))
    assert np.abs(none).max() == 0
    no_keys = group_tokens((jnp.zeros(0, int), jnp.zeros(0, bool)), num_groups=4)
    assert attend(q, k[:0], v[:0], rows, no_keys).shape == (10, 6)
