"""The weights of a model's linear maps as matrices: what low-rank adapters change, and what Muon orthogonalises."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.models.equiformer_radial import RadialMLP
from equiform.nn.dense import Dense
from equiform.nn.linear import Linear
from equiform.nn.multivector import Affine, MultivectorLinear

_MAPS_LAST = "maps last"
LINEAR_MAPS: dict[type, dict[str, str]] = {
    Linear: {"weights": ""},
    Dense: {"weight": ""},
    RadialMLP: {"weights": ""},
    Affine: {"weight": ""},
    MultivectorLinear: {"weight": _MAPS_LAST, "scalars": ""},
}
"""The rule: the attributes of these layers are matrices. The last two axes are (in, out), one matrix for each irrep and block;
those of multivectors are (out, in, maps), one matrix for each map."""


class LinearMap(NamedTuple):
    """Weights of a linear map: their shape as a stack of matrices, and whether the last axis is that of the maps."""

    stack: tuple[int, ...]
    rows: int
    columns: int
    maps_last: bool

    def matrices(self, weights: Float[Array, "..."]) -> Float[Array, "stack rows columns"]:
        """The weights as one stack of matrices; they may have further axes in front, such as that of members."""
        stacked = jnp.moveaxis(weights, -1, -3) if self.maps_last else weights
        return stacked.reshape(-1, self.rows, self.columns)

    def weights(self, matrices: Float[Array, "stack rows columns"], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """The inverse of `matrices`, for weights of that shape."""
        if not self.maps_last:
            return matrices.reshape(shape)
        return jnp.moveaxis(matrices.reshape(*shape[:-3], shape[-1], *shape[-3:-1]), -3, -1)


def linear_maps(model: Any) -> dict[str, LinearMap]:
    """The weights of all linear maps of a model by name, as `LINEAR_MAPS` declares them."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_inexact_array)):
        node: Any = model
        kind = None
        for key in path:
            if isinstance(key, jax.tree_util.GetAttrKey):
                kind = LINEAR_MAPS.get(type(node), {}).get(key.name)
                node = getattr(node, key.name)
            else:
                node = node[key.key if isinstance(key, jax.tree_util.DictKey) else key.idx]
        if kind is not None:
            shape, name = list(leaf.shape), jax.tree_util.keystr(path, simple=True, separator=".")
            if kind == _MAPS_LAST:
                shape.insert(-2, shape.pop())
            found[name] = LinearMap(tuple(shape[:-2]), shape[-2], shape[-1], kind == _MAPS_LAST)
    return found
