"""Calibrated photographs: `transforms.json` as NeRF has it, and the parameter files of the Middlebury multi-view sets.

    transforms.json    camera_angle_x, or fl_x fl_y cx cy (for all frames or each); frames with file_path and transform_matrix,
                       camera to world, axes x right, y up, z backward. Pixel centres half-way. Transparent parts become white.
    NAME_par.txt       number of images; then per line: file, K, R (rows), t with p_camera = R p + t, axes x right, y down,
                       z forward. Pixel centres at whole numbers, so ½ is added to c_x and c_y here.
    NAME.npz           arrays rgb (0 … 255), K, R, t as the former, but pixel centres half-way.

All become `Cameras` in the convention of `equiform.algebra.cameras` with pixel centres half-way.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from equiform.algebra.cameras import TOLERANCE, Cameras, check_cameras
from equiform.errors import UserError


class Views(NamedTuple):
    """Photographs of one scene and their cameras.

    Attributes:
        images: Colours, 0 … 1.
        cameras: Pixel centres half-way; arrays of NumPy, in float64.
        names: File names.
    """

    images: Float[np.ndarray, "views height width 3"]
    cameras: Cameras
    names: list[str]


def read_views(path: str | Path) -> Views:
    """Read a `transforms.json`, a Middlebury parameter file, arrays (`.npz`), or the only one of these in a folder.

    Raises:
        UserError: Nothing is found, or what is found is broken; the message names the file and the frame.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted([*path.glob("transforms*.json"), *path.glob("*_par.txt"), *path.glob("*.npz")])
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise UserError(f"{path} must hold one transforms.json, *_par.txt or *.npz; there is {names}. Name the file itself")
        path = found[0]
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".npz":
        return read_arrays(path)
    return read_transforms(path) if path.suffix == ".json" else read_middlebury(path)


def read_transforms(path: str | Path) -> Views:
    """Read a `transforms.json` and its images. See `read_views`."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        frames = content["frames"]
        files = [_image_file(path, str(frame["file_path"])) for frame in frames]
        poses = np.array([frame["transform_matrix"] for frame in frames], dtype=float)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no transforms.json: {_reason(error)}") from None
    if poses.shape != (len(files), 4, 4):
        raise UserError(f"{path}: every transform_matrix must be 4 × 4; received {poses.shape[1:] or 'none'}")
    images = [read_image(file) for file in files]
    try:
        intrinsics = np.array([_intrinsics(path, content | frame, image.shape) for frame, image in zip(frames, images)])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has focal lengths, centres or sizes that are no numbers: {error}") from None
    # From y up, z backward to y down, z forward.
    return _views(path, images, poses[:, :3, :3] * np.array([1, -1, -1]), poses[:, :3, 3], intrinsics, files)


def read_middlebury(path: str | Path) -> Views:
    """Read a Middlebury parameter file and its images, in the same folder. See `read_views`."""
    path = Path(path)
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows or len(rows[0]) != 1 or not rows[0][0].isdigit() or int(rows[0][0]) != len(rows) - 1:
        raise UserError(f"{path} must begin with the number of its images, and have one line for each of them")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 22:
            raise UserError(f"{path}, line {number}: a name and 21 numbers (K, R, t) are needed; received {len(row)} words")
    try:
        numbers = np.array([[float(word) for word in row[1:]] for row in rows[1:]])
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    files = [path.parent / row[0] for row in rows[1:]]
    intrinsics, rotation, shift = numbers[:, :9].reshape(-1, 3, 3), numbers[:, 9:18].reshape(-1, 3, 3), numbers[:, 18:]
    intrinsics[:, :2, 2] += 0.5
    centre = -np.einsum("vji,vj->vi", rotation, shift)
    return _views(path, [read_image(file) for file in files], np.swapaxes(rotation, 1, 2), centre, intrinsics, files)


def read_arrays(path: str | Path) -> Views:
    """Read views from an `.npz` file with rgb, K, R and t. See `read_views`."""
    path = Path(path)
    try:
        with np.load(path) as stored:
            rgb, intrinsics, rotation, shift = (np.array(stored[name]) for name in ("rgb", "K", "R", "t"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not hold the arrays rgb, K, R and t of calibrated views: {_reason(error)}") from None
    views = len(rgb) if rgb.ndim == 4 and rgb.shape[-1] == 3 else 0
    if rgb.dtype != np.uint8 or (intrinsics.shape, rotation.shape, shift.shape) != ((views, 3, 3), (views, 3, 3), (views, 3)):
        shapes = ", ".join(str(array.shape) for array in (rgb, intrinsics, rotation, shift))
        raise UserError(
            f"{path}: rgb must be bytes of shape (views, rows, columns, 3), K and R (views, 3, 3), t (views, 3); "
            f"received {rgb.dtype} and {shapes}"
        )
    centre = -np.einsum("vji,vj->vi", rotation, shift)
    files = [Path(f"view-{number:02d}") for number in range(views)]
    return _views(path, list(rgb / 255), np.swapaxes(rotation, 1, 2), centre, intrinsics.astype(float), files)


def read_image(path: str | Path) -> Float[np.ndarray, "height width 3"]:
    """Colours 0 … 1 of any format that Pillow reads; transparent parts are white.

    Raises:
        UserError: The file is missing or no image.
    """
    try:
        with Image.open(path) as image:
            rgba = np.asarray(image.convert("RGBA"), dtype=float) / 255
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"there is no image {path}") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None
    return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]


def nearest_rotations(matrices: Float[np.ndarray, "views 3 3"]) -> Float[np.ndarray, "views 3 3"]:
    """The nearest orthogonal matrices, where only rounding is off; others are left as they are, to be refused."""
    u, _, v = np.linalg.svd(matrices)
    nearest = u @ v
    return np.where(np.abs(nearest - matrices).max(axis=(1, 2), keepdims=True) < TOLERANCE, nearest, matrices)


def scaled(views: Views, height: int, width: int) -> Views:
    """Images of another size (averages over areas where they shrink), and the cameras that belong to them."""
    resized = [
        np.stack(
            [
                np.asarray(Image.fromarray(channel.astype(np.float32)).resize((width, height), Image.Resampling.BOX), float)
                for channel in np.moveaxis(image, -1, 0)
            ],
            axis=-1,
        )
        for image in views.images
    ]
    factor = np.array([width / views.cameras.width, height / views.cameras.height, 1])
    old = views.cameras
    return Views(
        np.stack(resized),
        Cameras(old.rotation, old.centre, factor[:, None] * np.asarray(old.intrinsics), height, width),
        views.names,
    )


def _image_file(path: Path, name: str) -> Path:
    """`file_path` as written, or with the suffix that NeRF's synthetic scenes leave out."""
    file = path.parent / name
    return (
        file
        if file.suffix and file.exists()
        else next(
            (file.with_name(file.name + end) for end in (".png", ".jpg", ".jpeg") if file.with_name(file.name + end).exists()),
            file,
        )
    )


