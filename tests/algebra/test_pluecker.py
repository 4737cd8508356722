"""Rays in Plücker coordinates: stored references, the law of the cocycle, and every kind of pair of lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra import pluecker
from equiform.algebra.pluecker import Rays, RayType, Section, check_directions, phase, power, unit_phase
from equiform.errors import UserError

SECTION, MOTION = 1e-12, 1e-12

# One program each: outside jit every operation is compiled on its own.
base_section, changed_section, cocycle, point_pairs, ray_pairs, rays_through, transformed = (
    jax.jit(function)
    for function in (
        pluecker.base_section,
        pluecker.changed_section,
        pluecker.cocycle,
        pluecker.point_pairs,
        pluecker.ray_pairs,
        pluecker.rays_through,
        pluecker.transformed,
    )
)


def some_rays(number, seed=0):
    rng = np.random.default_rng(seed)
    return rays_through(jnp.asarray(rng.normal(size=(number, 3))), jnp.asarray(rng.normal(size=(number, 3))))


def motion(seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(Rotation.random(random_state=seed).as_matrix()), jnp.asarray(rng.normal(size=3) * 5)


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_kernels.npz")


def stored_rays(stored, name):
    plucker = jnp.asarray(stored[name])
    return Rays(plucker[:, :3], plucker[:, 3:])


def stored_section(stored, name):
    return Section(jnp.asarray(stored[f"F{name}"]), jnp.asarray(stored[f"o{name}"]))


def test_action_and_cocycle_equal_the_stored_ones(stored):
    rotation, translation = jnp.asarray(stored["R"]), jnp.asarray(stored["t"])
    for name in "XY":
        moved = transformed(stored_rays(stored, name), rotation, translation)
        np.testing.assert_allclose(jnp.concatenate([moved.direction, moved.moment], 1), stored[f"g{name}"], rtol=0, atol=1e-13)
        section = Section(jnp.asarray(stored[f"gF{name}"]), jnp.asarray(stored[f"go{name}"]))
        angle, shift = cocycle(section, rotation, translation, stored_section(stored, name))
        np.testing.assert_allclose(angle, stored[f"phi{name}"], rtol=0, atol=1e-13)
        np.testing.assert_allclose(shift, stored[f"om{name}"], rtol=0, atol=1e-13)


def test_pairs_of_rays_equal_the_stored_ones(stored):
    x, y = stored_rays(stored, "X"), stored_rays(stored, "Y")
    pairs = ray_pairs(x, stored_section(stored, "X"), y, stored_section(stored, "Y"))
    names = {"a": "a", "b": "b", "a_back": "a2", "b_back": "b2", "cosine": "cos", "reciprocal": "rec"}
    for ours, theirs in (names | {"foot": "z_xy", "foot_back": "z_yx"}).items():
        np.testing.assert_allclose(getattr(pairs, ours), stored[f"pair.{theirs}"], rtol=0, atol=1e-13)


def test_pairs_with_points_equal_the_stored_ones(stored):
    pairs = point_pairs(jnp.asarray(stored["P"]), stored_rays(stored, "Y"), stored_section(stored, "Y"))
    for ours, theirs in {"distance": "r", "along": "z", "a": "a", "frame": "E"}.items():
        np.testing.assert_allclose(getattr(pairs, ours), stored[f"pt.{theirs}"], rtol=0, atol=1e-13)


def test_base_section_is_a_rotation_and_a_point_of_the_ray_at_every_pole():
    axes = jnp.asarray([[0, 0, 1.0], [0, 0, -1.0], [0, 1.0, 0], [1.0, 0, 0], [1e-9, 0, -1.0], [0, 1e-9, 1.0]])
    rays = rays_through(jnp.asarray(np.random.default_rng(0).normal(size=(6, 3))), axes)
    section = base_section(rays)
    identity = jnp.swapaxes(section.frame, -1, -2) @ section.frame
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), rtol=0, atol=1e-15)
    np.testing.assert_allclose(jnp.linalg.det(section.frame), 1, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(section.frame[..., 2], rays.direction)
    np.testing.assert_allclose(jnp.cross(section.origin, rays.direction), rays.moment, rtol=0, atol=1e-15)


def test_action_moves_the_points_of_a_ray():
    rng, (rotation, translation) = np.random.default_rng(3), motion()
    points, directions = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 3)))
    expected = rays_through(points @ rotation.T + translation[None], directions @ rotation.T)
    moved = transformed(rays_through(points, directions), rotation, translation)
    np.testing.assert_allclose(moved.direction, expected.direction, rtol=0, atol=1e-14)
    np.testing.assert_allclose(moved.moment, expected.moment, rtol=0, atol=1e-13)


def test_cocycle_of_a_product_is_the_product():
    rays, (r1, t1), (r2, t2) = some_rays(6), motion(1), motion(2)
    once, twice = transformed(rays, r1, t1), transformed(transformed(rays, r1, t1), r2, t2)
    first = cocycle(base_section(once), r1, t1, base_section(rays))
    second = cocycle(base_section(twice), r2, t2, base_section(once))
    both = cocycle(base_section(twice), r2 @ r1, r2 @ t1 + t2, base_section(rays))
    kind = RayType(2, 0.7)
    np.testing.assert_allclose(phase(kind, *first) * phase(kind, *second), phase(kind, *both), rtol=0, atol=MOTION)


def test_pairs_follow_the_cocycle_and_the_invariants_stay():
    x, y, (rotation, translation) = some_rays(5), some_rays(4, seed=7), motion()
    before = ray_pairs(x, base_section(x), y, base_section(y))
    gx, gy = transformed(x, rotation, translation), transformed(y, rotation, translation)
    after = ray_pairs(gx, base_section(gx), gy, base_section(gy))
    angle, shift = cocycle(base_section(gx), rotation, translation, base_section(x))
    turn = unit_phase(angle)[:, None]
    np.testing.assert_allclose(after.cosine, before.cosine, rtol=0, atol=MOTION)
    np.testing.assert_allclose(after.reciprocal, before.reciprocal, rtol=0, atol=MOTION)
    np.testing.assert_allclose(after.a, turn * before.a, rtol=0, atol=MOTION)
    np.testing.assert_allclose(
        after.b, turn * (before.b + 1j * np.asarray(shift)[:, None] * np.asarray(before.a)), rtol=0, atol=1e-11
    )
    np.testing.assert_allclose(after.foot, before.foot + shift[:, None], rtol=0, atol=1e-10)


def test_reciprocal_product_is_distance_times_sine_and_the_foot_is_nearest():
    x, y = some_rays(6), some_rays(6, seed=4)
    pairs = ray_pairs(x, base_section(x), y, base_section(y))
    normal = np.cross(np.asarray(x.direction)[:, None], np.asarray(y.direction)[None])
    between = np.asarray(base_section(y).origin)[None] - np.asarray(base_section(x).origin)[:, None]
    np.testing.assert_allclose(np.abs(pairs.reciprocal), np.abs((normal * between).sum(-1)), rtol=0, atol=1e-13)
    feet = base_section(x).origin[:, None] + pairs.foot[..., None] * x.direction[:, None]
    other = base_section(y).origin[None] + pairs.foot_back[..., None] * y.direction[None]
    np.testing.assert_allclose(((feet - other) * x.direction[:, None]).sum(-1), 0, rtol=0, atol=1e-11)
    np.testing.assert_allclose(((feet - other) * y.direction[None]).sum(-1), 0, rtol=0, atol=1e-11)


def test_mirror_flips_the_reciprocal_product():
    mirror, x, y = jnp.diag(jnp.asarray([-1.0, 1, 1])), some_rays(3), some_rays(3, seed=4)
    flipped = [Rays(rays.direction @ mirror, -rays.moment @ mirror) for rays in (x, y)]
    before = ray_pairs(x, base_section(x), y, base_section(y))
    after = ray_pairs(flipped[0], base_section(flipped[0]), flipped[1], base_section(flipped[1]))
    np.testing.assert_allclose(after.reciprocal, -before.reciprocal, rtol=0, atol=1e-13)
    np.testing.assert_allclose(after.cosine, before.cosine, rtol=0, atol=1e-13)


def test_parallel_opposite_and_coincident_rays_are_told_apart():
    x = rays_through(jnp.asarray([[0.3, -1.0, 2.0]]), jnp.asarray([[1.0, 2.0, -0.5]]))
    d, e = np.asarray(x.direction[0]), np.asarray(base_section(x).frame[0, :, 0])
    starts = np.asarray(base_section(x).origin) + np.stack([2 * d, 1.5 * e + d, 1.5 * e, 0 * e, d])
    y = rays_through(jnp.asarray(starts), jnp.asarray(np.stack([d, d, -d, -d, d + 0.1 * e])))
    pairs = ray_pairs(x, base_section(x), y, base_section(y))
    assert pairs.parallel[0].tolist() == [True, True, True, True, False]
    assert pairs.coincident[0].tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(pairs.offset[0, 1:3], [1.5, 1.5], rtol=0, atol=1e-14)  # e is the first axis of x
    back = base_section(y).frame[1:3]
    expected = [1.5 * (frame[:, 0] @ e + 1j * (frame[:, 1] @ e)) for frame in np.asarray(back)]
    np.testing.assert_allclose(pairs.offset_back[0, 1:3], expected, rtol=0, atol=1e-14)


def test_changing_the_section_is_the_law_of_a_motion_that_does_nothing():
    rays, rng = some_rays(5), np.random.default_rng(5)
    angle, shift = jnp.asarray(rng.uniform(-3, 3, 5)), jnp.asarray(rng.normal(size=5))
    other = changed_section(base_section(rays), angle, shift)
    found = cocycle(other, jnp.eye(3), jnp.zeros(3), base_section(rays))
    np.testing.assert_allclose(found[0], -angle, rtol=0, atol=SECTION)
    np.testing.assert_allclose(found[1], -shift, rtol=0, atol=SECTION)


def test_points_see_their_distance_and_rays_through_them_have_a_frame():
    rays, points = some_rays(4), jnp.asarray(np.random.default_rng(6).normal(size=(3, 3)))
    points = points.at[0].set(base_section(rays).origin[0] + 0.7 * rays.direction[0])
    pairs = point_pairs(points, rays, base_section(rays))
    cross = np.cross(np.asarray(points)[:, None], np.asarray(rays.direction)[None]) - np.asarray(rays.moment)[None]
    np.testing.assert_allclose(pairs.distance, np.linalg.norm(cross, axis=-1), rtol=0, atol=1e-14)
    frame = pairs.frame
    np.testing.assert_allclose(jnp.swapaxes(frame, -1, -2) @ frame, np.broadcast_to(np.eye(3), frame.shape), rtol=0, atol=1e-13)
    assert pairs.azimuth[0, 0] == 1
    repeated = jax.tree.map(lambda part: jnp.broadcast_to(part, (3, *part.shape)), (rays, base_section(rays)))
    np.testing.assert_allclose(point_pairs(points, *repeated).a, pairs.a, rtol=0, atol=1e-15)


@pytest.mark.parametrize("k", [-3, -1, 0, 2])
def test_powers_turn_with_the_frame(k):
    a, turn = jnp.asarray([0.3 + 0.4j]), unit_phase(jnp.asarray([0.8]))
    np.testing.assert_allclose(power(turn * a, k), turn**k * power(a, k), rtol=0, atol=1e-15)


def test_rays_without_direction_are_refused():
    with pytest.raises(UserError, match=r"1 of 2 rays have no direction: ray \(1,\) has \[0.0, 0.0, 0.0\]"):
        check_directions(jnp.asarray([[1.0, 0, 0], [0, 0, 0]]))
    with pytest.raises(UserError, match="no direction"):
        check_directions(jnp.asarray([[jnp.nan, 0, 0]]))
    check_directions(jnp.asarray([[0, 2.0, 0]]))
