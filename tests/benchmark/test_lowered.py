"""Counts of operations before compilation, against programs of which they are known."""

import jax
import jax.numpy as jnp

from equiform.benchmark.lowered import Scatter, count_operations


def counted(function, *arguments):
    return count_operations(jax.jit(function).lower(*arguments))


def test_bodies_of_loops_count_once_per_iteration():
    def looped(x, weights):
        def step(x, w):
            return jax.lax.fori_loop(0, 3, lambda _, x: x @ w, x), x.sum()

        return jax.lax.scan(step, x @ weights[0], weights)

    counts = counted(looped, jnp.ones((2, 2)), jnp.ones((5, 2, 2)))
    assert counts.operations["dot_general"] == 1 + 5 * 3
    assert counts.looped["dot_general"] == 5 * 3
    assert counts.iterations == 5 + 5 * 3
    assert counts.loop_copies == 5 + 5  # a weight read and a sum written in each iteration
    assert counts.operations["reduce"] == counts.looped["reduce"] == 5


def test_functions_count_at_every_call():
    @jax.jit
    def inner(x):
        return jnp.pad(x, 1)

    counts = counted(lambda x: jnp.concatenate([inner(x), inner(2 * x)]), jnp.ones(3))
    assert counts.operations["pad"] == 2
    assert counts.operations["concatenate"] == 1


def test_reductions_of_axes_of_length_one_are_none():
    assert counted(lambda x: x.sum(axis=1), jnp.ones((3, 1))).operations["reduce"] == 0
    assert counted(lambda x: x.sum(axis=0), jnp.ones((3, 1))).operations["reduce"] == 1


def test_scatters_have_the_form_of_their_sums():
    index = jnp.zeros(130, int)

    def sums(x):
        few = jax.ops.segment_sum(x, index, 2, indices_are_sorted=True)
        return few, jax.ops.segment_sum(x, index, 13)

    counts = counted(sums, jnp.ones((130, 3)))
    assert counts.scatters == {Scatter(2, 130, 3, ordered=True): 1, Scatter(13, 130, 3, ordered=False): 1}
    assert counts.operations["scatter"] == 2
    assert counts.crowded == 1 and counts.unordered == 1


def test_derivatives_of_gathers_in_two_axes_scatter_into_all_addresses():
    rows, columns = jnp.arange(4), jnp.arange(4)
    counts = counted(jax.grad(lambda x: (x[rows, columns] ** 2).sum()), jnp.ones((5, 6, 7)))
    assert counts.scatters == {Scatter(30, 4, 7, ordered=False): 1}
