"""Pinhole cameras: rays of pixels, and pixels of points.

A camera is a rotation R with columns x (right), y (down), z (forward), a centre C and a matrix K. Camera coordinates q belong
to the point p = R q + C of the world, which appears at (u, v) = (K q)_{1,2} / (K q)_3. Whether pixels have their centres at
whole numbers or half-way depends on K; `pixel_rays` takes it as an argument.

Source: the convention of OpenCV. NeRF's files have y up and z backward (see `data.formats.cameras`).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.pluecker import Rays, rays_through
from equiform.errors import UserError

AnyArray = Array | np.ndarray

TOLERANCE = 1e-4
"""Largest |RᵀR − 1| of a rotation; published calibrations have up to 1.5e-6."""


class Cameras(eqx.Module):
    """Cameras that look at one scene.

    Attributes:
        rotation: R, from camera to world.
        centre: C, the centre of projection.
        intrinsics: K, upper triangular, in pixels.
        height: Rows of the images.
        width: Columns of the images.
    """

    rotation: Float[AnyArray, "views 3 3"]
    centre: Float[AnyArray, "views 3"]
    intrinsics: Float[AnyArray, "views 3 3"]
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)


def pixel_rays(cameras: Cameras, *, pixel_centre: float = 0.5) -> Rays:
    """The ray of each pixel as (views, height, width), d = R normalise(K⁻¹ (u, v, 1)).

    Args:
        cameras: The cameras.
        pixel_centre: (u, v) of the centre of the first pixel.
    """
    dtype = cameras.centre.dtype
    u, v = (jnp.arange(size, dtype=dtype) + jnp.asarray(pixel_centre, dtype) for size in (cameras.width, cameras.height))
    columns, rows = jnp.meshgrid(u, v)
    pixels = jnp.stack([columns, rows, jnp.ones_like(columns)], axis=-1)
    inverse = jnp.linalg.inv(cameras.intrinsics)
    directions = jnp.einsum("vij,vjk,hwk->vhwi", cameras.rotation, inverse, pixels)
    return rays_through(jnp.broadcast_to(cameras.centre[:, None, None], directions.shape), directions)


def project(
    cameras: Cameras, points: Float[Array, "*points 3"]
) -> tuple[Float[Array, "*points views 2"], Float[Array, "*points views"]]:
    """Where points appear in each view, and how far in front of the camera, (u, v) and q_z.

    Points behind a camera have a negative q_z and a (u, v) without meaning.
    """
    between = points[..., None, :] - cameras.centre.reshape((1,) * (points.ndim - 1) + cameras.centre.shape)
    seen = jnp.einsum("vij,vkj,...vk->...vi", cameras.intrinsics, cameras.rotation, between)
    depth = seen[..., 2]
    return seen[..., :2] / jnp.where(depth > 1e-8, depth, 1e-8)[..., None], depth


def moved(cameras: Cameras, rotation: Float[Array, "3 3"], translation: Float[Array, "3"]) -> Cameras:
    """The cameras after a rigid motion of the world, p → R p + t."""
    centre = cameras.centre @ rotation.T
    return Cameras(
        rotation @ cameras.rotation,
        centre + jnp.broadcast_to(translation, centre.shape),
        cameras.intrinsics,
        cameras.height,
        cameras.width,
    )


class Frame(NamedTuple):
    """A similarity, p ↦ (p − origin) / length.

    Attributes:
        origin: The point that becomes the origin.
        length: The length that becomes 1.
    """

    origin: Float[np.ndarray, "3"]
    length: float


def common_frame(cameras: Cameras, distance: float) -> Frame:
    """The frame in which the optical axes meet about the origin and the cameras are `distance` away, in the mean.

    Equivariant: it moves with the cameras. Reads values: call it outside `jit`.

    Raises:
        UserError: All axes are parallel, or the cameras stand where their axes meet.
    """
    axes, centres = np.asarray(cameras.rotation, float)[:, :, 2], np.asarray(cameras.centre, float)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    matrix = across.sum(0)
    if np.linalg.eigvalsh(matrix)[0] < 1e-6 * len(axes):
        raise UserError("the cameras look in parallel directions, so they have no common point; give views from several sides")
    origin = np.linalg.solve(matrix, np.einsum("vij,vj->i", across, centres))
    mean = float(np.linalg.norm(centres - origin, axis=1).mean())
    if mean == 0:
        raise UserError("the cameras stand where their axes meet, so the scene has no extent; give views from several sides")
    return Frame(origin, mean / distance)


def framed(cameras: Cameras, frame: Frame) -> Cameras:
    """The cameras in another frame; their images stay."""
    centre = (np.asarray(cameras.centre) - frame.origin) / frame.length
    return Cameras(cameras.rotation, centre, cameras.intrinsics, cameras.height, cameras.width)


def check_cameras(cameras: Cameras, images: Any = None, *, names: list[str] | None = None) -> None:
    """Refuse anything but a set of calibrated views. Reads values: call it outside `jit`.

    Args:
        cameras: The cameras.
        images: Their images (views, height, width, channels), if at hand.
        names: What to call the views in errors, by default their numbers.

    Raises:
        UserError: Fewer than two views, a matrix that is no rotation, or images that do not fit.
    """
    count = len(cameras.centre)
    named = names or [f"view {i}" for i in range(count)]
    if count < 2:
        raise UserError(f"a scene needs at least two views; received {count}")
    rotation = np.asarray(cameras.rotation, float)
    for name, matrix in zip(named, rotation):
        error = np.abs(matrix.T @ matrix - np.eye(3)).max()
        if not error <= TOLERANCE or np.linalg.det(matrix) < 0:
            raise UserError(
                f"the orientation of {name} is no rotation: |RᵀR − 1| = {error:.2g}, determinant {np.linalg.det(matrix):.3g}; "
                "give a proper rotation from camera to world (a scale or a mirror must be taken out first)"
            )
    for name, matrix, centre in zip(named, np.asarray(cameras.intrinsics, float), np.asarray(cameras.centre, float)):
        if not (np.isfinite(matrix).all() and np.isfinite(centre).all() and matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise UserError(f"{name} has no usable focal lengths or centre: K = {matrix.tolist()}, C = {centre.tolist()}")
    if images is not None and tuple(np.shape(images)[:3]) != (count, cameras.height, cameras.width):
        raise UserError(
            f"the images do not fit the cameras: {np.shape(images)[0]} of {np.shape(images)[1]} × {np.shape(images)[2]} pixels "
            f"(rows × columns) for {count} cameras of {cameras.height} × {cameras.width}; scale K with the images"
        )
