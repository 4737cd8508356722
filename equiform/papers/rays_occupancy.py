"""Study of occupancy from four small views: the ray transformer against baselines on the same pixels, upright and moved.

Scenes of `rays-scenes` → every model trained on upright scenes (those named "-augmented" on scenes in a new random position in
every step) → intersection over union on upright scenes (I/I) and after a random motion of scene and cameras (I/SO(3)). All
of it is in a folder; a study that was stopped resumes.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871), for the protocols; scenes, sizes and baselines are ours.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.cameras import Cameras
from equiform.algebra.so3.rotations import random_rotations
from equiform.data.pipeline.ray_tokens import (
    RAY_FEATURES,
    VIEW_FEATURES,
    PreparedViews,
    Seen,
    drawn_pixels,
    prepared_views,
    scene_inputs,
    seen_at,
    stacked,
)
from equiform.data.sets.rays_scenes import SHIFT, RayScene
from equiform.data.sets.rays_store import ScenesConfig, make_scenes, read_scenes
from equiform.data.sets.sphere_tracing import visual_hull
from equiform.models.image_features import ImageFeatures, ImageFeaturesConfig
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig, WorldTransformer, WorldTransformerConfig
from equiform.models.ray_inputs import SceneInputs
from equiform.models.ray_transformer import RayTransformer, RayTransformerConfig
from equiform.persist.parameters import num_parameters
from equiform.persist.scene_model_file import save_scene_model
from equiform.runtime.files import to_json, write_atomically
from equiform.tasks.occupancy import DEPTH_AND_PLACE, LabelledScenes, Occupancy, Quantity, SceneModel
from equiform.training.scenes import SceneTraining, train_scenes

HULL, RAYS = "visual-hull", "ray-transformer"
BASELINES = ("view-mlp", "view-mlp-world", "view-mlp-world-augmented", "world-transformer", "world-transformer-augmented")
RESULTS = "results.json"

THRESHOLDS = [round(0.1 * step, 1) for step in range(-10, 16)]
"""From which the threshold of a model is chosen."""

Progress = Callable[[int, int, str], Any]


class OccupancyStudy(BaseModel):
    """Sizes of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scenes: int = Field(default=2000, ge=1, description="Training scenes.")
    validation: int = Field(default=200, ge=1, description="Scenes that the threshold of a model is chosen on.")
    tests: int = Field(default=200, ge=2, description="Test scenes.")
    steps: int = Field(default=20000, ge=1, description="Of Adam, for every model.")
    learning_rate: float = Field(default=2e-3, gt=0)
    seed: int = 0
    models: tuple[str, ...] = (HULL, RAYS, *BASELINES)
    quantity: Quantity = "occupancy"
    rays: int = Field(default=256, ge=2, description="Ray tokens of a scene.")
    batch: int = Field(default=8, ge=1, description="Scenes of a step.")
    points: int = Field(default=64, ge=1, description="Query points of a scene in a step.")
    degrees: tuple[int, ...] = (0, 1, 2)
    channels: int = 32
    num_ray_layers: int = 2
    num_point_layers: int = 2
    image_features: int = Field(default=32, ge=0, description="Features of the images, for every model; 0: colours alone.")
    width: int = Field(default=64, description="Of the transformer in world coordinates.")
    num_layers: int = Field(default=2, description="Of its encoder, and of its decoder.")

    def scaled(self) -> "OccupancyStudy":
        """A small form, for two cores."""
        small = {"tests": 60, "steps": 8000, "batch": 4, "points": 128, "rays": 16, "degrees": (0, 1)}
        small |= {"num_ray_layers": 1, "num_point_layers": 1, "num_layers": 1}
        return self.model_copy(update=small)


GROWING = ("tests", "models")
"""Sizes that may change when a study is resumed: trained models stay."""


class Example(NamedTuple):
    """A scene and what its views show at all of its points.

    Attributes:
        scene: The scene.
        views: Its images, prepared.
        seen: At the points of the scene; no motion changes it.
    """

    scene: RayScene
    views: PreparedViews
    seen: Seen


def example(scene: RayScene) -> Example:
    """Prepare a scene."""
    views = prepared_views(scene.images, cameras_of(scene))
    seen = seen_at(views, scene.points)
    return Example(scene, views, seen._replace(patch=seen.patch.astype(np.float16)))


