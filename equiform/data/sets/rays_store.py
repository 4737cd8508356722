"""A folder of procedural scenes: made a shard at a time, so that a stopped command resumes, and read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from equiform.algebra.cameras import Cameras
from equiform.data.formats.write_cameras import write_transforms
from equiform.data.sets.rays_scenes import SPLITS, Protocol, RayScene, make_sample
from equiform.data.store.shards import make_shards, read_shards
from equiform.errors import UserError
from equiform.runtime.files import explained, to_json, write_atomically

SHARD = 25
"""Scenes of a file."""
ABOUT = "rays-scenes.json"


class ScenesConfig(BaseModel):
    """What fixes every scene of a folder, with the split and the number of the scene.

    Attributes:
        protocol: "I", upright; "SO(3)", each after a random motion.
        views: Views of a scene.
        pixels: Rows and columns of an image.
        num_points: Query points with their signed distances.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Protocol = "I"
    views: int = Field(default=4, ge=2)
    pixels: int = Field(default=24, ge=4)
    num_points: int = Field(default=400, ge=2)


def make_scenes(
    folder: Path, split: str, count: int, config: ScenesConfig, *, progress: Callable[[int, int], Any] | None = None
) -> None:
    """Make the first scenes of a split, those that are missing.

    Args:
        folder: Where; new, or of the same settings.
        split: "train", "validation" or "test".
        count: How many.
        config: Settings.
        progress: Progress callback `(done, total)`, in scenes.

    Raises:
        UserError: No such split, too many scenes, or the folder has scenes of other settings.
    """
    if split not in SPLITS or not 1 <= count <= SPLITS[split][1]:
        known = ", ".join(f"{name} up to {most}" for name, (_, most) in SPLITS.items())
        raise UserError(f"{count} scenes of the split {split!r} cannot be made; there are {known}")
    about = folder / ABOUT
    if about.is_file() and (found := read_config(folder)) != config:
        raise UserError(f"{folder} has scenes of other settings ({found!r}); choose another folder, or the same settings")
    with explained(f"cannot write {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(about, to_json(config.model_dump(mode="json")))

    def make(number: int) -> RayScene:
        return make_sample(
            split,
            number,
            protocol=config.protocol,
            views=config.views,
            pixels=config.pixels,
            num_points=config.num_points,
        )

    make_shards(folder, split, count, make, size=SHARD, progress=progress)


def read_scenes(folder: Path, split: str, count: int | None = None) -> list[RayScene]:
    """The first scenes of a split.

    Args:
        folder: Where they were made.
        split: "train", "validation" or "test".
        count: How many; None: all that are there.

    Raises:
        UserError: There are not so many.
    """
    stored = read_shards(RayScene, folder, split, count, size=SHARD)
    found = [RayScene(*values) for values in zip(*stored)]
    if not found or (count is not None and len(found) < count):
        wanted = "no scenes" if count is None else f"{len(found)} of {count} scenes"
        raise UserError(
            f"{folder} has {wanted} of the split {split!r}; make them with: equiform data make rays-scenes {folder}"
        )
    return found


def write_pictures(folder: Path, scene: RayScene) -> None:
    """Write the views of a scene as `transforms.json` and PNG images, the target view last.

    Raises:
        UserError: They cannot be written.
    """
    images = np.concatenate([scene.images, scene.target_image[None]])
    rotation = np.concatenate([scene.rotation, scene.target_rotation[None]])
    centre = np.concatenate([scene.centre, scene.target_centre[None]])
    intrinsics = np.broadcast_to(scene.intrinsics, rotation.shape)
    write_transforms(folder, images, Cameras(rotation, centre, intrinsics, *images.shape[1:3]))


def read_config(folder: Path) -> ScenesConfig:
    """The settings of a folder of scenes.

    Raises:
        UserError: It is none.
    """
    if not (folder / ABOUT).is_file():
        raise UserError(f"{folder} holds no procedural scenes; make some with: equiform data make rays-scenes {folder}")
    with explained(f"cannot read {folder / ABOUT}", "check its permissions"):
        text = (folder / ABOUT).read_text(encoding="utf-8")
    try:
        return ScenesConfig.model_validate(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise UserError(f"{folder / ABOUT} is damaged; delete the folder and make the scenes again") from error
