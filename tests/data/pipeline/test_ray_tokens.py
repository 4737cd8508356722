"""Tokens of calibrated images: windows are the pixels they say, rays go through them, and samples lie on rays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.cameras import Cameras, project
from equiform.data.formats.cameras import Views
from equiform.data.pipeline.ray_targets import background_of, nearest_views, sampled_depths, target_rays
from equiform.data.pipeline.ray_tokens import drawn_pixels, prepared_views, scene_inputs, seen_at

SIDE = 24


@pytest.fixture(scope="module")
def scene():
    """Random images of three cameras that look at the origin from 3 away, and points, one of them out of sight."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(3, random_state=0).as_matrix()
    k = np.array([[33.0, 0, 12], [0, 33.0, 12], [0, 0, 1]])
    cameras = Cameras(rotation, -3 * rotation[:, :, 2], np.stack([k] * 3), SIDE, SIDE)
    points = np.concatenate([rng.uniform(-0.6, 0.6, (20, 3)), [-9 * rotation[0, :, 2]]])
    return rng.uniform(size=(3, SIDE, SIDE, 3)), cameras, points


def window(image, row, column, side, step=1):
    """Colours − 1 about a pixel, white outside, pixel by pixel."""
    half = side // 2
    out = np.zeros((side, side, 3))
    for i in range(side):
        for j in range(side):
            r, c = row + step * (i - half), column + step * (j - half)
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                out[i, j] = image[r, c] - 1
    return out.ravel()


def test_points_show_the_windows_about_their_pixels(scene):
    images, cameras, points = scene
    seen = seen_at(prepared_views(images, cameras), points)
    place, depth = jax.jit(project)(jax.tree.map(jnp.asarray, cameras), jnp.asarray(points))
    inside = (np.asarray(depth) > 0) & ((np.asarray(place) >= 0) & (np.asarray(place) < SIDE)).all(-1)
    np.testing.assert_array_equal(seen.mask, inside)
    assert 10 < inside.sum() < inside.size and not inside[-1, 0]
    averaged = np.pad(images - 1, ((0, 0), (2, 2), (2, 2), (0, 0)))
    coarse = np.mean([averaged[:, i : i + SIDE, j : j + SIDE] for i in range(1, 5) for j in range(1, 5)], axis=0) + 1
    for point, view in np.argwhere(inside)[::7]:
        column, row = np.floor(np.asarray(place)[point, view]).astype(int)
        near, far = window(images[view], row, column, 5), window(coarse[view], row, column, 5, 4)
        # Averages just outside of the image still have pixels of the image among them.
        whole = np.array(
            [[0 <= row + 4 * (i - 2) < SIDE and 0 <= column + 4 * (j - 2) < SIDE for j in range(5)] for i in range(5)]
        )
        np.testing.assert_allclose(seen.patch[point, view, :75], near, rtol=0, atol=1e-6)
        np.testing.assert_allclose(seen.patch[point, view, 75:][whole.repeat(3)], far[whole.repeat(3)], rtol=0, atol=1e-6)


def test_ray_tokens_go_through_their_pixels(scene):
    images, cameras, points = scene
    views, pixels = prepared_views(images, cameras), np.array([0, SIDE * SIDE + 5 * SIDE + 7, 3 * SIDE * SIDE - 1])
    given = scene_inputs(views, points, seen_at(views, points), pixels, np.float64)
    place, _ = jax.jit(project)(jax.tree.map(jnp.asarray, cameras), jnp.asarray(given.centre + 2.5 * given.direction))
    np.testing.assert_allclose(np.linalg.norm(given.direction, axis=1), 1, rtol=0, atol=1e-12)
    for ray, (view, row, column) in enumerate([(0, 0, 0), (1, 5, 7), (2, 23, 23)]):
        np.testing.assert_allclose(place[ray, view], [column + 0.5, row + 0.5], rtol=0, atol=1e-10)
        np.testing.assert_allclose(given.patch[ray], window(images[view], row, column, 3), rtol=0, atol=1e-6)


def test_rays_are_drawn_on_the_object_as_far_as_it_goes():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:5, 2:6] = True
    rng = np.random.default_rng(0)
    for count, on in ((8, 6), (16, 12), (120, 12)):
        drawn = drawn_pixels(masks, count, masks.size, rng)
        assert len(set(drawn.tolist())) == count and masks.ravel()[drawn].sum() == on
    assert masks.ravel()[drawn_pixels(masks, 124, 128, rng)].sum() == 12
    assert len(set(drawn_pixels(None, 128, 128, rng).tolist())) == 128


def test_samples_lie_on_the_ray_of_their_pixel(scene):
    images, cameras, _ = scene
    views = Views(images, cameras, ["a", "b", "c"])
    given = target_rays(views, 1, [2, 0], np.array([0, 30]), (2.0, 4.0), 5, np.float64)
    place, depth = jax.jit(project)(jax.tree.map(jnp.asarray, cameras), jnp.asarray(given.samples))
    assert np.asarray(depth)[:, :, 1].min() > 0
    for ray, (row, column) in enumerate([(0, 0), (1, 6)]):
        np.testing.assert_allclose(place[ray, :, 1], np.tile([column + 0.5, row + 0.5], (5, 1)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(given.samples - given.centre, axis=-1), given.depths, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.diff(1 / given.depths[0]), -0.0625, rtol=0, atol=1e-12)
    # The head counts pixel centres from whole numbers.
    np.testing.assert_allclose(given.intrinsics[:, :2, 2], 11.5, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(given.images, images[[2, 0]])
    assert sampled_depths((2.0, 4.0), 2).tolist() == [2.0, 4.0]


def test_sources_are_the_views_from_the_closest_directions(scene):
    _, cameras, _ = scene
    cosine = cameras.rotation[:, :, 2] @ cameras.rotation[:, :, 2].T
    assert nearest_views(cameras, 0, range(3), 2) == sorted([1, 2], key=lambda view: -cosine[0, view])
    assert nearest_views(cameras, 0, [0, 2], 5) == [2]


def test_the_background_is_what_the_borders_show(scene):
    images, cameras, _ = scene
    for value in (0.0, 1.0):
        framed = images.copy()
        framed[:, [0, -1]] = framed[:, :, [0, -1]] = value
        assert background_of(Views(framed, cameras, [])) == value
