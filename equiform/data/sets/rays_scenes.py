"""Procedural scenes of one to three solids with calibrated views: a data set for reconstruction that is made from nothing.

Scenes stand upright (solids turn about z only, cameras look from above), so the frame of the world carries
information. Protocol "I" is this distribution; "SO(3)" moves scene, cameras and light by one random rotation and shift.
An invariant model cannot tell them apart; a model of world coordinates that was trained on "I" loses on "SO(3)". With
isotropic scenes there would be no gap to show.

Every sample follows from (seed of the split, number), so each can be generated separately. Motions do not touch images: cameras
and points are moved, without rendering again.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from equiform.data.pipeline.rotate import random_rotations
from equiform.data.sets.sphere_tracing import BOX, SPHERE, TORUS, Scene, normals, signed_distance, trace
from equiform.errors import UserError

Protocol = Literal["I", "SO(3)"]
SPLITS = {"train": (1, 2000), "validation": (2, 200), "test": (3, 200)}
"""Seed and number of scenes of each split."""
CAMERA_DISTANCE, FIELD_OF_VIEW = 3.0, 40.0
LIGHT = (0.36, 0.48, 0.8)
NEAR_SURFACE, SHIFT = 0.05, 0.5
"""Standard deviations of the points about the surface, and of the shift of protocol SO(3), per axis."""


class RayScene(NamedTuple):
    """One sample.

    Attributes:
        images: Views, 0 … 1, on white.
        silhouettes: Where a ray meets a solid.
        rotation: From each camera to the world (x right, y down, z forward).
        centre: Centres of projection.
        intrinsics: K, pixel centres half-way; the same for all views.
        points: Query points, the first half uniform in the cube [−1, 1]³ of the upright scene, the others near the surface.
        signed_distance: At the points, negative inside.
        target_image: One more view, for rendering.
        target_rotation: Its camera.
        target_centre: Its camera.
    """

    images: Float[np.ndarray, "views pixels pixels 3"]
    silhouettes: Bool[np.ndarray, "views pixels pixels"]
    rotation: Float[np.ndarray, "views 3 3"]
    centre: Float[np.ndarray, "views 3"]
    intrinsics: Float[np.ndarray, "3 3"]
    points: Float[np.ndarray, "points 3"]
    signed_distance: Float[np.ndarray, " points"]
    target_image: Float[np.ndarray, "pixels pixels 3"]
    target_rotation: Float[np.ndarray, "3 3"]
    target_centre: Float[np.ndarray, "3"]

    def moved(self, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]) -> "RayScene":
        """The sample after a rigid motion of scene, cameras and light; the images stay."""
        return self._replace(
            rotation=rotation @ self.rotation,
            centre=self.centre @ rotation.T + translation,
            points=self.points @ rotation.T + translation,
            target_rotation=rotation @ self.target_rotation,
            target_centre=rotation @ self.target_centre + translation,
        )


def make_sample(
    split: str, number: int, *, protocol: Protocol = "I", views: int = 4, pixels: int = 24, num_points: int = 400
) -> RayScene:
    """Sample `number` of a split.

    Args:
        split: "train", "validation" or "test".
        number: From 0.
        protocol: "I", upright; "SO(3)", after a random motion.
        views: Views of the scene, at least two.
        pixels: Rows and columns of the images.
        num_points: Query points.

    Raises:
        UserError: No such split or number, or fewer than two views.
    """
    if split not in SPLITS or not 0 <= number < SPLITS[split][1]:
        known = ", ".join(f"{name} 0 … {count - 1}" for name, (_, count) in SPLITS.items())
        raise UserError(f"rays-scenes has no sample {number} of '{split}'; there are {known}")
    if views < 2:
        raise UserError(f"a scene needs at least two views; received {views}")
    rng = np.random.default_rng([SPLITS[split][0], number])
    motion_rng, rng = rng.spawn(2)
    scene = draw_scene(rng)
    rotation, centre = draw_cameras(rng, views + 1)
    focal = 0.5 * pixels / np.tan(np.radians(FIELD_OF_VIEW / 2))
    intrinsics = np.array([[focal, 0, pixels / 2], [0, focal, pixels / 2], [0, 0, 1]])
    directions = pixel_directions(rotation, intrinsics, pixels)
    origins = np.broadcast_to(centre[:, None, None], directions.shape)
    traced = trace(scene, origins.reshape(-1, 3), directions.reshape(-1, 3))
    images = traced.rgb.reshape(views + 1, pixels, pixels, 3)
    silhouettes = traced.hit.reshape(views + 1, pixels, pixels)
    points = draw_points(rng, scene, num_points)
    sample = RayScene(
        images=images[:views],
        silhouettes=silhouettes[:views],
        rotation=rotation[:views],
        centre=centre[:views],
        intrinsics=intrinsics,
        points=points,
        signed_distance=signed_distance(scene, points),
        target_image=images[views],
        target_rotation=rotation[views],
        target_centre=centre[views],
    )
    if protocol == "I":
        return sample
    return sample.moved(random_rotations(1, motion_rng)[0], motion_rng.normal(scale=SHIFT, size=3))


def draw_scene(rng: np.random.Generator) -> Scene:
    """One to three solids, turned about z only."""
    count = int(rng.integers(1, 4))
    kinds, sizes, rotations = rng.integers(0, 3, count), np.zeros((count, 3)), np.zeros((count, 3, 3))
    for kind, size, rotation in zip(kinds, sizes, rotations):
        if kind == SPHERE:
            size[0] = rng.uniform(0.2, 0.45)
        elif kind == BOX:
            size[:] = rng.uniform(0.15, 0.4, 3)
        elif kind == TORUS:
            size[:2] = rng.uniform(0.25, 0.4), rng.uniform(0.07, 0.15)
        angle = rng.uniform(0, 2 * np.pi)
        rotation[:] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    centres = rng.uniform(-0.4, 0.4, (count, 3))
    return Scene(kinds, centres, rotations, sizes, rng.uniform(0.2, 1.0, (count, 3)), np.array(LIGHT))


def draw_cameras(rng: np.random.Generator, count: int) -> tuple[Float[np.ndarray, "views 3 3"], Float[np.ndarray, "views 3"]]:
    """Cameras that look at the origin from elevations of 10° to 60° and any side, upright: rotations and centres."""
    elevation, azimuth = np.radians(rng.uniform(10, 60, count)), rng.uniform(0, 2 * np.pi, count)
    outward = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(count)], axis=-1)
    return np.stack([right, np.cross(-outward, right), -outward], axis=-1), CAMERA_DISTANCE * outward


def draw_points(rng: np.random.Generator, scene: Scene, count: int) -> Float[np.ndarray, "points 3"]:
    """Half uniform in [−1, 1]³, half normally distributed about the surface."""
    points = rng.uniform(-1, 1, (count, 3))
    near = points[count - count // 2 :]
    # The distance is exact outside, so few steps along the gradient end on the surface.
    for _ in range(8):
        near -= signed_distance(scene, near)[:, None] * normals(scene, near)
    near += rng.normal(scale=NEAR_SURFACE, size=near.shape)
    return points


def pixel_directions(
    rotation: Float[np.ndarray, "views 3 3"], intrinsics: Float[np.ndarray, "3 3"], pixels: int
) -> Float[np.ndarray, "views pixels pixels 3"]:
    """Unit directions of all pixels in the world."""
    columns, rows = np.meshgrid(np.arange(pixels) + 0.5, np.arange(pixels) + 0.5)
    local = np.stack([columns, rows, np.ones_like(columns)], axis=-1) @ np.linalg.inv(intrinsics).T
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    return np.einsum("vij,hwj->vhwi", rotation, local)
