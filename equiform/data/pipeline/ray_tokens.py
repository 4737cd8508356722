"""From calibrated images to `SceneInputs`: rays of some pixels as tokens, and what each view shows where points project to.

What a view shows at a pixel is two windows of 5 × 5 colours about it: one of neighbouring pixels, one of averages over 4 × 4
pixels at steps of 4, which reaches across a small image. Outside of the image it is white. Colours are handed on as values − 1,
so that a white background is zero.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import DTypeLike

from equiform.algebra.cameras import Cameras
from equiform.models.ray_inputs import SceneInputs

RAY_WINDOW, VIEW_WINDOW, STEP = 3, 5, 4
"""Sides of the windows of ray tokens and of views, in pixels, and steps of the coarse one."""
RAY_FEATURES = 3 * RAY_WINDOW**2
VIEW_FEATURES = 2 * 3 * VIEW_WINDOW**2
MARGIN = STEP * (VIEW_WINDOW // 2) + STEP // 2
ON_OBJECT = 0.75
"""Share of the ray tokens that are drawn on the object, if its silhouette is known."""


class PreparedViews(NamedTuple):
    """Images of a scene, padded for windows, and their cameras.

    Attributes:
        fine: Colours − 1, with a margin of `MARGIN` pixels on all sides.
        coarse: The same, averaged over `STEP` × `STEP` pixels about each one.
        cameras: The cameras.
    """

    fine: Float[np.ndarray, "views rows columns 3"]
    coarse: Float[np.ndarray, "views rows columns 3"]
    cameras: Cameras


class Seen(NamedTuple):
    """What the views show of points.

    Attributes:
        place: (x / z, y / z) in the frame of each camera.
        pixel: (x, y) in the image, 0 at the centre of the first pixel, 1 at that of the last; of points outside, at its edge.
        patch: The windows about the pixel.
        mask: Whether the point is in the image.
    """

    place: Float[np.ndarray, "points views 2"]
    pixel: Float[np.ndarray, "points views 2"]
    patch: Float[np.ndarray, "points views features"]
    mask: Bool[np.ndarray, "points views"]


def prepared_views(images: Float[np.ndarray, "views height width 3"], cameras: Cameras) -> PreparedViews:
    """Pad and average images once, for all windows that will be cut out of them."""
    sides = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    fine = np.pad(np.asarray(images, np.float32) - 1, sides)
    total, half = np.zeros_like(fine), STEP // 2
    for row in range(-half, half):
        for column in range(-half, half):
            total += np.roll(fine, (row, column), axis=(1, 2))
    return PreparedViews(fine, total / STEP**2, cameras)


def seen_at(views: PreparedViews, points: Float[np.ndarray, "points 3"]) -> Seen:
    """What each view shows where points project to."""
    cameras = views.cameras
    local = np.einsum("vji,pvj->pvi", cameras.rotation, points[:, None] - np.asarray(cameras.centre)[None])
    front = local[..., 2] > 0
    depth = np.where(front, local[..., 2], 1)[..., None]
    seen = np.einsum("vij,pvj->pvi", cameras.intrinsics, local)
    size = np.array([cameras.width, cameras.height])
    relative = np.clip((seen[..., :2] / depth - 0.5) / (size - 1), 0, 1)
    pixel = np.floor(seen[..., :2] / depth).astype(int)
    mask = front & ((pixel >= 0) & (pixel < size)).all(-1)
    column, row = np.moveaxis(np.clip(pixel, 0, size - 1), -1, 0)
    view = np.broadcast_to(np.arange(len(views.fine)), row.shape)
    patch = [
        _windows(views.fine, view, row, column, VIEW_WINDOW, 1),
        _windows(views.coarse, view, row, column, VIEW_WINDOW, STEP),
    ]
    return Seen(local[..., :2] / depth, relative, np.concatenate(patch, axis=-1), mask)


def scene_inputs(
    views: PreparedViews,
    points: Float[np.ndarray, "points 3"],
    seen: Seen,
    pixels: Int[np.ndarray, " rays"],
    dtype: DTypeLike = np.float32,
) -> SceneInputs:
    """Everything that a model is given.

    Args:
        views: The views.
        points: Query points.
        seen: What the views show of them.
        pixels: Numbers of the pixels whose rays become tokens, counted through all images.
        dtype: Precision.
    """
    cameras = views.cameras
    rotation, centre = np.asarray(cameras.rotation), np.asarray(cameras.centre)
    view, row, column = np.unravel_index(pixels, (len(centre), cameras.height, cameras.width))
    place = np.stack([column + 0.5, row + 0.5, np.ones(len(pixels))], axis=-1)
    local = np.einsum("rij,rj->ri", np.linalg.inv(cameras.intrinsics)[view], place)
    direction = np.einsum("rij,rj->ri", rotation[view], local / np.linalg.norm(local, axis=-1, keepdims=True))
    between = points[:, None] - centre[None]
    depth = np.linalg.norm(between, axis=-1)
    images = views.fine[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

    def given(array: np.ndarray) -> np.ndarray:
        return np.asarray(array, dtype)

    return SceneInputs(
        direction=given(direction),
        centre=given(centre[view]),
        patch=given(_windows(views.fine, view, row, column, RAY_WINDOW, 1)),
        pixel=np.asarray(pixels, np.int32),
        points=given(points),
        view_direction=given(between / depth[..., None]),
        view_depth=given(depth),
        view_place=given(seen.place),
        view_pixel=given(seen.pixel),
        view_centre=given(centre),
        view_patch=given(seen.patch),
        view_mask=seen.mask,
        images=given(images),
    )


def drawn_pixels(
    silhouettes: Bool[np.ndarray, "views height width"] | None, count: int, total: int, rng: np.random.Generator
) -> Int[np.ndarray, " rays"]:
    """Numbers of pixels for ray tokens, `ON_OBJECT` of them on the object if there are enough."""
    if silhouettes is None:
        return rng.choice(total, count, replace=False)
    hit, miss = np.flatnonzero(silhouettes.ravel()), np.flatnonzero(~silhouettes.ravel())
    on = max(min(int(ON_OBJECT * count), len(hit)), count - len(miss))
    return np.concatenate([rng.choice(hit, on, replace=False), rng.choice(miss, count - on, replace=False)])


def stacked(parts: Sequence[SceneInputs]) -> SceneInputs:
    """Scenes along a first axis."""
    return SceneInputs(*(np.stack(arrays) for arrays in zip(*parts)))


def _windows(
    images: np.ndarray, view: np.ndarray, row: np.ndarray, column: np.ndarray, side: int, step: int
) -> Float[np.ndarray, "*pixels features"]:
    offsets = step * (np.arange(side) - side // 2) + MARGIN
    rows, columns = row[..., None, None] + offsets[:, None], column[..., None, None] + offsets
    return images[view[..., None, None], rows, columns].reshape(*row.shape, -1)
