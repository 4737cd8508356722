"""Attention on rays: the formula written out pair by pair, motions, sections and masks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.pluecker import RayType, base_section, pairs_through, point_pairs, ray_pairs, rays_through
from equiform.nn.rays import scalar_field, transported
from equiform.nn.rays_attention import PointAttention, PointState, RayAttention, masked_softmax
from equiform.nn.rays_convolution import pair_factor, pair_invariants
from tests.nn.test_rays_convolution import bundle, moved_apart, random_field, random_motion

TYPES = (RayType(0), RayType(-2))


def attended(layer, rays, section, field, neighbors):
    pairs = ray_pairs(rays, section, rays, section)
    return layer(field, pairs, pair_invariants(pairs), neighbors)


def some_neighbors(number):
    allowed = np.random.default_rng(0).uniform(size=(number, number)) < 0.7
    allowed[2] = False
    return jnp.asarray(allowed & ~np.eye(number, dtype=bool))


def test_attention_equals_the_formula_pair_by_pair():
    rays, layer = bundle(), RayAttention(TYPES, 4, 2, key=jax.random.key(0))
    field, allowed = random_field(TYPES, 9, 4), some_neighbors(9)
    out = eqx.filter_jit(attended)(layer, rays, base_section(rays), field, allowed)
    pairs = jax.jit(ray_pairs)(rays, base_section(rays), rays, base_section(rays))
    invariants = pair_invariants(pairs)

    def along_pairs(linear, radial):
        mixed, functions = linear(field), np.asarray(radial(invariants))
        return [
            sum(
                np.asarray(pair_factor(pairs, o, i, "smooth"))[..., None]
                * functions[:, :, 2 * a + b]
                * np.asarray(mixed.values[b])[None]
                for b, i in enumerate(TYPES)
            )
            for a, o in enumerate(TYPES)
        ]

    keys, values, asked = (
        along_pairs(layer.key, layer.key_radial),
        along_pairs(layer.value, layer.value_radial),
        layer.query(field),
    )
    for x in range(9):
        ys = np.flatnonzero(np.asarray(allowed)[x])
        gathered = [np.zeros(4, complex) for _ in TYPES]
        for head in (slice(0, 2), slice(2, 4)):
            logits = [
                sum((np.conj(np.asarray(asked.values[o])[x, head]) * keys[o][x, y, head]).sum().real for o in range(2))
                / np.sqrt(4)
                for y in ys
            ]
            weights = np.exp(logits) / np.exp(logits).sum()
            for o in range(2):
                gathered[o][head] = sum(w * values[o][x, y, head] for w, y in zip(weights, ys))
        mixed = layer.out(
            type(field)(tuple(jnp.asarray(g.real if k.trivial else g)[None] for g, k in zip(gathered, TYPES)), TYPES)
        )
        for expected, value in zip(mixed.values, out.values):
            np.testing.assert_allclose(value[x], expected[0], rtol=0, atol=1e-12)


def test_attention_commutes_with_motions_and_changes_of_section():
    rays, layer = bundle(), RayAttention(TYPES, 4, 2, key=jax.random.key(0))
    field, allowed = random_field(TYPES, 9, 4), some_neighbors(9)
    moved, section, h = moved_apart(rays, *random_motion(9))
    run = eqx.filter_jit(attended)
    out = run(layer, rays, base_section(rays), field, allowed)
    after = run(layer, moved, section, transported(field, *h), allowed)
    for expected, value in zip(transported(out, *h).values, after.values):
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
    assert all(np.abs(value).max() > 0.1 for value in out.values)
    assert all((np.asarray(value)[2] == 0).all() for value in out.values)  # no neighbours


def looked(layer, points, rays, section, field, state):
    pairs = point_pairs(points, rays, section)
    allowed = jnp.ones(pairs.distance.shape, bool).at[:, 1].set(False)
    return layer(field, pairs, pairs.distance[..., None], allowed, state)


def test_points_rotate_with_rays_and_do_not_depend_on_the_section():
    rays, layer = bundle(), PointAttention(TYPES, 4, 2, with_state=True, key=jax.random.key(0))
    rng, field = np.random.default_rng(0), random_field(TYPES, 9, 4)
    points = jnp.asarray(rng.normal(size=(3, 3))).at[0].set(base_section(rays).origin[2])  # one on a ray
    state = PointState(jnp.asarray(rng.normal(size=(3, 4))), jnp.asarray(rng.normal(size=(3, 4, 3))))
    angle, shift, rotation, translation = random_motion(9)
    moved, section, h = moved_apart(rays, angle, shift, rotation, translation)
    run = eqx.filter_jit(looked)
    out = run(layer, points, rays, base_section(rays), field, state)
    turned = PointState(state.scalars, state.vectors @ rotation.T)
    after = run(layer, points @ rotation.T + translation[None], moved, section, transported(field, *h), turned)
    np.testing.assert_allclose(after.scalars, out.scalars, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after.vectors, out.vectors @ rotation.T, rtol=0, atol=1e-12)
    assert np.abs(out.vectors).max() > 0.1


def test_masked_rays_have_no_say():
    rays, layer = bundle(), PointAttention(TYPES, 4, 2, key=jax.random.key(0))
    points, field = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3))), random_field(TYPES, 9, 4)
    changed = field.map(lambda value, _: value.at[1].set(7))
    run = eqx.filter_jit(looked)
    out, after = (run(layer, points, rays, base_section(rays), f, None) for f in (field, changed))
    np.testing.assert_array_equal(after.scalars, out.scalars)


def test_rays_through_the_points_agree_with_rays_in_general():
    """Pairs made for rays through a point are those of the point and the ray; its own rays, or rays for all."""
    rng = np.random.default_rng(0)
    point, directions = jnp.asarray([[0.3, -0.2, 1.0]]), rng.normal(size=(4, 3))
    rays = jax.jit(rays_through)(jnp.broadcast_to(point, (4, 3)), jnp.asarray(directions))
    layer, field = PointAttention((RayType(0),), 4, 2, key=jax.random.key(0)), random_field((RayType(0),), 4, 4)
    general = point_pairs(point, rays, base_section(rays))
    exact = pairs_through(rays.direction[None], jnp.zeros((1, 4)))
    allowed = jnp.ones((1, 4), bool)
    out = layer(field, general, general.distance[..., None], allowed)
    own = layer(scalar_field(field.values[0][None]), exact, exact.distance[..., None], allowed)
    np.testing.assert_allclose(own.scalars, out.scalars, rtol=0, atol=1e-12)
    np.testing.assert_allclose(own.vectors, out.vectors, rtol=0, atol=1e-12)


def test_softmax_of_nothing_is_zero_with_finite_derivatives():
    allowed = jnp.asarray([[[True], [False]], [[False], [False]]])
    logits = jnp.asarray([[[800.0], [900.0]], [[1.0], [2.0]]])
    np.testing.assert_array_equal(masked_softmax(logits, allowed)[..., 0], [[1, 0], [0, 0]])
    slopes = jax.grad(lambda x: (masked_softmax(x, allowed) ** 2).sum())(logits)
    assert np.isfinite(slopes).all()


def test_gradients_are_finite_where_rays_coincide_and_pass_through_points():
    rays, layer = bundle(), PointAttention(TYPES, 4, 2, key=jax.random.key(0))
    attention, field = RayAttention(TYPES, 4, 2, key=jax.random.key(1)), random_field(TYPES, 9, 4)
    points = base_section(rays).origin[:3]

    def loss(rays, points):
        values = attended(attention, rays, base_section(rays), field, some_neighbors(9))
        return (looked(layer, points, rays, base_section(rays), field + values, None).vectors ** 2).sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(rays, points)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("heads", [1, 4])
def test_number_of_heads_divides_the_channels(heads):
    layer = RayAttention(TYPES, 4, heads, key=jax.random.key(0))
    out = eqx.filter_jit(attended)(layer, bundle(), base_section(bundle()), random_field(TYPES, 9, 4), some_neighbors(9))
    assert out.values[0].shape == (9, 4)
