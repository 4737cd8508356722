"""Files of models of scenes: a folder with `config.json` and `weights.safetensors`; loading executes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from equiform.errors import UserError
from equiform.models.image_features import ImageFeatures, ImageFeaturesConfig
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig, WorldTransformer, WorldTransformerConfig
from equiform.models.ray_radiance import RayRadiance, RayRadianceConfig
from equiform.models.ray_transformer import RayTransformer, RayTransformerConfig
from equiform.persist.parameters import filled, named, split
from equiform.runtime.files import checksum, explained, to_json, write_atomically
from equiform.tasks.occupancy import Occupancy, SceneModel
from equiform.tasks.radiance import Radiance

FORMAT, FORMAT_VERSION = "equiform-scene-model", 1
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
_IMAGES = "image_features."
"""Beginning of the names of weights that are not of the model."""

SceneConfig = RayTransformerConfig | ViewMLPConfig | WorldTransformerConfig | RayRadianceConfig
SceneTask = Occupancy | Radiance


def build(config: SceneConfig) -> SceneModel | RayRadiance:
    """A model of a configuration, its weights to be replaced."""
    key = jax.random.key(0)
    match config:
        case RayTransformerConfig():
            return RayTransformer(config, key=key)
        case RayRadianceConfig():
            return RayRadiance(config, key=key)
        case ViewMLPConfig():
            return ViewMLP(config, key=key)
        case WorldTransformerConfig():
            return WorldTransformer(config, key=key)


def task_of(model: SceneModel | RayRadiance, settings: Mapping[str, Any]) -> SceneTask:
    """The task with its settings, its weights to be replaced; which one follows from the model."""
    if isinstance(model, RayRadiance):
        near, far = settings["depth_range"]
        return Radiance(model, float(settings["background"]), (float(near), float(far)))
    of_images = settings.get("image_features")  # models saved before there were these have neither
    network = ImageFeatures(ImageFeaturesConfig.model_validate(of_images), key=jax.random.key(0)) if of_images else None
    threshold = float(settings.get("threshold", 0.0))
    return Occupancy(model, settings["quantity"], float(settings["distance"]), float(settings["clip"]), network, threshold)


def save_scene_model(folder: Path, task: SceneTask, metadata: Mapping[str, Any]) -> None:
    """Write a task and its model.

    Args:
        folder: Where; an earlier model there is replaced.
        task: The task.
        metadata: Where it comes from, plain values.
    """
    weights = save({_stored(name): np.asarray(value) for name, value in named(split(task)[0]).items()})
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "task": task.settings(),
        "model": task.model.config.model_dump(mode="json"),
        "weights": {"file": WEIGHTS, "sha256": checksum(weights)},
        "metadata": dict(metadata),
    }
    with explained(f"cannot write the model {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / CONFIG, to_json(content))


def is_scene_model(folder: Path) -> bool:
    """Whether a folder holds a model of scenes."""
    if not (folder / CONFIG).is_file():
        return False
    with explained(f"cannot read {folder / CONFIG}", "check its permissions"):
        return f'"{FORMAT}"' in (folder / CONFIG).read_text(encoding="utf-8")


def load_scene_model(folder: Path) -> tuple[SceneTask, dict[str, Any]]:
    """Read a task and where it comes from.

    Raises:
        UserError: There is none, or it is damaged.
    """
    if not is_scene_model(folder):
        raise UserError(f"{folder} holds no model of scenes; train one with: equiform recipe run rays-occupancy --scaled")
    with explained(f"cannot read the model {folder}", "check its permissions"):
        text, weights = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise UserError(f"{folder / CONFIG} was written by another version; train the model again")
        config: SceneConfig = TypeAdapter(SceneConfig).validate_python(content["model"])
        settings = dict(content["task"])
        expected, metadata, arrays = content["weights"]["sha256"], dict(content["metadata"]), load(weights)
    except (ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged: {type(error).__name__} in {CONFIG} or {WEIGHTS}; train it again") from error
    if checksum(weights) != expected:
        raise UserError(f"{folder / WEIGHTS} is damaged or of another model: its checksum is not the one in {CONFIG}")
    try:
        with jax.enable_x64(False):  # weights are in float32
            params, static = split(task_of(build(config), settings))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {type(error).__name__} in its task; train it again") from error
    arrays = {name if name.startswith(_IMAGES) else f"model.{name}": array for name, array in arrays.items()}
    return eqx.combine(filled(params, arrays, str(folder)), static), metadata


def _stored(name: str) -> str:
    """Weights of the model have no prefix in the file."""
    return name.removeprefix("model.")
