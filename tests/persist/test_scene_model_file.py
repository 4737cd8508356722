"""Model files of scenes: every bit comes back, and damage is named."""

import json

import jax
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.models.image_features import ImageFeatures, ImageFeaturesConfig
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig
from equiform.models.ray_radiance import RayRadiance, RayRadianceConfig
from equiform.models.ray_rendering import RayRenderingConfig
from equiform.persist.parameters import with_dtype
from equiform.persist.scene_model_file import load_scene_model, save_scene_model
from equiform.tasks.occupancy import Occupancy
from equiform.tasks.radiance import Radiance

HEAD = RayRenderingConfig(features=2, num_samples=4, frequencies=2, tensor_channels=2, channels=4, view_channels=4)


def tasks():
    key = jax.random.key(1)
    mlp, radiance = ViewMLP(ViewMLPConfig(view_features=5), key=key), RayRadiance(RayRadianceConfig(head=HEAD), key=key)
    on_images = ImageFeatures(ImageFeaturesConfig(features=2, widths=(3, 4)), key=key)
    found = [Occupancy(mlp, "signed_distance", 2.5, 0.2), Radiance(radiance, 0.0, (0.5, 2.0))]
    found.append(Occupancy(mlp, image_features=on_images, threshold=0.3))
    return [with_dtype(task, np.float32) for task in found]


def test_tasks_come_back_with_every_bit_and_setting(tmp_path):
    for task in tasks():
        save_scene_model(tmp_path / "m", task, {"rays": 7})
        found, metadata = load_scene_model(tmp_path / "m")
        assert jax.tree.structure(found) == jax.tree.structure(task) and metadata == {"rays": 7}
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(task)):
            np.testing.assert_array_equal(a, b)
        assert found.settings() == task.settings()


def test_damaged_models_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no model of scenes"):
        load_scene_model(tmp_path)
    save_scene_model(tmp_path, tasks()[0], {})
    whole = (tmp_path / "config.json").read_text()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(UserError, match="checksum"):
        load_scene_model(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(weights)
    for change in ({"model": {"name": "none"}}, {"task": {}}, {"format_version": 9}):
        (tmp_path / "config.json").write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(UserError, match=r"damaged|another version"):
            load_scene_model(tmp_path)
