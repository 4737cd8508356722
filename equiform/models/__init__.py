"""The architectures: one file each, one line each in `MODELS`."""

from typing import Any

from jaxtyping import PRNGKeyArray

from equiform.errors import UserError
from equiform.models.api import Model, ModelConfig
from equiform.models.committee import Committee, CommitteeConfig
from equiform.models.deep_sets import DeepSets, DeepSetsConfig
from equiform.models.demetar import DEMETAr, DEMETArConfig
from equiform.models.egnn import EGNN, EGNNConfig
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.gatr_atoms import AtomsGATr, AtomsGATrConfig
from equiform.models.gatr_motion import MotionGATr, MotionGATrConfig
from equiform.models.gatr_surface import SurfaceGATr, SurfaceGATrConfig
from equiform.models.linear_motion import LinearMotion, LinearMotionConfig
from equiform.models.se3_transformer import SE3Transformer, SE3TransformerConfig
from equiform.models.token_motion import TokenMotion, TokenMotionConfig
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig
from equiform.models.transformer import Transformer, TransformerConfig

MODELS: dict[str, tuple[type[ModelConfig], type[Model]]] = {
    "equiformer": (EquiformerConfig, Equiformer),
    "egnn": (EGNNConfig, EGNN),
    "torchmd-et": (TorchMDETConfig, TorchMDET),
    "demetar": (DEMETArConfig, DEMETAr),
    "se3-transformer": (SE3TransformerConfig, SE3Transformer),
    "linear": (LinearMotionConfig, LinearMotion),
    "deep-sets": (DeepSetsConfig, DeepSets),
    "transformer": (TransformerConfig, Transformer),
    "gatr": (AtomsGATrConfig, AtomsGATr),
    "gatr-motion": (MotionGATrConfig, MotionGATr),
    "gatr-surface": (SurfaceGATrConfig, SurfaceGATr),
    "token-motion": (TokenMotionConfig, TokenMotion),
}
COMPOSED: dict[str, tuple[type[ModelConfig], type[Model]]] = {"committee": (CommitteeConfig, Committee)}
"""Models made of trained models: in model files, but not for a recipe to choose."""


def parse_config(fields: dict[str, Any]) -> ModelConfig:
    """A model's configuration from plain values, as in a model file.

    Raises:
        UserError: The architecture is unknown.
        pydantic.ValidationError: A field is invalid.
    """
    name = fields.get("name", "equiformer")
    known = MODELS | COMPOSED
    if name not in known:
        raise UserError(f"there is no model {name!r}; there are: {', '.join(MODELS)}")
    return known[name][0](**fields)


def upgraded(fields: dict[str, Any]) -> dict[str, Any]:
    """A configuration's fields from an earlier version, under their current names.

    A name or None becomes a tuple of names where the new field holds several.
    """
    renamed = MODELS[fields["name"]][0].renamed_fields if fields.get("name") in MODELS else {}
    out = {name: value for name, value in fields.items() if name not in renamed}
    for old, new in renamed.items():
        if old in fields and new:
            value = fields[old]
            out[new] = () if value is None else (value,) if isinstance(value, str) else value
    return out


def build_model(config: ModelConfig, *, key: PRNGKeyArray) -> Model:
    """A freshly initialised model."""
    return (MODELS | COMPOSED)[config.name][1](config, key=key)  # pyright: ignore[reportCallIssue]
