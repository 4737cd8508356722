"""The rendering head: the published forward pass, and invariance where the published code loses it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.rays_references import stored_head, stored_inputs
from equiform.algebra.cameras import Cameras, moved
from equiform.models.ray_rendering import RayRendering, RayRenderingConfig, sampled_views, sinusoids
from equiform.nn.images import bilinear

LIMIT = 1e-12


@pytest.fixture(scope="module")
def stored(parity_folder):
    return np.load(parity_folder / "rays" / "rays_ibrnet_head.npz")


@eqx.filter_jit
def rendered(model, samples, depths, target, sources, images, maps):
    return model(samples, depths, target.centre[0], target.rotation[0, :, 0], sources, images, maps)


def test_every_output_equals_the_published_one(stored):
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    out = rendered(stored_head(stored, 1e-6), samples, depths, target, sources, images, maps)
    raw = jnp.concatenate([out.colors, out.density[..., None]], axis=-1)
    for value, name in ((out.rgb, "rgb"), (out.depth, "depth"), (out.weights, "weights"), (raw, "raw")):
        np.testing.assert_allclose(value, stored[f"out.{name}"], rtol=0, atol=LIMIT)
    views = eqx.filter_jit(sampled_views)(samples, target.centre[0], target.rotation[0, :, 0], sources, images, maps, 1e-6)
    np.testing.assert_allclose(views.features, stored["out.rgb_feat"], rtol=0, atol=LIMIT)
    np.testing.assert_array_equal(views.mask, stored["out.mask"][..., 0] > 0)
    np.testing.assert_allclose(views.cosine, stored["out.ray_diff"][..., 0], rtol=0, atol=LIMIT)
    np.testing.assert_allclose(views.angle, stored["out.ray_diff"][..., 1], rtol=0, atol=LIMIT)
    # The third column is the sample's coordinate along the target ray from the foot of the origin. The head does not use it.
    between = np.asarray(target.centre)[0] - stored["xyz"]
    along = (between / (np.linalg.norm(between, axis=-1, keepdims=True) + 1e-6) * stored["xyz"]).sum(-1)
    np.testing.assert_allclose(np.broadcast_to(along[..., None], (3, 8, 4)), stored["out.ray_diff"][..., 2], rtol=0, atol=LIMIT)
    np.testing.assert_allclose(sinusoids(8, 16), stored["pos_encoding"][0], rtol=0, atol=LIMIT)


@pytest.mark.parametrize("views", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_motions_and_the_zero_of_the_angle_change_nothing(stored, views):
    """Three views are where the published code takes cross products along the wrong axis."""
    model = stored_head(stored, 0.0)
    samples, depths, target, sources, images, maps = stored_inputs(stored, views)
    out = rendered(model, samples, depths, target, sources, images, maps)
    for seed in range(3):
        rotation = jnp.asarray(Rotation.random(random_state=seed).as_matrix())
        shift = jnp.asarray(np.random.default_rng(seed).normal(size=3) * 3)
        turned = moved(target, rotation, shift), moved(sources, rotation, shift)
        after = rendered(model, samples @ rotation.T + shift[None, None], depths, *turned, images, maps)
        for value, expected in zip(jax.tree.leaves(after), jax.tree.leaves(out)):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-10)
    roll = jnp.asarray(Rotation.from_rotvec([0, 0, 0.9]).as_matrix())
    rolled = Cameras(target.rotation @ roll, target.centre, target.intrinsics, 16, 16)
    after = rendered(model, samples, depths, rolled, sources, images, maps)
    assert np.abs(after.rgb - out.rgb).max() < 1e-10


def test_the_published_norms_depend_on_the_zero_of_the_angle(stored):
    """The first mended defect: small, and far above rounding."""
    roll = jnp.asarray(Rotation.from_rotvec([0.4, 0.2, 0.9]).as_matrix())
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    rolled = Cameras(target.rotation @ roll, target.centre, target.intrinsics, 16, 16)
    change = {}
    for softening in (0.0, 1e-6):
        model = stored_head(stored, softening)
        out, after = (rendered(model, samples, depths, camera, sources, images, maps) for camera in (target, rolled))
        change[softening] = np.abs(after.density - out.density).max()
    assert change[0.0] < 1e-12 < 1e-9 < change[1e-6] < 1e-5


def test_order_of_the_views_changes_nothing(stored):
    model = stored_head(stored, 0.0)
    samples, depths, target, sources, images, maps = stored_inputs(stored)
    order = jnp.asarray([2, 0, 3, 1])
    mixed = Cameras(sources.rotation[order], sources.centre[order], sources.intrinsics[order], 16, 16)
    out = rendered(model, samples, depths, target, sources, images, maps)
    after = rendered(model, samples, depths, target, mixed, images[order], maps[order])
    np.testing.assert_allclose(after.rgb, out.rgb, rtol=0, atol=LIMIT)


def test_published_size_has_the_published_number_of_parameters():
    model = RayRendering(RayRenderingConfig(), key=jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))) == 25_408


def test_images_are_interpolated_between_pixel_centres_and_zero_outside():
    image = jnp.asarray(np.arange(6.0).reshape(1, 2, 3, 1))
    place = jnp.asarray([[0.0, 0], [1, 1], [0.25, 0], [0.5, 0.5], [1.5, 0], [1e9, -1e9]])[None, :, None]
    np.testing.assert_allclose(bilinear(image, place)[0, :, 0, 0], [0, 5, 0.5, 2.5, 0, 0], rtol=0, atol=1e-12)
