"""A trained model of scenes on calibrated views: the surface of what it takes to be solid, or a view from each camera."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from equiform.algebra.cameras import Frame, common_frame, framed
from equiform.data.formats.cameras import Views
from equiform.data.formats.write_cameras import write_png
from equiform.data.pipeline.ray_targets import background_of, in_own_frame, nearest_views, target_rays
from equiform.data.pipeline.ray_tokens import PreparedViews, drawn_pixels, prepared_views, scene_inputs, seen_at
from equiform.errors import UserError
from equiform.persist.scene_model_file import is_scene_model
from equiform.runtime.files import explained, to_json, write_atomically
from equiform.tasks.occupancy import Occupancy
from equiform.tasks.radiance import Radiance

CHUNK = 1024
"""Points looked at, or a quarter of the rays rendered, at once."""
DARK = 40 / 255
"""Photographs before black show the background where no colour is brighter than this."""
CONTRAST = 0.02
"""A pixel shows the object where a colour differs from white by more."""

Progress = Callable[[int, int], Any]


class Mesh(NamedTuple):
    """A surface of triangles.

    Attributes:
        vertices: In the coordinates of the scene.
        faces: Numbers of three vertices each; the outside sees them counterclockwise.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]


def find_scene_model(path: Path) -> Path | None:
    """The model of scenes in a folder, or in a run of a study; None if there is none.

    Raises:
        UserError: A run has several.
    """
    if is_scene_model(path):
        return path
    found = [place for place in sorted(path.iterdir()) if place.is_dir() and is_scene_model(place)] if path.is_dir() else []
    own = [place for place in found if place.name.startswith("ray-")]
    if len(own) > 1 or (found and not own):
        raise UserError(f"{path} has several models ({', '.join(place.name for place in found)}); name the folder of one")
    return own[0] if own else None


def on_white(views: Views) -> Views:
    """Photographs before black with the background made white, as models of occupancy know it; others unchanged."""
    if background_of(views) > 0.5:
        return views
    dark = views.images.max(axis=-1, keepdims=True) <= DARK
    return views._replace(images=np.where(dark, 1.0, views.images))


def predict_mesh(
    task: Occupancy,
    views: Views,
    *,
    rays: int,
    resolution: int = 48,
    half_side: float = 1.0,
    progress: Progress | None = None,
) -> Mesh:
    """The surface between inside and outside, by marching cubes on a cubic grid.

    Args:
        task: The model.
        views: Views of the scene.
        rays: Ray tokens.
        resolution: Points on each edge of the cube.
        half_side: Half of its side, in the frame in which cameras are `task.distance` away from where they look.
        progress: Progress callback, in points.

    Raises:
        UserError: scikit-image is missing, the views have fewer pixels than rays, or nothing is inside, or all is.
    """
    frame = common_frame(views.cameras, task.distance)
    views = on_white(views)
    silhouettes = np.abs(views.images - 1).max(axis=-1) > CONTRAST
    if silhouettes.size < rays:
        raise UserError(f"the views have {silhouettes.size} pixels together, fewer than the {rays} rays that the model reads")
    prepared = prepared_views(views.images, framed(views.cameras, frame))
    pixels = drawn_pixels(silhouettes, rays, silhouettes.size, np.random.default_rng(0))
    edge = np.linspace(-half_side, half_side, resolution)
    points = np.stack(np.meshgrid(edge, edge, edge, indexing="ij"), axis=-1).reshape(-1, 3)
    values = values_at(task, prepared, pixels, points, progress=progress).reshape(resolution, resolution, resolution)
    return surface(values, task.level, half_side, frame, inside_above=task.quantity == "occupancy")


