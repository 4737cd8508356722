"""Scenes of a few solids given by signed distances: rendered by sphere tracing, and carved from silhouettes.

Kinds of solids: 0 sphere of radius size[0]; 1 box of half sizes `size`; 2 torus about z, ring of radius size[0], tube size[1].
Colour is Lambertian, albedo (0.3 + 0.7 max(0, n · l)), on white.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SPHERE, BOX, TORUS = 0, 1, 2
SURFACE = 1e-5
"""A ray that comes nearer than this has met the surface, and takes that last step."""
NORMAL_STEP = 1e-5
"""Step of the central differences of normals."""


class Scene(NamedTuple):
    """Solids and a distant light.

    Attributes:
        kind: 0 sphere, 1 box, 2 torus.
        centre: Centres.
        rotation: From the frame of each solid to the world.
        size: Radii or half sizes, see above.
        albedo: Colours, 0 … 1.
        light: Unit vector towards the light.
    """

    kind: Int[np.ndarray, " solids"]
    centre: Float[np.ndarray, "solids 3"]
    rotation: Float[np.ndarray, "solids 3 3"]
    size: Float[np.ndarray, "solids 3"]
    albedo: Float[np.ndarray, "solids 3"]
    light: Float[np.ndarray, "3"]

    def moved(self, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]) -> "Scene":
        """The scene and its light after p → R p + t."""
        centre = self.centre @ rotation.T + translation
        return self._replace(centre=centre, rotation=rotation @ self.rotation, light=rotation @ self.light)


class Traced(NamedTuple):
    """What rays see.

    Attributes:
        rgb: Colours, 0 … 1; white where no surface is hit.
        depth: Length to the surface, 0 where none is hit.
        hit: Whether there is a surface.
    """

    rgb: Float[np.ndarray, "rays 3"]
    depth: Float[np.ndarray, " rays"]
    hit: Bool[np.ndarray, " rays"]


def distances(scene: Scene, points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "*points solids"]:
    """Signed distance to each solid, negative inside."""
    columns = []
    for kind, centre, rotation, size in zip(scene.kind, scene.centre, scene.rotation, scene.size):
        q = (points - centre) @ rotation
        if kind == SPHERE:
            columns.append(np.linalg.norm(q, axis=-1) - size[0])
        elif kind == BOX:
            outside = np.abs(q) - size
            columns.append(np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0))
        else:
            ring = np.linalg.norm(q[..., :2], axis=-1) - size[0]
            columns.append(np.hypot(ring, q[..., 2]) - size[1])
    return np.stack(columns, axis=-1)


def signed_distance(scene: Scene, points: Float[np.ndarray, "*points 3"]) -> Float[np.ndarray, "*points"]:
    """Of the union of the solids: exact outside, a bound inside."""
    return distances(scene, points).min(axis=-1)


def normals(scene: Scene, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """Unit gradients of the signed distance, by central differences."""
    steps = NORMAL_STEP * np.eye(3)
    gradient = np.stack([signed_distance(scene, points + s) - signed_distance(scene, points - s) for s in steps], axis=-1)
    return gradient / np.maximum(np.linalg.norm(gradient, axis=-1, keepdims=True), 1e-300)


def trace(
    scene: Scene, origins: Float[np.ndarray, "rays 3"], directions: Float[np.ndarray, "rays 3"], *, far: float = 8.0
) -> Traced:
    """Follow rays to the first surface.

    Args:
        scene: The scene.
        origins: Where rays start, outside of the solids.
        directions: Unit vectors.
        far: Largest length of a ray.
    """
    depth, hit, alive = np.zeros(len(origins)), np.zeros(len(origins), bool), np.arange(len(origins))
    # A ray that grazes a surface takes many short steps; it counts as a miss after 512.
    for _ in range(512):
        step = signed_distance(scene, origins[alive] + depth[alive, None] * directions[alive])
        met = step < SURFACE
        hit[alive[met]] = True
        depth[alive] += step
        alive = alive[~met & (depth[alive] < far)]
        if not len(alive):
            break
    depth = np.where(hit, depth, 0)
    rgb = np.ones((len(origins), 3))
    points = origins[hit] + depth[hit, None] * directions[hit]
    albedo = scene.albedo[distances(scene, points).argmin(axis=-1)] if hit.any() else np.zeros((0, 3))
    rgb[hit] = albedo * (0.3 + 0.7 * np.maximum(0, normals(scene, points) @ scene.light))[:, None]
    return Traced(rgb, depth, hit)


def visual_hull(
    points: Float[np.ndarray, "points 3"],
    rotation: Float[np.ndarray, "views 3 3"],
    centre: Float[np.ndarray, "views 3"],
    intrinsics: Float[np.ndarray, "views 3 3"],
    silhouettes: Bool[np.ndarray, "views height width"],
) -> Bool[np.ndarray, " points"]:
    """Whether every view shows the object where the point projects to: what silhouettes alone say.

    Args:
        points: The query points.
        rotation: From camera to world.
        centre: Centres of projection.
        intrinsics: K, pixel centres half-way.
        silhouettes: Where the images show the object.
    """
    inside = np.ones(len(points), bool)
    height, width = silhouettes.shape[1:]
    for matrix, origin, k, mask in zip(rotation, centre, intrinsics, silhouettes):
        seen = (points - origin) @ matrix @ k.T
        front = seen[:, 2] > 0
        column, row = np.floor(seen[:, :2] / np.where(front, seen[:, 2], 1)[:, None]).astype(int).T
        within = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        inside &= within & mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return inside
