"""Layers of equal shapes as rows of numbers, for a loop over layers.

Stacked layers are a tree of arrays (layers, ...). A loop that reads every array of a layer by itself makes a copy for each, in
every pass forward and backward, and in the backward pass it writes every gradient by itself: on a GPU these are kernels that
copy a few bytes. From rows it reads one, and writes one.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rows(layers: Any) -> tuple[Float[Array, "layers numbers"] | None, Callable[[Float[Array, " numbers"]], Any]]:
    """One row per layer, and the function that makes a layer from a row; no rows where there are no arrays.

    Args:
        layers: A module whose arrays have a leading axis over layers, all of one type.
    """
    arrays, static = eqx.partition(layers, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    shapes = [leaf.shape[1:] for leaf in leaves]

    def layer(row: Array) -> Any:
        pieces = jax.lax.split(row, [prod(shape) for shape in shapes])
        parts = [piece.reshape(shape) for piece, shape in zip(pieces, shapes)]
        return eqx.combine(jax.tree.unflatten(tree, parts), static)

    if not leaves:
        return None, layer
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1), layer
