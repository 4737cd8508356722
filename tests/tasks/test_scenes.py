"""Occupancy and radiance: their losses are their formulas, and joint motions of cameras and scene change nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate
from scipy.spatial.transform import Rotation

from equiform.algebra.cameras import Cameras, moved
from equiform.data.formats.cameras import Views
from equiform.data.pipeline.ray_targets import target_rays
from equiform.data.pipeline.ray_tokens import RAY_FEATURES, VIEW_FEATURES, prepared_views, scene_inputs, seen_at, stacked
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig, WorldTransformer, WorldTransformerConfig
from equiform.models.ray_radiance import Convolution, RayRadiance, RayRadianceConfig
from equiform.models.ray_rendering import RayRenderingConfig
from equiform.models.ray_transformer import RayTransformer, RayTransformerConfig
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