def cameras_of(scene: RayScene) -> Cameras:
    """The cameras of a scene."""
    intrinsics = np.broadcast_to(scene.intrinsics, (len(scene.centre), 3, 3))
    return Cameras(scene.rotation, scene.centre, intrinsics, *scene.images.shape[1:3])


def moved(found: Example, rng: np.random.Generator) -> Example:
    """The scene after a motion of protocol SO(3); what is seen stays."""
    scene = found.scene.moved(random_rotations(1, rng)[0], rng.normal(scale=SHIFT, size=3))
    return Example(scene, found.views._replace(cameras=cameras_of(scene)), found.seen)


def inputs(found: Example, chosen: np.ndarray, rays: int, rng: np.random.Generator) -> SceneInputs:
    """What a model is given for some of the points."""
    silhouettes = found.scene.silhouettes
    pixels = drawn_pixels(silhouettes, rays, silhouettes.size, rng)
    seen = Seen(*(array[chosen] for array in found.seen))
    return scene_inputs(found.views, found.scene.points[chosen], seen, pixels)


def new_task(name: str, study: OccupancyStudy) -> Occupancy:
    """A fresh model of the study."""
    key, more = jax.random.key(study.seed), study.image_features
    on_images = ImageFeatures(ImageFeaturesConfig(features=more), key=jax.random.fold_in(key, 1)) if more else None
    on_rays, on_views = RAY_FEATURES + more, VIEW_FEATURES + more
    model: SceneModel
    if name == RAYS:
        config = RayTransformerConfig(
            features=on_rays,
            view_features=on_views + DEPTH_AND_PLACE,
            degrees=study.degrees,
            channels=study.channels,
            num_ray_layers=study.num_ray_layers,
            num_point_layers=study.num_point_layers,
            radial_hidden=6,
            posed=True,
        )
        model = RayTransformer(config, key=key)
    elif name.startswith("view-mlp"):
        geometry = "camera" if name == "view-mlp" else "world"
        model = ViewMLP(ViewMLPConfig(view_features=on_views, geometry=geometry), key=key)
    else:
        world = WorldTransformerConfig(features=on_rays, view_features=on_views, width=study.width, num_layers=study.num_layers)
        model = WorldTransformer(world, key=key)
    return Occupancy(model, study.quantity, image_features=on_images)


def batches(examples: list[Example], study: OccupancyStudy, *, augmented: bool) -> Callable[[int], LabelledScenes]:
    """The batch of each step."""

    def batch(step: int) -> LabelledScenes:
        rng = np.random.default_rng([study.seed, step])
        parts = [examples[i] for i in rng.integers(0, len(examples), study.batch)]
        chosen = [rng.choice(len(part.scene.points), study.points, replace=False) for part in parts]
        parts = [moved(part, rng) for part in parts] if augmented else parts
        labels = np.stack([part.scene.signed_distance[c] for part, c in zip(parts, chosen)]).astype(np.float32)
        return LabelledScenes(stacked([inputs(part, c, study.rays, rng) for part, c in zip(parts, chosen)]), labels)

    return batch


def measured(predict: Callable[[Example, int], np.ndarray], examples: list[Example]) -> dict[str, float | None]:
    """Intersection over union on the uniform points, the mean over scenes with its standard error, and accuracy on all.

    Scenes without any point inside or said to be inside count for the accuracy only.
    """
    ratios, hits = [], []
    for number, found in enumerate(examples):
        said, true = predict(found, number), found.scene.signed_distance < 0
        uniform = np.arange(len(true)) < len(true) - len(true) // 2
        both, either = (said & true & uniform).sum(), ((said | true) & uniform).sum()
        hits.append((said == true).mean())
        if either:
            ratios.append(both / either)
    return {
        "iou": float(np.mean(ratios)) if ratios else None,
        "iou_standard_error": float(np.std(ratios, ddof=1) / np.sqrt(len(ratios))) if len(ratios) > 1 else None,
        "accuracy": float(np.mean(hits)),
    }


def with_best_threshold(task: Occupancy, examples: list[Example], rays: int) -> Occupancy:
    """The task with the threshold that has the largest intersection over union on some scenes; of equal ones the lowest."""
    run = numbers(task, rays)
    found = [run(example, number) for number, example in enumerate(examples)]

    def iou(threshold: float) -> float:
        return measured(lambda _, number: np.asarray(task.is_inside(found[number], threshold)), examples)["iou"] or 0.0

    return dataclasses.replace(task, threshold=max(THRESHOLDS, key=iou))


