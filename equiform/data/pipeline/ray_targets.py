"""From calibrated views to `TargetRays`: the rays of a view, sampled, with the views nearest to it as sources."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import DTypeLike

from equiform.algebra.cameras import Cameras, common_frame, framed
from equiform.data.formats.cameras import Views
from equiform.models.ray_radiance import TargetRays


def in_own_frame(views: Views) -> Views:
    """The views with the origin where their cameras look, and their mean distance from there as the unit of length."""
    return views._replace(cameras=framed(views.cameras, common_frame(views.cameras, 1.0)))


def background_of(views: Views) -> float:
    """0 for photographs before black, 1 before white: the median of the borders, rounded."""
    images = views.images
    border = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    return float(np.median(np.concatenate([part.reshape(-1) for part in border])) > 0.5)


def nearest_views(cameras: Cameras, target: int, among: Sequence[int], count: int) -> list[int]:
    """The views whose directions from the origin are closest to that of the target, without itself."""
    outward = np.asarray(cameras.centre) / np.linalg.norm(np.asarray(cameras.centre), axis=1, keepdims=True)
    others = [view for view in among if view != target]
    return sorted(others, key=lambda view: -float(outward[view] @ outward[target]))[:count]


def target_rays(
    views: Views,
    target: int,
    sources: Sequence[int],
    pixels: Int[np.ndarray, " rays"],
    depth_range: tuple[float, float],
    num_samples: int,
    dtype: DTypeLike = np.float32,
) -> TargetRays:
    """Rays of some pixels of a view.

    Args:
        views: Views in their own frame.
        target: The view to be rendered; its image is not read.
        sources: The views to render from.
        pixels: Numbers of the pixels, row by row.
        depth_range: Nearest and farthest sample.
        num_samples: Samples of a ray, uniform in the inverse of the distance.
        dtype: Precision.
    """
    cameras = views.cameras
    rotation, centre = np.asarray(cameras.rotation), np.asarray(cameras.centre)
    intrinsics = np.array(cameras.intrinsics)
    row, column = np.divmod(pixels, cameras.width)
    place = np.stack([column + 0.5, row + 0.5, np.ones(len(pixels))], axis=-1)
    direction = place @ np.linalg.inv(intrinsics[target]).T @ rotation[target].T
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    depths = np.broadcast_to(sampled_depths(depth_range, num_samples), (len(pixels), num_samples))
    samples = centre[target] + depths[..., None] * direction[:, None]
    intrinsics[:, :2, 2] -= 0.5
    chosen = list(sources)
    arrays = samples, depths, centre[target], rotation[target, :, 0]
    arrays += (views.images[chosen], rotation[chosen], centre[chosen], intrinsics[chosen])
    return TargetRays(*(np.asarray(array, dtype) for array in arrays))


def sampled_depths(depth_range: tuple[float, float], num_samples: int) -> Float[np.ndarray, " samples"]:
    """Distances from near to far, uniform in their inverse."""
    near, far = depth_range
    return 1 / np.linspace(1 / near, 1 / far, num_samples)
