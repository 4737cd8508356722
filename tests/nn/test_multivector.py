"""Layers on multivectors: the fast linear layer is the formula, initial weights are in their bounds, published primitives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from equiform.algebra.clifford.products import geometric_product, grade_projections, join
from equiform.nn.multivector import MultivectorLinear, gate, grade_dropout, multivector_norm, scalar_gate, scalar_norm, together
from equiform.nn.multivector_init import identity_factors, map_factors
from tests.algebra.clifford.cases import GEOMETRIES, random_motion

RNG = np.random.default_rng(0)


def inputs(name, channels=3, scalars=2):
    size = GEOMETRIES[name].algebra.num_components
    return jnp.asarray(RNG.normal(size=(4, channels, size))), jnp.asarray(RNG.normal(size=(4, scalars)))


@pytest.mark.parametrize("scalars", [(0, 0), (0, 2), (2, 0), (2, 5)])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_linear_layer_is_the_sum_over_maps(name, scalars):
    geometry, (x, s) = GEOMETRIES[name], inputs(name, scalars=scalars[0])
    layer = MultivectorLinear(geometry, (3, 4), scalars, key=jax.random.key(1))
    y, t = layer(x, s)
    expected = np.einsum("oib,bjk,nik->noj", layer.weight, geometry.maps, x)
    expected[..., 0] += np.asarray(
        layer.bias if layer.from_scalars is None else s @ layer.from_scalars.weight + layer.from_scalars.bias[None]
    )
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert t.shape == (4, scalars[1])
    if layer.to_scalars is not None:
        expected = x[..., 0] @ layer.to_scalars.weight + layer.to_scalars.bias[None]
        expected += 0 if layer.scalars is None else s @ layer.scalars
        np.testing.assert_allclose(t, expected, atol=1e-12)


def test_layers_together_are_the_layers():
    x, s = inputs("P")
    layers = [MultivectorLinear(GEOMETRIES["P"], (3, n), (2, m), key=jax.random.key(n)) for n, m in ((2, 1), (4, 3))]
    for (y, t), layer in zip(together(layers, x, s), layers):
        np.testing.assert_allclose(y, layer(x, s)[0], atol=1e-14)
        np.testing.assert_allclose(t, layer(x, s)[1], atol=1e-14)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_linear_layer_is_equivariant_and_a_wrong_map_is_not(name, odd):
    geometry, (x, s), motion = GEOMETRIES[name], inputs(name), random_motion(name, odd=odd)
    layer = MultivectorLinear(geometry, (3, 4), (2, 2), key=jax.random.key(1))
    y, t = layer(x, s)
    moved, same = layer(jnp.asarray(motion.multivector(np.asarray(x))), s)
    np.testing.assert_allclose(moved, motion.multivector(np.asarray(y)), atol=1e-10)
    np.testing.assert_allclose(same, t, atol=1e-10)
    wrong = geometry.maps[0] + geometry.maps.sum(0)[:, ::-1]
    assert np.abs(wrong @ motion.action - motion.action @ wrong).max() > 1e-3


@pytest.mark.parametrize("name", GEOMETRIES)
def test_norm_and_gate_are_equivariant(name):
    algebra, (x, _) = GEOMETRIES[name].algebra, inputs(name)
    for odd in (False, True):
        motion = random_motion(name, odd=odd)
        moved = jnp.asarray(motion.multivector(np.asarray(x)))
        for layer in (lambda y: multivector_norm(algebra, y), lambda y: gate(y, "gelu")):
            np.testing.assert_allclose(layer(moved), motion.multivector(np.asarray(layer(x))), atol=1e-11)


def test_norm_divides_by_the_root_of_the_grades_mean_and_stops_at_a_tenth():
    geometry, (x, _) = GEOMETRIES["C"], inputs("C")
    algebra = geometry.algebra
    squares = np.stack(
        [np.einsum("ncj,jk,nck->nc", p, algebra.form, p) for p in np.moveaxis(grade_projections(algebra, x), -2, 0)]
    )
    expected = x / np.sqrt(np.abs(squares).sum(0).mean(-1))[:, None, None]
    np.testing.assert_allclose(multivector_norm(algebra, x), expected, atol=1e-12)
    np.testing.assert_allclose(multivector_norm(algebra, 1e-6 * x), 1e-5 * x, atol=1e-18)


def test_scalar_norm_has_zero_mean_and_unit_variance():
    s = scalar_norm(jnp.asarray(RNG.normal(size=(5, 64)) * 3 + 7))
    np.testing.assert_allclose(s.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(s.var(-1), 1, atol=1e-5)


def test_dropout_takes_whole_grades_and_keeps_the_mean():
    algebra = GEOMETRIES["P"].algebra
    x = jnp.ones((200, 50, 16))
    y = grade_dropout(algebra, x, 0.25, key=jax.random.key(0))
    kept = np.asarray(y) != 0
    for grade in range(algebra.num_grades):
        part = kept[..., algebra.grade == grade]
        assert (part == part[..., :1]).all()
    assert abs(float(y.mean()) - 1) < 0.01
    assert not np.array_equal(kept[..., 0], kept[..., -1])
    assert grade_dropout(algebra, x, 0.25, key=None) is x


@pytest.mark.parametrize("name", ["E", "C"])
def test_balanced_factors_give_all_components_one_variance(name):
    geometry = GEOMETRIES[name]
    algebra = geometry.algebra
    maps = algebra.outermorphism @ geometry.maps @ algebra.to_frame
    np.testing.assert_allclose(np.einsum("b,bij->i", map_factors(geometry) ** 2, maps**2), 1, atol=1e-12)


def test_projective_factors_are_the_published_ones():
    variances = np.einsum("b,bij->i", map_factors(GEOMETRIES["P"]) ** 2, GEOMETRIES["P"].maps ** 2) / 3
    expected = np.full(16, 1 / 3)
    expected[[1, 5, 6, 7]] = 1 / 2
    expected[14] = 1 / 6
    np.testing.assert_allclose(variances, expected, atol=1e-12)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_identity_factors_are_those_of_the_identity(name):
    geometry = GEOMETRIES[name]
    np.testing.assert_allclose(
        np.einsum("b,bij->ij", identity_factors(geometry), geometry.maps), np.eye(len(geometry.maps[0])), atol=1e-12
    )


@pytest.mark.parametrize(
    ("role", "mu", "beta", "sigma"), [("default", 1, 0, 1), ("small", 0.1, 0, 0.1), ("near_unit", 0.5, 1, 1)]
)
def test_initial_weights_fill_the_published_bounds(role, mu, beta, sigma):
    c, s = 30, 20
    layer = MultivectorLinear(GEOMETRIES["P"], (c, 400), (s, 500), role=role, key=jax.random.key(0))
    factors = np.sqrt([1, 4, 6, 2, 0.5, 0.5, 1.5, 1.5, 0.5])
    bounds = {
        "maps": (np.abs(layer.weight).max((0, 1)) / factors, mu / np.sqrt(c)),
        "from scalars": (np.abs(layer.from_scalars.weight).max(), mu / np.sqrt(2 * s)),
        "bias": (np.abs(layer.from_scalars.bias - beta).max(), 1 / np.sqrt(s + c)),
        "to scalars": (np.abs(layer.to_scalars.weight).max(), sigma / np.sqrt(2 * c)),
        "scalars": (np.abs(layer.scalars).max(), sigma / np.sqrt(2 * s)),
        "scalar bias": (np.abs(layer.to_scalars.bias).max(), sigma / np.sqrt(c + s)),
    }
    for what, (largest, bound) in bounds.items():
        assert (largest <= bound).all() and (largest > 0.97 * bound).all(), what


def test_published_primitives(parity_folder):
    stored = {
        name: jnp.asarray(x)
        for name, x in np.load(parity_folder / "gatr" / "primitives" / "pairs.npz").items()
        if x.dtype == float
    }
    geometry = GEOMETRIES["P"]
    algebra, x, y = geometry.algebra, stored["x"], stored["y"]
    found = {
        "gp": geometric_product(algebra, x, y),
        "join": stored["ref"][:, 14:15] * join(algebra, x, y),
        "layer_norm": multivector_norm(algebra, stored["xc"]),
        "ln_small": multivector_norm(algebra, stored["ln_small_in"]),
        "gated_gelu": x * jax.nn.gelu(stored["gate"], approximate=True),
        "gated_relu": x * jax.nn.relu(stored["gate"]),
        "gated_sigmoid": x * jax.nn.sigmoid(stored["gate"]),
        "equi_linear": jnp.einsum("oib,bjk,nik->noj", stored["coeffs"], jnp.asarray(geometry.maps), stored["xc"]),
        "grade_project": grade_projections(algebra, x),
    }
    for name, ours in found.items():
        np.testing.assert_allclose(ours, stored[name], rtol=0, atol=1e-12, err_msg=name)


def test_gates_are_the_channels_own_scalars():
    x = jnp.asarray(RNG.normal(size=(4, 3, 16)))
    for activation, function in (("gelu", jax.nn.gelu), ("relu", jax.nn.relu), ("sigmoid", jax.nn.sigmoid)):
        np.testing.assert_allclose(gate(x, activation), x * function(x[..., :1]), atol=1e-14)
    s = jnp.asarray(RNG.normal(size=(4, 3)))
    np.testing.assert_allclose(scalar_gate(s, "gelu"), s * (1 + erf(s / np.sqrt(2))) / 2, atol=1e-14)
    assert np.abs(scalar_gate(s, "gelu") - gate(s[..., None], "gelu")[..., 0]).max() > 1e-5  # exact here, by tanh there
