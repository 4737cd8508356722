"""Occupancy and radiance: their losses are their formulas, and joint motions of cameras and scene change nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import interpn
from scipy.signal import correlate
from scipy.spatial.transform import Rotation

from equiform.algebra.cameras import Cameras, moved
from equiform.data.formats.cameras import Views
from equiform.data.pipeline.ray_targets import target_rays
from equiform.data.pipeline.ray_tokens import RAY_FEATURES, VIEW_FEATURES, prepared_views, scene_inputs, seen_at, stacked
from equiform.models.image_features import ImageFeatures, ImageFeaturesConfig
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig, WorldTransformer, WorldTransformerConfig
from equiform.models.ray_radiance import RayRadiance, RayRadianceConfig
from equiform.models.ray_rendering import RayRenderingConfig
from equiform.models.ray_transformer import RayTransformer, RayTransformerConfig
from equiform.nn.images import Convolution
from equiform.tasks.occupancy import DEPTH_AND_PLACE, LabelledScenes, Occupancy
from equiform.tasks.radiance import LabelledRays, Radiance

KEY = jax.random.key(0)
HEAD = RayRenderingConfig(features=2, num_samples=4, frequencies=2, tensor_channels=2, channels=4, view_channels=4)
MODELS = {
    "view-mlp": lambda: ViewMLP(ViewMLPConfig(view_features=VIEW_FEATURES), key=KEY),
    "world-transformer": lambda: WorldTransformer(
        WorldTransformerConfig(features=RAY_FEATURES, view_features=VIEW_FEATURES, width=8, num_layers=1), key=KEY
    ),
    "ray-transformer": lambda: RayTransformer(
        RayTransformerConfig(
            features=RAY_FEATURES,
            view_features=VIEW_FEATURES + DEPTH_AND_PLACE,
            degrees=(0, 1),
            channels=4,
            num_heads=2,
            num_ray_layers=1,
            num_point_layers=1,
            radial_hidden=3,
            posed=True,
        ),
        key=KEY,
    ),
}


def cameras_of(count):
    rotation = Rotation.random(count, random_state=1).as_matrix()
    k = np.array([[33.0, 0, 12], [0, 33.0, 12], [0, 0, 1]])
    return Cameras(rotation, -3 * rotation[:, :, 2], np.stack([k] * count), 24, 24)


def images_of(count):
    return np.random.default_rng(2).uniform(size=(count, 24, 24, 3))


def inputs_of(cameras, points):
    views = prepared_views(images_of(len(cameras.centre)), cameras)
    return scene_inputs(views, points, seen_at(views, points), np.arange(0, len(cameras.centre) * 576, 100), np.float64)


def after(cameras, turn, shift):
    return jax.tree.map(np.asarray, moved(jax.tree.map(jnp.asarray, cameras), jnp.asarray(turn), jnp.asarray(shift)))


POINTS = np.random.default_rng(3).uniform(-0.5, 0.5, (6, 3))
TURN, SHIFT = Rotation.random(random_state=4).as_matrix(), np.array([3.0, -4.0, 0.0])


@pytest.mark.parametrize(
    ("name", "views"),
    [("view-mlp", 3), *(pytest.param("ray-transformer", n, marks=pytest.mark.slow) for n in (2, 3, 4))],
)
def test_occupancy_does_not_change_when_cameras_and_scene_move(name, views):
    run = jax.jit(Occupancy(MODELS[name]()).__call__)
    cameras = cameras_of(views)
    before = run(inputs_of(cameras, POINTS))
    assert np.abs(before - before[0]).max() > 1e-3
    turned = run(inputs_of(after(cameras, TURN, SHIFT), POINTS @ TURN.T + SHIFT))
    np.testing.assert_allclose(turned, before, rtol=0, atol=1e-10)


def test_the_transformer_of_world_coordinates_changes():
    """A symmetry that is not claimed must fail."""
    run, cameras = jax.jit(Occupancy(MODELS["world-transformer"]()).__call__), cameras_of(3)
    before, turned = run(inputs_of(cameras, POINTS)), run(inputs_of(after(cameras, TURN, SHIFT), POINTS @ TURN.T + SHIFT))
    assert np.abs(turned - before).max() > 1e-3


def test_losses_are_their_formulas():
    given, label = inputs_of(cameras_of(3), POINTS), np.array([-0.3, -0.05, 0.01, 0.02, 0.07, 0.4])
    batch = LabelledScenes(stacked([given, given]), np.stack([label, label]))
    model = MODELS["view-mlp"]()
    z = np.asarray(jax.jit(Occupancy(model).__call__)(given))
    expected = -np.where(label < 0, -np.log1p(np.exp(-z)), -np.log1p(np.exp(z))).mean()
    assert float(eqx.filter_jit(Occupancy(model).loss)(batch)) == pytest.approx(expected, abs=1e-12)
    expected = np.abs(np.clip(z, -1, 1) - np.clip(label / 0.1, -1, 1)).mean()
    assert float(eqx.filter_jit(Occupancy(model, "signed_distance").loss)(batch)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("quantity", "threshold"), [("occupancy", 0.4), ("signed_distance", -0.2)])
def test_points_are_inside_beyond_the_level_of_the_surface(quantity, threshold):
    """In the model's number and in what is predicted: the same points."""
    task = Occupancy(MODELS["view-mlp"](), quantity, threshold=threshold)
    numbers = jnp.linspace(-1, 1, 21)
    inside = task.is_inside(numbers, threshold)
    if quantity == "occupancy":
        np.testing.assert_array_equal(inside, jax.nn.sigmoid(numbers) > task.level)
    else:
        np.testing.assert_array_equal(inside, task.clip * numbers < task.level)
    assert 0 < inside.sum() < 21


