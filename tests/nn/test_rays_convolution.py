"""Convolutions on rays: stored kernels, every kind of pair of lines, independence of the section, smoothness at the point."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.pluecker import (
    Rays,
    RayType,
    Section,
    base_section,
    changed_section,
    cocycle,
    point_pairs,
    ray_pairs,
    rays_through,
    transformed,
    unit_phase,
)
from equiform.algebra.so3.rotations import spherical_harmonics, wigner_d
from equiform.nn.rays import RayField, as_complex, scalar_field, transported
from equiform.nn.rays_convolution import (
    PointConvolution,
    RayConvolution,
    pair_factor,
    pair_invariants,
    point_kernel,
    posed_invariants,
)

GENERAL = (RayType(0), RayType(1, 0.7), RayType(-1, -0.7))
"""Opposite parallel lines need ω_o = −ω_i, and one line in both directions k_o = −k_i as well."""
SMOOTH = (RayType(0), RayType(-2))


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_kernels.npz")


def section_of(stored, name):
    return Section(jnp.asarray(stored[f"F{name}"]), jnp.asarray(stored[f"o{name}"]))


def kind_of(k, omega):
    return RayType(int(k), float(omega))


@jax.jit
def moved_apart(rays, angle, shift, rotation, translation):
    """Two sections of the moved rays' choice: what a motion followed by a change of section does to frames and values."""
    moved = transformed(rays, rotation, translation)
    section = changed_section(base_section(moved), angle, shift)
    return moved, section, cocycle(section, rotation, translation, base_section(rays))


def random_motion(number, seed=2):
    rng = np.random.default_rng(seed)
    numbers = (
        rng.uniform(-3, 3, number),
        rng.normal(size=number),
        Rotation.random(random_state=seed).as_matrix(),
        rng.normal(size=3),
    )
    return tuple(jnp.asarray(part) for part in numbers)


def bundle(seed=0):
    """Rays among which every kind of pair occurs: generic, parallel, opposite, the same, the same reversed, nearly parallel."""
    rng = np.random.default_rng(seed)
    points, directions = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    d, near = directions[0], np.array([0.3, 0.2, -0.4])
    points = np.stack([*points, points[0] + near, points[1], points[0] + 0.7 * d, points[0], points[2]])
    directions = np.stack([*directions, d, -d, 2 * d, -d, directions[2] + 0.1 * near])
    return jax.jit(rays_through)(jnp.asarray(points), jnp.asarray(directions))


def random_field(types, rays, channels, seed=3):
    rng = np.random.default_rng(seed)
    values = [
        rng.normal(size=(rays, channels)) + (0 if kind.trivial else 1j) * rng.normal(size=(rays, channels)) for kind in types
    ]
    return RayField(tuple(jnp.asarray(value) for value in values), types)


