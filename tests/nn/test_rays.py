"""Layers on single rays: they commute with every phase, and do what their formulas say."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.pluecker import RayType
from equiform.nn.rays import (
    SOFTENING,
    Radial,
    RayField,
    RayGate,
    RayLayerNorm,
    RayLinear,
    RayNormNonlinearity,
    scalar_field,
    transported,
)

TYPES = (RayType(0), RayType(1), RayType(-2, 0.7))


def random_field(rays=5, channels=4):
    rng = np.random.default_rng(0)
    shape = (rays, channels)
    values = [rng.normal(size=shape) + (0 if kind.trivial else 1j) * rng.normal(size=shape) for kind in TYPES]
    return RayField(tuple(jnp.asarray(value) for value in values), TYPES)


def layers():
    key = jax.random.key(0)
    norm = RayNormNonlinearity(TYPES, 4)
    moved = jax.tree.map(lambda b: b - jnp.asarray([0.2, 0.9, 1.4, 0.5]), norm)
    return [RayLinear(TYPES, 4, 4, key=key), RayGate(TYPES, 4, key=key), moved, RayLayerNorm(TYPES, 4)]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_layers_commute_with_phases(layer):
    rng = np.random.default_rng(1)
    angle, shift = jnp.asarray(rng.uniform(-3, 3, 5)), jnp.asarray(rng.normal(size=5))

    @eqx.filter_jit
    def both(layer, field):
        return transported(layer(field), angle, shift), layer(transported(field, angle, shift))

    expected, found = both(layer, random_field())
    for value, other in zip(found.values, expected.values):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-13)
        assert np.abs(value).max() > 0.01


def test_norm_nonlinearity_is_its_formula_and_finite_at_zero():
    field, layer = random_field(), layers()[2]
    out = eqx.filter_jit(layer)(field)
    for value, result, beta in zip(field.values[1:], out.values[1:], layer.thresholds[1:]):
        value = np.asarray(value)
        length = np.abs(value)
        reached = length - np.asarray(beta)
        elu = np.where(reached > 0, reached, np.expm1(np.minimum(reached, 0)))
        np.testing.assert_allclose(result, value / (length + SOFTENING) * elu, rtol=0, atol=1e-13)

    def loss(field):
        return sum(
            (jnp.abs(value) ** 2).sum() if value.dtype == float else (value.real**2 + value.imag**2).sum()
            for value in layer(field).values
        )

    nothing = random_field().map(lambda value, _: jnp.zeros_like(value))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(nothing)))


def test_layer_norm_has_unit_mean_square():
    out = eqx.filter_jit(RayLayerNorm(TYPES, 4))(random_field().map(lambda value, _: 3 * value))
    for value in out.values:
        np.testing.assert_allclose((np.abs(value) ** 2).mean(-1), 1, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(out.scalars).mean(-1), 0, rtol=0, atol=1e-14)


def test_self_interaction_does_not_mix_types():
    field, layer = random_field(), RayLinear(TYPES, 4, 3, key=jax.random.key(0))
    changed = RayField((field.values[0], 2 * field.values[1], field.values[2]), TYPES)
    out, other = layer(field), layer(changed)
    np.testing.assert_array_equal(out.values[0], other.values[0])
    np.testing.assert_array_equal(out.values[2], other.values[2])
    np.testing.assert_allclose(other.values[1], 2 * out.values[1], rtol=0, atol=1e-14)
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(layer))


def test_radial_functions_are_the_products_of_their_two_parts():
    radial = Radial(3, 2, 5, 4, key=jax.random.key(0))
    s = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))
    out = eqx.filter_jit(radial)(s)
    for kernel in range(3):
        hidden = np.tanh(np.asarray(s) @ np.asarray(radial.first[kernel]) + np.asarray(radial.first_bias[kernel]))
        real, imag = (
            hidden @ np.asarray(radial.last[kernel, :, part]) + np.asarray(radial.last_bias[kernel, part]) for part in (0, 1)
        )
        np.testing.assert_allclose(out[:, kernel], real + 1j * imag, rtol=0, atol=1e-13)


def test_fields_without_invariants_say_so():
    field = RayField((jnp.ones((2, 1), complex),), (RayType(1),))
    with pytest.raises(ValueError, match="no invariant channels"):
        _ = field.scalars
    assert scalar_field(jnp.ones((2, 1))).scalars.shape == (2, 1)