def surface(values: Float[np.ndarray, "n n n"], level: float, half_side: float, frame: Frame, *, inside_above: bool) -> Mesh:
    """Where values on a cubic grid cross a level, in the coordinates of the scene.

    Args:
        values: At the points of the grid.
        level: The value of the surface.
        half_side: Half of the side of the cube.
        frame: Its frame.
        inside_above: Whether larger values are inside.

    Raises:
        UserError: scikit-image is missing, or the values do not cross the level.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise UserError("meshes need scikit-image; install it with: pip install 'equiform[rays]'") from None
    if not values.min() < level < values.max():
        where = "everything" if (values.min() >= level) == inside_above else "nothing"
        raise UserError(
            f"the model takes {where} in the cube to be inside, so there is no surface; is the scene in its middle?"
        )
    spacing = (2 * half_side / (len(values) - 1),) * 3
    # The names of the directions are those of scikit-image, whose axes are left-handed; a test looks at the sign of the volume.
    direction = "ascent" if inside_above else "descent"
    vertices, faces, _, _ = marching_cubes(values, level, spacing=spacing, gradient_direction=direction)
    points = vertices.astype(float) - half_side
    return Mesh(points * frame.length + frame.origin, faces.astype(np.int32))


def values_at(
    task: Occupancy,
    views: PreparedViews,
    pixels: Int[np.ndarray, " rays"],
    points: Float[np.ndarray, "points 3"],
    *,
    progress: Progress | None = None,
) -> Float[np.ndarray, " points"]:
    """What the task predicts at points, in chunks of points."""
    run = eqx.filter_jit(lambda task, scene: task.predict(scene))
    found = []
    for first in range(0, len(points), CHUNK):
        # The last chunk ends at the last point, so that one program serves all.
        chosen = points[np.minimum(np.arange(first, first + CHUNK), len(points) - 1)]
        given = scene_inputs(views, chosen, seen_at(views, chosen), pixels)
        with jax.enable_x64(False):  # as it was trained
            found.append(np.asarray(run(task, given)))
        if progress is not None:
            progress(min(first + CHUNK, len(points)), len(points))
    return np.concatenate(found)[: len(points)].astype(float)


def write_ply(path: Path, mesh: Mesh) -> None:
    """Write a mesh as binary PLY, which most viewers read.

    Raises:
        UserError: The file cannot be written.
    """
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment written by Equiform\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    triangles = b"".join(struct.pack("<B3i", 3, *map(int, face)) for face in mesh.faces)
    with explained(f"cannot write {path}", "free some space or choose another place"):
        write_atomically(path, header.encode() + mesh.vertices.astype("<f4").tobytes() + triangles)


def rendered(
    task: Radiance,
    views: Views,
    target: int,
    sources: Sequence[int],
    *,
    progress: Progress | None = None,
) -> Float[np.ndarray, "height width 3"]:
    """The picture of a view from others; all are in their own frame."""
    run = eqx.filter_jit(lambda task, rays: task(rays))
    height, width, chunk = views.cameras.height, views.cameras.width, CHUNK // 4
    samples, rows = task.model.config.head.num_samples, []
    for first in range(0, height * width, chunk):
        pixels = np.minimum(np.arange(first, first + chunk), height * width - 1)
        rays = target_rays(views, target, sources, pixels, task.depth_range, samples)
        with jax.enable_x64(False):  # as it was trained
            rows.append(np.asarray(run(task, rays)))
        if progress is not None:
            progress(min(first + chunk, height * width), height * width)
    return np.concatenate(rows)[: height * width].reshape(height, width, 3).astype(float)


def psnr(image: Float[np.ndarray, "height width 3"], truth: Float[np.ndarray, "height width 3"]) -> float:
    """Peak signal-to-noise ratio, dB: −10 log₁₀ of the mean squared error of colours 0 … 1."""
    return float(-10 * np.log10(((np.clip(image, 0, 1) - truth) ** 2).mean()))


def predict_views(
    task: Radiance, views: Views, folder: Path, *, sources: int, progress: Progress | None = None
) -> dict[str, float]:
    """Every view from those nearest to it, as pictures beside the truth.

    Args:
        task: The model.
        views: Views of the scene.
        folder: Where the pictures and `psnr.json` go.
        sources: Source views of a picture.
        progress: Progress callback, in views.

    Returns:
        PSNR of each view, dB.
    """
    own, found = in_own_frame(views), {}
    count = len(own.images)
    with explained(f"cannot write {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    for target, name in enumerate(own.names):
        chosen = nearest_views(own.cameras, target, range(count), sources)
        image = rendered(task, own, target, chosen)
        stem = Path(name).stem
        with explained(f"cannot write {folder}", "free some space or choose another folder"):
            write_png(folder / f"{stem}.png", np.concatenate([image, own.images[target]], axis=1))
        found[stem] = psnr(image, own.images[target])
        if progress is not None:
            progress(target + 1, count)
    write_atomically(folder / "psnr.json", to_json(found))
    return found
