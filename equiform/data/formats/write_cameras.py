"""Writing calibrated views as NeRF's `transforms.json` with PNG images."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from equiform.algebra.cameras import Cameras
from equiform.runtime.files import explained, to_json, write_atomically


def write_transforms(
    folder: Path, images: Float[np.ndarray, "views height width 3"], cameras: Cameras, names: list[str] | None = None
) -> Path:
    """Write `transforms.json` and one image per view.

    Args:
        folder: Where; made if it is not there.
        images: Colours, 0 … 1.
        cameras: Their cameras, pixel centres half-way.
        names: Of the images, without a suffix.

    Returns:
        The JSON file.

    Raises:
        UserError: It cannot be written.
    """
    names = names or [f"view-{number:02d}" for number in range(len(images))]
    frames = []
    for name, rotation, centre, k in zip(names, *map(np.asarray, (cameras.rotation, cameras.centre, cameras.intrinsics))):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation * np.array([1, -1, -1]), centre
        focal = {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": cameras.width, "h": cameras.height}
        frames.append({"file_path": f"{name}.png", "transform_matrix": pose.tolist(), **focal})
    with explained(f"cannot write {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, images):
            write_png(folder / f"{name}.png", image)
        write_atomically(folder / "transforms.json", to_json({"frames": frames}))
    return folder / "transforms.json"


def write_png(path: Path, image: Float[np.ndarray, "height width 3"]) -> None:
    """Write colours 0 … 1 as bytes."""
    buffer = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8)).save(buffer, "png")
    write_atomically(path, buffer.getvalue())
