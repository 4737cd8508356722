"""The architectures: one file each, one line each in `MODELS`."""

from typing import Any

from jaxtyping import PRNGKeyArray
from pydantic import BaseModel

from equiform.errors import UserError
from equiform.models.deep_sets import DeepSets, DeepSetsConfig
from equiform.models.demetar import DEMETAr, DEMETArConfig
from equiform.models.egnn import EGNN, EGNNConfig
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.linear_motion import LinearMotion, LinearMotionConfig
from equiform.models.se3_transformer import SE3Transformer, SE3TransformerConfig
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig
from equiform.models.transformer import Transformer, TransformerConfig

MODELS: dict[str, tuple[type[BaseModel], type]] = {
    "equiformer": (EquiformerConfig, Equiformer),
    "egnn": (EGNNConfig, EGNN),
    "torchmd-et": (TorchMDETConfig, TorchMDET),
    "demetar": (DEMETArConfig, DEMETAr),
    "se3-transformer": (SE3TransformerConfig, SE3Transformer),
    "linear": (LinearMotionConfig, LinearMotion),
    "deep-sets": (DeepSetsConfig, DeepSets),
    "transformer": (TransformerConfig, Transformer),
}


def parse_config(fields: dict[str, Any]) -> BaseModel:
    """A model's configuration from plain values, as in a model file.

    Raises:
        UserError: The architecture is not known.
        pydantic.ValidationError: A field is.
    """
    name = fields.get("name", "equiformer")
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name][0](**fields)


def build_model(config: BaseModel, *, key: PRNGKeyArray) -> Any:
    """A freshly initialised model."""
    return MODELS[config.name][1](config, key=key)  # type: ignore[attr-defined]
