"""Pictures of scenes: some of the views beside the predicted surface."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from equiform.report.plots import COLOURS

MOST_VIEWS = 4


def draw_surface(
    path: Path,
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    images: Float[np.ndarray, "views height width 3"],
    centre: Float[np.ndarray, "3"],
) -> Path:
    """The first views, and the surface as the first camera sees it, roughly.

    Args:
        path: PNG file to write.
        vertices: Of the mesh.
        faces: Of the mesh.
        images: The views, 0 … 1.
        centre: Of the first camera, in the coordinates of the mesh.
    """
    from matplotlib.figure import Figure

    count = min(len(images), MOST_VIEWS)
    figure = Figure(figsize=(2.2 * count + 4, 3.6), layout="constrained")
    grid = figure.add_gridspec(1, count + 2)
    for view in range(count):
        axes = figure.add_subplot(grid[0, view])
        axes.imshow(np.clip(images[view], 0, 1), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(f"view {view + 1}")
    outward = centre - vertices.mean(0)
    elevation = np.degrees(np.arcsin(outward[2] / np.linalg.norm(outward)))
    azimuth = np.degrees(np.arctan2(outward[1], outward[0]))
    space = figure.add_subplot(grid[0, count:], projection="3d")
    space.view_init(elev=float(elevation), azim=float(azimuth))  # pyright: ignore[reportAttributeAccessIssue]
    space.plot_trisurf(  # pyright: ignore[reportAttributeAccessIssue]
        *vertices.T, triangles=faces, color=COLOURS[0], linewidth=0, antialiased=False
    )
    space.set_aspect("equal")
    space.set_title("predicted surface")
    figure.savefig(path, dpi=110)
    return path
