"""Layers as rows: every layer comes back from its row."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irreps
from equiform.nn import init, stacked
from equiform.nn.linear import Linear, LinearPair

IRREPS, OUT = Irreps.parse("3x0e+2x1e"), Irreps.parse("4x0e+1x1e+2x2e")


def test_a_row_is_its_layer():
    layers = [Linear(IRREPS, OUT, key=jax.random.key(seed)) for seed in range(3)]
    rows, layer = stacked.rows(init.stack(layers))
    assert rows is not None and rows.shape == (3, 3 * 4 + 2 * 1 + 4)
    for row, expected in zip(rows, layers):
        made = layer(row)
        assert made.irreps_out == OUT
        for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_has_no_rows():
    rows, layer = stacked.rows(None)
    assert rows is None and layer(jnp.zeros(0)) is None


def test_a_pair_of_linear_maps_is_both():
    first, second = (Linear(IRREPS, OUT, bias=bias, key=jax.random.key(bias)) for bias in (True, False))
    first = eqx.tree_at(lambda linear: linear.bias, first, jnp.arange(4.0))
    rng = np.random.default_rng(0)
    x = Features([jnp.asarray(rng.normal(size=(5, irrep.dim, mul))) for mul, irrep in IRREPS], IRREPS)
    for got, linear in zip(LinearPair(first, second)(x), (first, second), strict=True):
        for one, other in zip(got.blocks, linear(x).blocks, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)
