"""The ray transformer: every stored intermediate, invariance under motions, sections and order, and what it must not be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from benchmarks.rays_references import stored_net, stored_tokens
from equiform.algebra.pluecker import Rays, base_section, changed_section, point_pairs, ray_pairs, rays_through
from equiform.errors import UserError
from equiform.models.ray_transformer import PointViews, RayTokens, RayTransformer, RayTransformerConfig, ray_tokens
from equiform.nn.rays import scalar_field
from equiform.nn.rays_convolution import pair_invariants

LIMIT = 1e-12


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_net.npz")


def test_every_stage_equals_the_stored_one(stored):
    """In the stored sections, in which tensors are stored; the last number also in ours."""
    model, (tokens, section), queries = stored_net(stored), stored_tokens(stored), jnp.asarray(stored["queries"])
    neighbors = ~jnp.eye(12, dtype=bool)

    @eqx.filter_jit
    def stages():
        pairs = ray_pairs(tokens.rays, section, tokens.rays, section)
        invariants, given = pair_invariants(pairs), scalar_field(tokens.features)
        lifted = model.lift_pairs(given, pairs, invariants, jnp.where(neighbors, 1 / 11, 0))
        own = model.lift(given).values[0]
        lifted = lifted.map(lambda value, kind: value + own if kind.trivial else value)
        logits = model.ray_layers[0].logits(lifted, pairs, invariants)
        field = model.on_rays(tokens, section)
        points = point_pairs(queries, tokens.rays, section)
        arguments = field, points, points.distance[..., None], jnp.ones((5, 12), bool)
        parts, alpha = model.point_layers[0].parts(*arguments)
        state = model.point_layers[0](*arguments)
        out = model(tokens, queries, section=section)
        return lifted.values, logits, field.values, parts, alpha, state.scalars, state.vectors, out, model(tokens, queries)

    lifted, logits, field, parts, alpha, scalars, vectors, out, ours = stages()
    for k in range(3):
        np.testing.assert_allclose(lifted[k], stored[f"out.lift.h{k}"], rtol=0, atol=LIMIT)
        np.testing.assert_allclose(field[k], stored[f"out.att.h{k}"], rtol=0, atol=LIMIT)
    off = np.asarray(neighbors)
    np.testing.assert_allclose(np.asarray(logits)[off], stored["out.att.logits"][off], rtol=0, atol=LIMIT)
    weights = np.exp(logits) * off[..., None]
    np.testing.assert_allclose(weights / weights.sum(1, keepdims=True), stored["out.att.alpha"], rtol=0, atol=LIMIT)
    for value, name in ((parts, "scal"), (alpha, "alpha"), (scalars, "f0"), (vectors, "v")):
        np.testing.assert_allclose(value, stored[f"out.pt.{name}"], rtol=0, atol=LIMIT)
    np.testing.assert_allclose(out, stored["out.occ_logit"], rtol=0, atol=LIMIT)
    np.testing.assert_allclose(ours, stored["out.occ_logit"], rtol=0, atol=LIMIT)


SMALL = RayTransformerConfig(
    features=3,
    view_features=4,
    degrees=(0, 1, 2),
    channels=4,
    num_heads=2,
    radial_hidden=3,
    readout_hidden=5,
    posed=True,
    length=2.0,
)


def scene(number_of_views, seed=0):
    """Tokens, points and views of a random scene, the first points and rays in special position."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(number_of_views, 3))
    owner = np.arange(8) % number_of_views
    directions = -centres[owner] + rng.normal(size=(8, 3)) * 0.3
    directions[4] = directions[0]
    points = rng.normal(size=(3, 3)) * 0.5
    points[0] = centres[owner[1]] + 0.9 * directions[1]
    mask = np.arange(8) != 6
    return [jnp.asarray(part) for part in (centres, owner, directions, rng.normal(size=(8, 3)), mask, points)] + [
        jnp.asarray(rng.normal(size=(3, number_of_views, 4))),
        jnp.asarray(rng.uniform(size=(3, number_of_views)) < 0.8),
    ]


@eqx.filter_jit
def predicted(model, parts, rotation, translation, angle, shift):
    """The prediction after a motion of cameras and points, with a random section."""
    centres, owner, directions, features, mask, points, view_features, seen = parts
    centres = centres @ rotation.T + translation[None]
    points = points @ rotation.T + translation[None]
    rays = rays_through(centres[owner], directions @ rotation.T)
    sight = points[:, None] - centres[None]
    depth = jnp.sqrt((sight**2).sum(-1))
    views = PointViews(sight / depth[..., None], depth, view_features, seen) if model.config.view_features else None
    section = changed_section(base_section(rays), angle, shift)
    return model(RayTokens(rays, features, mask, centres[owner]), points, views, section=section)