def _intrinsics(path: Path, values: dict[str, Any], shape: tuple[int, ...]) -> Float[np.ndarray, "3 3"]:
    height, width = shape[:2]
    if "w" in values and "h" in values and (int(values["h"]), int(values["w"])) != (height, width):
        raise UserError(
            f"{path}: {values['file_path']} has {height} × {width} pixels (rows × columns), its camera "
            f"{values['h']} × {values['w']}; "
            "scale fl_x, fl_y, cx, cy, w and h with the image"
        )
    if "fl_x" in values:
        focal_x = float(values["fl_x"])
        focal_y = float(values.get("fl_y", focal_x))
    elif "camera_angle_x" in values:
        focal_x = 0.5 * width / np.tan(0.5 * float(values["camera_angle_x"]))
        focal_y = 0.5 * height / np.tan(0.5 * float(values["camera_angle_y"])) if "camera_angle_y" in values else focal_x
    else:
        raise UserError(f"{path}: {values['file_path']} has no focal length; give fl_x or camera_angle_x")
    distortion = [name for name in ("k1", "k2", "k3", "k4", "p1", "p2") if values.get(name)]
    if distortion:
        raise UserError(f"{path}: lens distortion ({', '.join(distortion)}) is not read; undistort the images first")
    centre_x, centre_y = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    return np.array([[focal_x, 0, centre_x], [0, focal_y, centre_y], [0, 0, 1]])


def _views(path: Path, images: list[Any], rotation: Any, centre: Any, intrinsics: Any, files: list[Path]) -> Views:
    names, shapes = [file.name for file in files], {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise UserError(f"{path}: images of one scene must have one size; received {sorted(shapes)} (rows, columns)")
    if len(images) < 2:
        raise UserError(f"{path}: a scene needs at least two views; received {len(images)}")
    stacked = np.stack(images)
    cameras = Cameras(nearest_rotations(rotation), centre, intrinsics, *stacked.shape[1:3])
    try:
        check_cameras(cameras, stacked, names=names)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Views(stacked, cameras, names)


def _reason(error: Exception) -> str:
    return f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
