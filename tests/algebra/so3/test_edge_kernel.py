"""Kernels in the edge frame against the Clebsch–Gordan sum of the definition, and their symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import sph_harm_y

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.algebra.so3.edge_kernel import kernel_degrees, kernel_table
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Chunk, Irrep, Irreps
from equiform.algebra.so3.rotations import Directions
from equiform.models.se3_kernel import RadialKernel

CASES = [
    ((0, 1, 2, 3), (0, 0, 1, 1, 2, 2, 3, 3)),
    ((0, 1), (0, 0, 1, 1, 2, 3)),
    ((0,), (0, 0, 1, 2)),
    ((0, 1, 2), (1, 1)),
    ((2, 3), (0,)),
]


def real_harmonic(l, unit):
    """Orthonormal real harmonics by scipy, polar axis y, in the order −l … l."""
    x, y, z = unit.T
    theta, phi = np.arccos(np.clip(y, -1, 1)), np.arctan2(x, z)
    columns = []
    for m in range(-l, l + 1):
        value = sph_harm_y(l, abs(m), theta, phi) * (-1) ** m
        columns.append(value.real if m == 0 else np.sqrt(2) * (value.imag if m < 0 else value.real))
    return np.stack(columns, axis=1)


def make(degrees, targets, *, true_parity, smooth=False):
    parity = -1 if true_parity else 1
    irreps_in = Irreps(tuple(Chunk(3, Irrep(l, parity**l)) for l in degrees))
    irreps_out = Irreps(tuple(Chunk(2, Irrep(l, parity**l)) for l in targets))
    return RadialKernel(irreps_in, irreps_out, 2, 8, true_parity=true_parity, smooth=smooth, key=jax.random.key(1))


@pytest.mark.parametrize("true_parity", [False, True])
@pytest.mark.parametrize(("degrees", "targets"), CASES)
def test_the_product_in_the_frame_is_the_clebsch_gordan_sum(degrees, targets, true_parity):
    rng, edges = np.random.default_rng(0), 5
    kernel = make(degrees, targets, true_parity=true_parity)
    vectors, inputs = rng.normal(size=(edges, 3)), jnp.asarray(rng.normal(size=(edges, 2)))
    x = [rng.normal(size=(edges, 2 * l + 1, 3)) for l in degrees]
    features = Features([jnp.asarray(block) for block in x], kernel.irreps_in)
    found = kernel(features, Directions(jnp.asarray(vectors), 0, l_max_frame=3), inputs)
    hidden, last = np.asarray(kernel._hidden(inputs)), np.asarray(kernel.last)
    unit, number = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 0
    expected = [np.zeros((edges, 2 * l + 1, 2)) for l in targets]
    for source, k in enumerate(degrees):
        for target, l in enumerate(targets):
            for J in range(abs(k - l), k + l + 1):
                if true_parity and (k + l + J) % 2:
                    continue
                phi = np.einsum("hio,he->eio", last[number], hidden[source, target])
                harmonic = real_harmonic(J, unit)
                expected[target] += np.einsum("eio,ej,eki,kjl->elo", phi, harmonic, x[source], wigner_3j(k, J, l))
                number += 1
    assert number == len(last)
    for block, (_, irrep) in zip(found.blocks, found.irreps):
        same = [part for part, l in zip(expected, targets) if l == irrep.l]
        np.testing.assert_allclose(block, np.concatenate(same, axis=2), atol=1e-12)


def test_the_radial_networks_are_dense_layers_with_layer_normalisation():
    kernel, rng = make((0, 1), (0, 1), true_parity=False), np.random.default_rng(1)
    inputs = rng.normal(size=(4, 2))
    for a in range(2):
        for b in range(2):
            h = inputs
            for layer, weight in enumerate((kernel.first, kernel.second)):
                h = h @ np.asarray(weight)[a, b] + np.asarray(kernel.biases)[layer, a, b]
                h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
                h = np.maximum(h, 0)
            np.testing.assert_allclose(np.asarray(kernel._hidden(jnp.asarray(inputs)))[a, b, :-1].T, h, atol=1e-12)


def test_there_are_as_many_numbers_in_the_frame_as_kernels_and_the_table_can_be_inverted():
    for true_parity in (False, True):
        degrees, targets = (0, 1, 2, 3), (0, 1, 1, 2, 3)
        table = kernel_table(degrees, targets, true_parity=true_parity)
        count = sum(len(kernel_degrees(k, l, true_parity=true_parity)) for k in degrees for l in targets)
        assert table.shape == (count, count) and np.linalg.matrix_rank(table) == count


def test_derivatives_with_respect_to_the_networks_are_those_of_finite_differences():
    kernel, rng = make((0, 1), (0, 1), true_parity=False, smooth=True), np.random.default_rng(2)
    inputs = jnp.asarray(rng.normal(size=(4, 2)))
    value = jax.jit(lambda biases: jnp.sin(_with(kernel, biases)._hidden(inputs)).sum())
    slope = jax.grad(value)(kernel.biases)
    step = 1e-6 * jnp.zeros_like(kernel.biases).at[1, 0, 1, 3].set(1)
    numeric = (value(kernel.biases + step) - value(kernel.biases - step)) / 2e-6
    np.testing.assert_allclose(slope[1, 0, 1, 3], numeric, rtol=1e-7)


def _with(kernel, biases):
    import equinox as eqx

    return eqx.tree_at(lambda made: made.biases, kernel, biases)


def test_unequal_widths_are_told():
    with pytest.raises(ValueError, match="the same number of channels for each degree"):
        RadialKernel(
            Irreps.parse("3x0e+2x1o"), Irreps.parse("2x0e"), 1, 4, true_parity=True, smooth=False, key=jax.random.key(0)
        )