@pytest.mark.parametrize("number_of_views", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_motion_of_cameras_and_scene_and_random_sections_change_nothing(number_of_views):
    model, parts = RayTransformer(SMALL, key=jax.random.key(0)), scene(number_of_views)
    rng = np.random.default_rng(1)
    none = jnp.zeros(8)
    out = predicted(model, parts, jnp.eye(3), jnp.zeros(3), none, none)
    assert np.abs(out - out[0]).max() > 1e-3
    for rotation in Rotation.random(20, random_state=0).as_matrix():
        shift = rng.normal(size=3)
        moved = predicted(
            model,
            parts,
            jnp.asarray(rotation),
            jnp.asarray(5 * shift / np.linalg.norm(shift)),
            jnp.asarray(rng.uniform(-3, 3, 8)),
            jnp.asarray(rng.normal(size=8)),
        )
        np.testing.assert_allclose(moved, out, rtol=0, atol=1e-10)


def test_mirror_image_differs():
    """The group is SE(3): a symmetry that is not claimed must fail."""
    model, parts, none = RayTransformer(SMALL, key=jax.random.key(0)), scene(3), jnp.zeros(8)
    out = predicted(model, parts, jnp.eye(3), jnp.zeros(3), none, none)
    mirrored = predicted(model, parts, jnp.diag(jnp.asarray([-1.0, 1, 1])), jnp.zeros(3), none, none)
    assert np.abs(mirrored - out).max() > 1e-4


def test_order_of_rays_and_what_is_masked_change_nothing():
    model, parts = RayTransformer(SMALL, key=jax.random.key(0)), scene(3)
    still = (jnp.eye(3), jnp.zeros(3), jnp.zeros(8), jnp.zeros(8))
    out = predicted(model, parts, *still)
    order = jnp.asarray(np.random.default_rng(0).permutation(8))
    mixed = [part[order] if index in (1, 2, 3, 4) else part for index, part in enumerate(parts)]
    np.testing.assert_allclose(predicted(model, mixed, *still), out, rtol=0, atol=1e-12)
    other = [*parts[:3], parts[3].at[6].set(9), *parts[4:]]
    np.testing.assert_array_equal(predicted(model, other, *still), out)
    seen = [*parts[:3], parts[3].at[5].set(9), *parts[4:]]
    assert np.abs(predicted(model, seen, *still) - out).max() > 1e-4


def test_pure_rays_know_no_centres():
    """Without `posed` a ray may start anywhere on its line."""
    config = SMALL.model_copy(
        update={"posed": False, "view_features": 0, "neighbor_distance": 2.0, "num_ray_layers": 1, "num_point_layers": 1}
    )
    model, parts = RayTransformer(config, key=jax.random.key(0)), scene(3)
    rays = rays_through(parts[0][parts[1]], parts[2])
    run = eqx.filter_jit(lambda centres: model(RayTokens(rays, parts[3], parts[4], centres), parts[5]))
    np.testing.assert_array_equal(run(parts[0][parts[1]]), run(jnp.ones((8, 3))))


def test_far_lines_are_no_neighbors():
    config = SMALL.model_copy(update={"view_features": 0, "neighbor_distance": 0.2, "num_ray_layers": 1, "num_point_layers": 1})
    parts = scene(3)
    rays = rays_through(parts[0][parts[1]], parts[2])
    model = RayTransformer(config, key=jax.random.key(0))
    scaled = Rays(rays.direction, rays.moment / 2)
    pairs = jax.jit(ray_pairs)(scaled, base_section(scaled), scaled, base_section(scaled))
    near = np.asarray(pairs.distance) < 0.2
    assert 0 < near.sum() < near.size
    run = eqx.filter_jit(
        lambda features: model.on_rays(RayTokens(rays, features, parts[4], jnp.zeros((8, 3))), base_section(scaled))
    )
    change = np.abs(run(parts[3].at[0].add(1.0)).scalars - run(parts[3]).scalars).max(-1) > 1e-9
    reach = near & np.asarray(parts[4])[:, None] & np.asarray(parts[4])[None]
    reach = np.linalg.matrix_power(reach.astype(int), 2)[:, 0] > 0  # the lift and one layer
    np.testing.assert_array_equal(change[np.arange(8) != 6], reach[np.arange(8) != 6])


def test_impossible_configurations_are_refused():
    with pytest.raises(ValidationError, match="degrees must have 0"):
        RayTransformerConfig(degrees=(1, 2))
    with pytest.raises(ValidationError, match="divisible by num_heads"):
        RayTransformerConfig(channels=6, num_heads=4)
    with pytest.raises(ValidationError, match="chanels"):
        RayTransformerConfig.model_validate({"chanels": 6})


def test_rays_without_direction_are_refused_and_padding_is_not():
    given = jnp.ones((2, 3)), jnp.asarray([[0, 0, 2.0], [0, 0, 0]]), jnp.ones((2, 1))
    with pytest.raises(UserError, match=r"1 of 2 rays have no direction: ray \(1,\)"):
        ray_tokens(*given, jnp.asarray([True, True]))
    tokens = ray_tokens(*given, jnp.asarray([True, False]))
    np.testing.assert_allclose(tokens.rays.direction, [[0, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(tokens.rays.moment[0], [1, -1, 0])


def test_missing_views_are_named():
    parts = scene(2)
    model = RayTransformer(SMALL, key=jax.random.key(0))
    tokens = RayTokens(rays_through(parts[0][parts[1]], parts[2]), parts[3], parts[4], parts[0][parts[1]])
    with pytest.raises(ValueError, match="the rays through the points, must be"):
        model(tokens, parts[5])