@pytest.mark.parametrize("case", ["0,0,0,0", "1,0,0,0", "2,0.7,1,0", "-1,0,3,-1.3"])
def test_kernels_between_rays_equal_the_stored_ones(stored, case):
    ko, wo, ki, wi = case.split(",")
    x, y = (Rays(jnp.asarray(stored[n][:, :3]), jnp.asarray(stored[n][:, 3:])) for n in "XY")

    @jax.jit
    def kernel():
        pairs = ray_pairs(x, section_of(stored, "X"), y, section_of(stored, "Y"))
        return pair_factor(pairs, kind_of(ko, wo), kind_of(ki, wi), "general") * jnp.asarray(stored["radial"])

    np.testing.assert_allclose(kernel(), stored[f"K_rr[{case}]"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(kernel() @ jnp.asarray(stored["f"]), stored[f"f_out[{case}]"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["0,0", "1,0", "3,-1.3"])
def test_transported_values_equal_the_stored_ones(stored, case):
    kind = kind_of(*case.split(","))
    f = jnp.asarray(stored["f"])[:, None]
    moved = transported(
        RayField((f.real if kind.trivial else f,), (kind,)), jnp.asarray(stored["phiY"]), jnp.asarray(stored["omY"])
    )
    expected = stored[f"f_transported[{case}]"]
    np.testing.assert_allclose(moved.values[0][:, 0], expected.real if kind.trivial else expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_kernels_from_rays_to_points_equal_the_stored_ones(stored, degree):
    rays = Rays(jnp.asarray(stored["Y"][:, :3]), jnp.asarray(stored["Y"][:, 3:]))
    pairs = point_pairs(jnp.asarray(stored["P"]), rays, section_of(stored, "Y"))
    np.testing.assert_allclose(wigner_d(degree, jnp.asarray(stored["R"]))[degree], stored[f"wigD{degree}"], rtol=0, atol=1e-12)
    for k, omega in ((0, 0), (1, 0), (2, 0.4)):
        kernel = point_kernel(pairs, degree, RayType(k, omega), jnp.asarray(stored[f"c{degree}"]))
        np.testing.assert_allclose(kernel, stored[f"K_rp[{degree},{k},{omega}]"], rtol=0, atol=1e-12)


def convolved(layer, rays, section, field):
    pairs = ray_pairs(rays, section, rays, section)
    return layer(field, pairs, pair_invariants(pairs), jnp.full(pairs.cosine.shape, 0.1))


@pytest.mark.parametrize(("kernel", "types"), [("general", GENERAL), ("smooth", SMOOTH)])
def test_convolution_commutes_with_motions_and_changes_of_section(kernel, types):
    """With scalars, tensors and all degenerate pairs; one factor too few in any kernel is seen."""
    rays = bundle()
    number = len(rays.direction)
    layer = RayConvolution(types, types, 2, 3, kernel=kernel, key=jax.random.key(0))
    field = random_field(types, number, 2)
    moved, section, h = moved_apart(rays, *random_motion(number))
    out, after = (
        eqx.filter_jit(convolved)(layer, *case)
        for case in ((rays, base_section(rays), field), (moved, section, transported(field, *h)))
    )
    for expected, value in zip(transported(out, *h).values, after.values):
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-12)
    assert all(np.abs(value).max() > 0.1 for value in out.values)


def test_changing_the_section_alone_changes_no_scalar():
    rays, layer = bundle(), RayConvolution(GENERAL, (RayType(0),), 2, 3, kernel="general", key=jax.random.key(1))
    field = random_field(GENERAL, len(rays.direction), 2)
    angle, shift, _, _ = random_motion(len(rays.direction))
    section = jax.jit(changed_section)(base_section(rays), angle, shift)
    out = eqx.filter_jit(convolved)(layer, rays, base_section(rays), field)
    after = eqx.filter_jit(convolved)(layer, rays, section, transported(field, -angle, -shift))
    np.testing.assert_allclose(after.scalars, out.scalars, rtol=0, atol=1e-12)


def test_every_kind_of_pair_is_met_and_has_a_kernel():
    """Removing any class of pairs changes the result, so the test of symmetry above is about all of them."""
    rays = bundle()
    pairs = jax.jit(ray_pairs)(rays, base_section(rays), rays, base_section(rays))
    layer = RayConvolution(GENERAL, GENERAL, 1, 1, kernel="general", key=jax.random.key(0))
    run = eqx.filter_jit(lambda weights: layer(random_field(GENERAL, 9, 1), pairs, pair_invariants(pairs), weights))
    whole, same = run(jnp.ones((9, 9))), np.asarray(pairs.cosine) > 0
    parallel, coincident = np.asarray(pairs.parallel), np.asarray(pairs.coincident)
    kinds = [~parallel, parallel & ~coincident & same, parallel & ~coincident & ~same, coincident & same, coincident & ~same]
    for kind in kinds:
        without = run(jnp.asarray(np.where(kind, 0.0, 1.0)))
        assert kind.any() and max(np.abs(a - b).max() for a, b in zip(whole.values, without.values)) > 1e-3


def test_sums_by_hidden_channel_equal_the_formula_pair_by_pair():
    rays = bundle()
    pairs = jax.jit(ray_pairs)(rays, base_section(rays), rays, base_section(rays))
    layer, field = RayConvolution(SMOOTH, SMOOTH, 2, 3, key=jax.random.key(0)), random_field(SMOOTH, 9, 2)
    weights = jnp.asarray(np.random.default_rng(0).uniform(size=(9, 9)))
    invariants = pair_invariants(pairs)
    out, radial = layer(field, pairs, invariants, weights), np.asarray(layer.radial(invariants))
    for o, kind_out in enumerate(SMOOTH):
        mixed, total = layer.mix[o](field), 0
        for i, kind_in in enumerate(SMOOTH):
            kernel = np.asarray(pair_factor(pairs, kind_out, kind_in, "smooth"))[..., None] * radial[:, :, 2 * o + i]
            total = total + (np.asarray(weights)[..., None] * kernel * np.asarray(mixed.values[i])[None]).sum(1)
        np.testing.assert_allclose(out.values[o], total.real if kind_out.trivial else total, rtol=0, atol=1e-13)


def to_points(layer, points, rays, section, field):
    pairs = point_pairs(points, rays, section)
    return layer(field, pairs, jnp.full(pairs.distance.shape, 0.2))


def test_features_at_points_rotate_and_do_not_depend_on_the_section():
    rays, types = bundle(), GENERAL
    points = jnp.asarray(np.random.default_rng(4).normal(size=(3, 3)))
    points = points.at[0].set(base_section(rays).origin[2])  # a ray passes through this one
    layer, field = PointConvolution(types, 2, 2, 3, key=jax.random.key(0)), random_field(types, 9, 2)
    angle, shift, rotation, translation = random_motion(9)
    moved, section, h = moved_apart(rays, angle, shift, rotation, translation)
    run = eqx.filter_jit(to_points)
    out = run(layer, points, rays, base_section(rays), field)
    after = run(layer, points @ rotation.T + translation[None], moved, section, transported(field, *h))
    for matrix, before, value in zip(wigner_d(2, rotation), out, after):
        # The ray meets the moved point up to rounding, where its azimuth is noise: half the digits.
        np.testing.assert_allclose(value[0], (matrix @ before)[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(value[1:], (matrix @ before)[1:], rtol=0, atol=1e-11)


def test_rays_through_a_point_give_the_harmonics_of_their_directions():
    rng = np.random.default_rng(0)
    directions = jnp.asarray(rng.normal(size=(4, 3)))
    rays = rays_through(jnp.broadcast_to(jnp.asarray([0.5, -1.0, 0.2]), (4, 3)), directions)
    layer = PointConvolution((RayType(0),), 2, 1, 1, key=jax.random.key(0))
    field = scalar_field(jnp.asarray(rng.normal(size=(4, 1))))
    out = eqx.filter_jit(to_points)(layer, jnp.asarray([[0.5, -1.0, 0.2]]), rays, base_section(rays), field)
    for l, harmonics in enumerate(spherical_harmonics(2, directions)):
        expected = np.asarray((harmonics * field.values[0]).sum(0))
        ratio = np.asarray(out[l])[0, :, 0] / expected
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-7)


def test_features_are_smooth_where_a_ray_passes_through_the_point():
    """Values on both sides of the line continue each other for every type and degree; a wrong power of r would jump."""
    rays = rays_through(jnp.zeros((1, 3)), jnp.asarray([[0.2, 0.3, 1.0]]))
    types = (RayType(0), RayType(1), RayType(-2))
    layer, field = PointConvolution(types, 2, 1, 1, key=jax.random.key(0)), random_field(types, 1, 1)
    step = np.asarray(base_section(rays).frame[0, :, 0]) + 0.3 * np.asarray(base_section(rays).frame[0, :, 1])
    points = jnp.asarray(np.array([-1e-3, -5e-4, 5e-4, 1e-3])[:, None] * step)
    for values in eqx.filter_jit(to_points)(layer, points, rays, base_section(rays), field):
        slopes = np.diff(np.asarray(values), axis=0) / np.array([5e-4, 1e-3, 5e-4])[:, None, None]
        np.testing.assert_allclose(slopes[1], slopes[0], rtol=0, atol=2e-2 * max(np.abs(slopes).max(), 0.1))


def test_smooth_kernels_need_omega_zero():
    rays = bundle()
    pairs = jax.jit(ray_pairs)(rays, base_section(rays), rays, base_section(rays))
    with pytest.raises(ValueError, match="exists for ω = 0 only"):
        pair_factor(pairs, RayType(0, 0.5), RayType(0), "smooth")


def test_posed_invariants_stay_under_motions():
    rays = bundle()
    centres = base_section(rays).origin + jnp.asarray(np.random.default_rng(1).normal(size=(9, 1))) * rays.direction
    _, _, rotation, translation = random_motion(9)

    def run(rays, centres):
        pairs = ray_pairs(rays, base_section(rays), rays, base_section(rays))
        return posed_invariants(pairs, rays, centres, rays, centres)

    after = jax.jit(run)(transformed(rays, rotation, translation), centres @ rotation.T + translation[None])
    np.testing.assert_allclose(after, jax.jit(run)(rays, centres), rtol=0, atol=1e-12)


def test_as_complex_keeps_numbers():
    assert as_complex(jnp.asarray([1.5])).dtype == jnp.complex128
    np.testing.assert_allclose(as_complex(unit_phase(jnp.asarray([0.3]))), np.exp(0.3j))