def radiance(views, background=0.25):
    return Radiance(RayRadiance(RayRadianceConfig(head=HEAD, hidden=3), key=KEY), background, (2.0, 4.0)), cameras_of(views + 1)


def rays_of(cameras):
    views = Views(images_of(len(cameras.centre)), cameras, [""] * len(cameras.centre))
    sources = list(range(1, len(cameras.centre)))
    return target_rays(views, 0, sources, np.array([100, 300, 310]), (2.0, 4.0), 4, np.float64)


@pytest.mark.parametrize("views", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4))])
def test_colours_do_not_change_when_cameras_move(views):
    task, cameras = radiance(views)
    run = jax.jit(task.__call__)
    before = run(rays_of(cameras))
    assert np.abs(np.asarray(before) - 0.25).max() > 1e-3
    turned = run(rays_of(after(cameras, TURN, SHIFT)))
    np.testing.assert_allclose(turned, before, rtol=0, atol=1e-10)
    # The mean squared error of the colours, which a target image of zeros makes their mean square.
    loss = eqx.filter_jit(task.loss)(LabelledRays(rays_of(cameras), np.zeros((3, 3))))
    assert float(loss) == pytest.approx(float((np.asarray(before) ** 2).mean()), abs=1e-12)


def test_convolution_is_that_of_scipy():
    layer, images = Convolution(2, 3, key=KEY), np.random.default_rng(0).normal(size=(2, 5, 6, 2))
    out = np.asarray(jax.jit(layer.__call__)(jnp.asarray(images)))
    kernel = np.asarray(layer.weight)
    for view in range(2):
        for channel in range(3):
            expected = sum(correlate(images[view, :, :, c], kernel[:, :, c, channel], "same") for c in range(2))
            np.testing.assert_allclose(out[view, :, :, channel], expected, rtol=0, atol=1e-12)


def seeing():
    """A model that reads features of the images."""
    on_images = ImageFeatures(ImageFeaturesConfig(features=3, widths=(4, 6)), key=KEY)
    return Occupancy(ViewMLP(ViewMLPConfig(view_features=VIEW_FEATURES + 3), key=KEY), image_features=on_images)


def test_features_of_images_do_not_change_when_cameras_move_and_reach_the_result():
    task, cameras = seeing(), cameras_of(3)
    run = eqx.filter_jit(lambda task, given: task(given))
    before = run(task, inputs_of(cameras, POINTS))
    turned = run(task, inputs_of(after(cameras, TURN, SHIFT), POINTS @ TURN.T + SHIFT))
    np.testing.assert_allclose(turned, before, rtol=0, atol=1e-10)
    other = task.image_features.out.weight + 1
    changed = eqx.tree_at(lambda t: t.image_features.out.weight, task, other)
    assert np.abs(np.asarray(run(changed, inputs_of(cameras, POINTS))) - before).max() > 1e-5


def test_features_of_rays_are_those_of_their_pixels_and_of_points_between_pixels():
    """By the map itself: a ray at its pixel, a point by SciPy's linear interpolation at its projection."""
    network, cameras = ImageFeatures(ImageFeaturesConfig(features=3, widths=(4, 6)), key=KEY), cameras_of(3)
    given = inputs_of(cameras, POINTS)
    maps = np.asarray(eqx.filter_jit(network.__call__)(jnp.asarray(given.images)))
    found = eqx.filter_jit(network.added_to)(given)
    np.testing.assert_array_equal(np.asarray(found.patch)[:, RAY_FEATURES:], maps.reshape(-1, 3)[given.pixel])
    np.testing.assert_array_equal(np.asarray(found.patch)[:, :RAY_FEATURES], given.patch)
    middle = np.arange(24) + 0.5
    for view in range(3):
        local = (POINTS - cameras.centre[view]) @ cameras.rotation[view]
        pixel = local @ cameras.intrinsics[view].T
        pixel = pixel[:, :2] / pixel[:, 2:]
        expected = interpn((middle, middle), maps[view], np.clip(pixel[:, ::-1], 0.5, 23.5))
        np.testing.assert_allclose(np.asarray(found.view_patch)[:, view, VIEW_FEATURES:], expected, rtol=0, atol=1e-10)


def test_features_of_a_pixel_see_the_whole_image_whatever_its_size():
    network = ImageFeatures(ImageFeaturesConfig(features=2, widths=(3, 4, 5)), key=KEY)
    run = eqx.filter_jit(network.__call__)
    images = np.random.default_rng(0).normal(size=(2, 21, 22, 3))
    before = np.asarray(run(jnp.asarray(images)))
    assert before.shape == (2, 21, 22, 2)
    images[1, 20, 21] += 1
    change = np.abs(np.asarray(run(jnp.asarray(images))) - before).max(axis=-1)
    assert change[0].max() == 0 and change[1, 10, 10] > 0
