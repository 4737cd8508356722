"""Files of effective spin models: a folder with `config.json` and `weights.safetensors`; loading executes nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from equiform.errors import UserError
from equiform.models.spin_linear import SpinLinear, SpinLinearConfig
from equiform.models.spin_transformer import SpinTransformer, SpinTransformerConfig
from equiform.runtime.files import checksum, explained, to_json, write_atomically

FORMAT, FORMAT_VERSION = "equiform-spin-model", 1
CONFIG, WEIGHTS = "config.json", "weights.safetensors"

EffectiveModel = SpinLinear | SpinTransformer


def build(config: SpinLinearConfig | SpinTransformerConfig) -> EffectiveModel:
    """A model of a configuration, its weights to be replaced."""
    if isinstance(config, SpinLinearConfig):
        return SpinLinear(config)
    return SpinTransformer(config, key=jax.random.key(0))


def parameters(model: EffectiveModel) -> dict[str, np.ndarray]:
    """The model's arrays by name."""
    names = ("couplings", "offset") if isinstance(model, SpinLinear) else ("weights", "couplings", "offset")
    return {name: np.asarray(getattr(model, name)) for name in names}


def save_effective(folder: Path, model: EffectiveModel, metadata: Mapping[str, Any]) -> None:
    """Write a model; every bit of its weights is kept.

    Args:
        folder: Where; an earlier model there is replaced.
        model: The model.
        metadata: Where it comes from, plain values.
    """
    weights = save(parameters(model))
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.config.model_dump(mode="json"),
        "weights": {"file": WEIGHTS, "sha256": checksum(weights)},
        "metadata": dict(metadata),
    }
    with explained(f"cannot write the model {folder}", "free some space or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, weights)
        write_atomically(folder / CONFIG, to_json(content))


def load_effective(folder: Path) -> tuple[EffectiveModel, dict[str, Any]]:
    """Read a model and where it comes from, in the precision it was saved in.

    Raises:
        UserError: There is none, or it is damaged.
    """
    advice = "an effective model is a folder that `equiform lattice train` has written"
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no effective model of spins; {advice}")
    with explained(f"cannot read the model {folder}", "check its permissions"):
        text, weights = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    try:
        content = json.loads(text)
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise UserError(f"{folder / CONFIG} is not the configuration of an effective model of spins; {advice}")
        kinds = {"spin-linear": SpinLinearConfig, "spin-transformer": SpinTransformerConfig}
        config = kinds[content["model"]["name"]].model_validate(content["model"])
        expected, metadata = content["weights"]["sha256"], dict(content["metadata"])
        arrays = load(weights)
    except (ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        raise UserError(
            f"{folder} is damaged: {type(error).__name__} in {CONFIG} or {WEIGHTS}; train the model again"
        ) from error
    if checksum(weights) != expected:
        raise UserError(f"{folder / WEIGHTS} is damaged or of another model: its checksum is not the one in {CONFIG}")
    model = build(config)
    shapes = {name: array.shape for name, array in parameters(model).items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise UserError(f"{folder} is damaged: its weights do not have the shapes of its configuration")
    with jax.enable_x64(True):
        return with_parameters(model, arrays), metadata


def same_model(one: EffectiveModel | None, other: EffectiveModel | None) -> bool:
    """Whether two models, or none, are the same to the last bit."""
    if one is None or other is None:
        return one is other
    same = one.config == other.config
    return same and all(np.array_equal(a, b) for a, b in zip(parameters(one).values(), parameters(other).values()))


def with_parameters(model: EffectiveModel, arrays: Mapping[str, np.ndarray]) -> EffectiveModel:
    """The model with other weights."""
    names = tuple(parameters(model))
    values = tuple(jnp.asarray(arrays[name]) for name in names)
    return eqx.tree_at(lambda m: tuple(getattr(m, name) for name in names), model, values)
