"""Named sizes of GATr and its relatives, and how much a model costs by the authors' count.

The relatives come in two sizes each: with as many nominal floating-point operations as GATr, and with as many parameters.
Either way only the number of multivector channels changes.
"""

from typing import Any

import jax
import numpy as np

from equiform.errors import UserError
from equiform.models.gatr import GATr, GATrConfig
from equiform.nn.multivector import MultivectorLinear

_NBODY: dict[str, Any] = {"in_scalars": 1, "out_scalars": 1, "channels": 16, "scalars": 128, "num_blocks": 10, "num_heads": 8}
_ARTERIES: dict[str, Any] = {
    "in_channels": 3,
    "in_scalars": 1,
    "out_scalars": 1,
    "channels": 8,
    "scalars": 32,
    "num_blocks": 10,
    "num_heads": 4,
    "reinserted_channels": (0,),
}

PRESETS: dict[str, dict[str, Any]] = {
    "gatr-nbody": _NBODY | {"init": "published"},
    "gatr-nbody-small": _NBODY | {"channels": 8, "scalars": 32, "num_blocks": 4, "init": "published"},
    "gatr-arteries": _ARTERIES | {"init": "published"},
    "p-gatr-nbody": _NBODY | {"algebra": "projective"},
    "e-gatr-nbody": _NBODY | {"algebra": "euclidean", "channels": 32},
    "e-gatr-nbody-parameters": _NBODY | {"algebra": "euclidean", "channels": 20},
    "c-gatr-nbody": _NBODY | {"algebra": "conformal", "channels": 8},
    "c-gatr-nbody-parameters": _NBODY | {"algebra": "conformal", "channels": 12},
}
"""Arguments of `GATrConfig`. Plain names match GATr's nominal operations, "-parameters" its number of parameters."""


def gatr_preset(name: str, **changes: Any) -> GATrConfig:
    """A named configuration.

    Args:
        name: One of `PRESETS`.
        changes: Fields of `GATrConfig` to set differently.

    Raises:
        UserError: If there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no GATr preset {name!r}; there are {', '.join(PRESETS)}")
    return GATrConfig(**PRESETS[name] | changes)


def nominal_flops(model: GATr) -> int:
    """Floating-point operations of a training step for each token, as the authors count them.

    6 for every weight of a linear map taken as dense, a multivector channel counting as its components; attention, biases and
    products are not counted. What runs here is about an eighth of it, because maps act on spatial grades one by one.
    """
    size = model.config.geometry.algebra.num_components
    total = 0
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, MultivectorLinear))
    for layer in (node for node in nodes if isinstance(node, MultivectorLinear)):
        copies = layer.weight.shape[0] if layer.weight.ndim == 4 else 1
        out, into = layer.weight.shape[-3:-1]
        total += copies * size**2 * into * out
        weights = [part.weight for part in (layer.from_scalars, layer.to_scalars) if part is not None]
        weights += [] if layer.scalars is None else [layer.scalars]
        total += sum(np.prod(weight.shape, dtype=int) for weight in weights)
    return int(6 * total)