def predictor(task: Occupancy, rays: int) -> Callable[[Example, int], np.ndarray]:
    """Inside or not at all points of a scene."""
    run = numbers(task, rays)
    return lambda found, number: np.asarray(task.is_inside(run(found, number), task.threshold))


def numbers(task: Occupancy, rays: int) -> Callable[[Example, int], np.ndarray]:
    """The model's number at all points of a scene; the drawn rays depend on the number of the scene alone."""
    run = eqx.filter_jit(lambda task, scene: task(scene))

    def predict(found: Example, number: int) -> np.ndarray:
        given = inputs(found, np.arange(len(found.scene.points)), rays, np.random.default_rng([7, number]))
        with jax.enable_x64(False):  # as it was trained
            return np.asarray(run(task, given))

    return predict


def hull(found: Example, number: int) -> np.ndarray:
    """The visual hull from the true silhouettes; it has no parameters."""
    cameras = found.views.cameras
    arrays = np.asarray(cameras.rotation), np.asarray(cameras.centre), np.asarray(cameras.intrinsics)
    return visual_hull(found.scene.points, *arrays, found.scene.silhouettes)


def report(results: dict[str, Any], study: OccupancyStudy) -> str:
    """The figures so far, as Markdown."""

    def figure(found: dict[str, float | None]) -> str:
        return " ± ".join("–" if found[key] is None else f"{found[key]:.3f}" for key in ("iou", "iou_standard_error"))

    lines = [
        f"{study.scenes} training scenes, {study.tests} test scenes, {study.steps} steps, seed {study.seed}; {study.quantity}.",
        "IoU of points uniform in the cube, mean over scenes; I/SO(3): trained upright, tested after a random motion.",
        f"Threshold: the one with the best IoU on {study.validation} validation scenes.",
        "",
        "| model | parameters | threshold | IoU, I/I | IoU, I/SO(3) | accuracy, I/I | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        figures = f"{figure(row['I'])} | {figure(row['SO(3)'])} | {row['I']['accuracy']:.3f}"
        threshold = "" if name == HULL else f"{row['threshold']:.1f}"
        lines.append(f"| {name} | {row['parameters']:,} | {threshold} | {figures} | {row['seconds']} |")
    return "\n".join(lines) + "\n"


def run_study(folder: Path, study: OccupancyStudy, progress: Progress) -> Iterator[str]:
    """Do what is missing of a study; the report after every model.

    Args:
        folder: Where everything goes: scenes, checkpoints, models, `results.json`.
        study: Sizes.
        progress: Progress callback `(done, total, note)`.
    """
    place = folder / "scenes"
    settings = ScenesConfig()
    for split, count in (("train", study.scenes), ("validation", study.validation), ("test", study.tests)):
        make_scenes(place, split, count, settings, progress=lambda done, total: progress(done, total, "scenes"))
    train = [example(scene) for scene in read_scenes(place, "train", study.scenes)]
    validation = [example(scene) for scene in read_scenes(place, "validation", study.validation)]
    upright = [example(scene) for scene in read_scenes(place, "test", study.tests)]
    turned = [moved(found, np.random.default_rng([11, number])) for number, found in enumerate(upright)]
    results = json.loads((folder / RESULTS).read_text()) if (folder / RESULTS).is_file() else {}
    for name in study.models:
        if results.get(name, {}).get("tests") == study.tests:
            continue
        if name == HULL:
            predict, about = hull, {"parameters": 0, "seconds": 0}
        else:
            task = new_task(name, study)
            training = SceneTraining(steps=study.steps, learning_rate=study.learning_rate, seed=study.seed)
            found = train_scenes(
                task,
                batches(train, study, augmented=name.endswith("-augmented")),
                training,
                folder / f"{name}.checkpoint",
                progress=lambda done, total, loss, name=name: progress(done, total, f"{name}, loss {loss:.4f}"),
            )
            trained = with_best_threshold(found.task, validation, study.rays)
            save_scene_model(folder / name, trained, {"study": study.model_dump(mode="json"), "rays": study.rays})
            predict = predictor(trained, study.rays)
            about = {"parameters": num_parameters(task), "seconds": round(found.seconds), "threshold": trained.threshold}
        results[name] = {**about, "tests": study.tests, "I": measured(predict, upright), "SO(3)": measured(predict, turned)}
        write_atomically(folder / RESULTS, to_json(results))
        yield report(results, study)
    yield report(results, study)
