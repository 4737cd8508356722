"""Study of novel views: colours of held-out views from the others, on procedural scenes or on one set of photographs.

    procedural      one training view in turn is rendered from the other four; tested on the fifth view of test scenes, upright
                    (I/I) and after a random motion of all cameras (I/SO(3))
    photographs     some views are held out; each of the others is rendered from its neighbours in training

Beside it stands what the nearest source view shows at the same pixels, which has no parameters. Everything lands in a folder; a
study that was stopped resumes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.cameras import Cameras
from equiform.algebra.so3.rotations import random_rotations
from equiform.data.formats.cameras import Views, read_views
from equiform.data.formats.write_cameras import write_png
from equiform.data.pipeline.ray_targets import background_of, in_own_frame, nearest_views, target_rays
from equiform.data.sets.rays_scenes import SHIFT, RayScene
from equiform.data.sets.rays_store import ScenesConfig, make_scenes, read_scenes
from equiform.errors import UserError
from equiform.jobs.scenes import psnr, rendered
from equiform.models.ray_radiance import RayRadiance, RayRadianceConfig
from equiform.models.ray_rendering import RayRenderingConfig
from equiform.persist.parameters import num_parameters
from equiform.persist.scene_model_file import save_scene_model
from equiform.runtime.files import to_json, write_atomically
from equiform.tasks.radiance import LabelledRays, Radiance
from equiform.training.scenes import SceneTraining, train_scenes

RESULTS, MODEL = "results.json", "ray-radiance"
ON_OBJECT, CONTRAST = 0.75, 0.05
"""Share of training rays that are drawn on pixels that differ from the background by this much."""

Progress = Callable[[int, int, str], Any]


class NovelViewStudy(BaseModel):
    """Sizes of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scene: str | None = Field(default=None, description="Photographs of one scene; none: procedural scenes.")
    held_out: tuple[int, ...] = Field(default=(3, 11), description="Photographs that are not trained on.")
    scenes: int = Field(default=1000, ge=1, description="Procedural training scenes.")
    tests: int = Field(default=100, ge=2, description="Procedural test scenes.")
    steps: int = Field(default=50000, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    seed: int = 0
    rays: int = Field(default=512, ge=1, description="Target rays of a step.")
    sources: int = Field(default=8, ge=2, description="Source views of a target; all there are, if fewer.")
    samples: int = Field(default=48, ge=2, description="Samples of a ray.")
    near: float = Field(default=0.7, gt=0, description="Nearest sample, in units of the mean distance of the cameras.")
    far: float = Field(default=1.3, gt=0, description="Farthest sample.")
    hidden: int = Field(default=16, description="Channels between the two convolutions.")
    features: int = 32
    frequencies: int = 12
    tensor_channels: int = 16
    view_channels: int = 32

    def scaled(self) -> "NovelViewStudy":
        """A small form, for two cores."""
        small = {"scenes": 100, "tests": 20, "steps": 800, "learning_rate": 3e-3, "rays": 64, "sources": 4, "samples": 16}
        return self.model_copy(
            update=small | {"hidden": 8, "features": 8, "frequencies": 4, "tensor_channels": 4, "view_channels": 16}
        )


class ViewSet(NamedTuple):
    """Views of one scene, in their own frame.

    Attributes:
        views: The views.
        known: Those that may be looked at.
        held_out: Those that are to be predicted.
    """

    views: Views
    known: list[int]
    held_out: list[int]


def of_photographs(path: str, held_out: Sequence[int]) -> ViewSet:
    """Photographs with some held out.

    Raises:
        UserError: A number is none of theirs, or fewer than two views are left.
    """
    views = read_views(path)
    count = len(views.images)
    if any(not 0 <= view < count for view in held_out):
        raise UserError(f"held_out={list(held_out)}: {path} has the views 0 … {count - 1}")
    known = [view for view in range(count) if view not in held_out]
    if len(known) < 3:
        raise UserError(f"{path}: three views must be left to train on, one target and two sources; there are {len(known)}")
    return ViewSet(in_own_frame(views), known, list(held_out))


def of_scene(scene: RayScene, *, motion: np.random.Generator | None = None) -> ViewSet:
    """A procedural scene: its views, and the one to be predicted last."""
    if motion is not None:
        scene = scene.moved(random_rotations(1, motion)[0], motion.normal(scale=SHIFT, size=3))
    images = np.concatenate([scene.images, scene.target_image[None]])
    rotation = np.concatenate([scene.rotation, scene.target_rotation[None]])
    centre = np.concatenate([scene.centre, scene.target_centre[None]])
    cameras = Cameras(rotation, centre, np.broadcast_to(scene.intrinsics, rotation.shape), *images.shape[1:3])
    views = in_own_frame(Views(images, cameras, [f"view-{i}" for i in range(len(images))]))
    return ViewSet(views, list(range(len(scene.images))), [len(scene.images)])


def new_task(study: NovelViewStudy, background: float) -> Radiance:
    """A fresh model of the study."""
    head = RayRenderingConfig(
        features=study.features,
        num_samples=study.samples,
        frequencies=study.frequencies,
        tensor_channels=study.tensor_channels,
        view_channels=study.view_channels,
    )
    model = RayRadiance(RayRadianceConfig(head=head, hidden=study.hidden), key=jax.random.key(study.seed))
    return Radiance(model, background, (study.near, study.far))


def batches(sets: Sequence[ViewSet], study: NovelViewStudy, background: float) -> Callable[[int], LabelledRays]:
    """The batch of each step: rays of one known view, from other known ones. Of procedural scenes all views are known."""
    procedural = study.scene is None

    def batch(step: int) -> LabelledRays:
        rng = np.random.default_rng([study.seed, step])
        found = sets[int(rng.integers(len(sets)))]
        known = found.known + (found.held_out if procedural else [])
        target = known[int(rng.integers(len(known)))]
        image = found.views.images[target].reshape(-1, 3)
        on = np.flatnonzero(np.abs(image - background).max(axis=1) > CONTRAST)
        chosen = rng.choice(len(image), study.rays)
        if len(on):
            chosen[: int(ON_OBJECT * study.rays)] = rng.choice(on, int(ON_OBJECT * study.rays))
        sources = nearest_views(found.views.cameras, target, known, study.sources)
        rays = target_rays(found.views, target, sources, chosen, (study.near, study.far), study.samples)
        return LabelledRays(rays, image[chosen].astype(np.float32))

    return batch


def measured(
    task: Radiance, sets: Sequence[ViewSet], study: NovelViewStudy, pictures: Path | None = None
) -> dict[str, float | list[float]]:
    """PSNR of the held-out views, and of their nearest source view put in their place."""
    ours, nearest = [], []
    for found in sets:
        for target in found.held_out:
            sources = nearest_views(found.views.cameras, target, found.known, study.sources)
            image, truth = rendered(task, found.views, target, sources), found.views.images[target]
            ours.append(psnr(image, truth))
            nearest.append(psnr(found.views.images[sources[0]], truth))
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                write_png(pictures / f"{found.views.names[target]}.png", np.concatenate([image, truth], axis=1))
    return {"psnr": float(np.mean(ours)), "psnr_of_each": ours, "nearest_view": float(np.mean(nearest))}


def report(results: dict[str, Any], study: NovelViewStudy, pictures: Sequence[Path]) -> str:
    """The figures and the pictures of held-out views, as Markdown."""
    lines = [
        f"{results['parameters']:,} parameters, {study.steps} steps, seed {study.seed}, {results['seconds']} seconds.",
        "PSNR over all pixels of the held-out views, mean over views.",
        "",
        "| test | PSNR, dB | nearest view in its place, dB |",
        "|---|---:|---:|",
    ]
    tests = {name: found for name, found in results.items() if isinstance(found, dict)}
    lines += [f"| {name} | {found['psnr']:.2f} | {found['nearest_view']:.2f} |" for name, found in tests.items()]
    lines += ["", *(f"![predicted left, true right](pictures/{path.name})" for path in pictures)]
    return "\n".join(lines) + "\n"


def run_study(folder: Path, study: NovelViewStudy, progress: Progress) -> Iterator[str]:
    """Train and test, from where it was stopped; the report. See `NovelViewStudy`.

    Args:
        folder: Where everything goes; pictures beside the truth in `pictures/`.
        study: Sizes.
        progress: Progress callback `(done, total, note)`.
    """
    if (folder / RESULTS).is_file():
        results = json.loads((folder / RESULTS).read_text())
        yield report(results, study, sorted((folder / "pictures").glob("*.png")))
        return
    if study.scene is not None:
        train = [of_photographs(study.scene, study.held_out)]
        tests = {"held out": train}
    else:
        place, settings = folder / "scenes", ScenesConfig()
        for split, count in (("train", study.scenes), ("test", study.tests)):
            make_scenes(place, split, count, settings, progress=lambda done, total: progress(done, total, "scenes"))
        train = [of_scene(scene) for scene in read_scenes(place, "train", study.scenes)]
        scenes = read_scenes(place, "test", study.tests)
        turned = [of_scene(scene, motion=np.random.default_rng([11, number])) for number, scene in enumerate(scenes)]
        tests = {"I": [of_scene(scene) for scene in scenes], "SO(3)": turned}
    background = background_of(train[0].views)
    task = new_task(study, background)
    training = SceneTraining(steps=study.steps, learning_rate=study.learning_rate, seed=study.seed)
    found = train_scenes(
        task,
        batches(train, study, background),
        training,
        folder / f"{MODEL}.checkpoint",
        progress=lambda done, total, loss: progress(done, total, f"PSNR of rays {-10 * np.log10(loss):.2f} dB"),
    )
    about = {"study": study.model_dump(mode="json"), "sources": study.sources}
    save_scene_model(folder / MODEL, found.task, about)
    results: dict[str, Any] = {"parameters": num_parameters(task), "seconds": round(found.seconds)}
    for name, sets in tests.items():
        results[name] = measured(found.task, sets, study, folder / "pictures" if name != "SO(3)" else None)
    write_atomically(folder / RESULTS, to_json(results))
    yield report(results, study, sorted((folder / "pictures").glob("*.png")))
