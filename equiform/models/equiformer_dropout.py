"""Equiformer's equivariant dropout: drops whole irrep copies or whole graphs. A None key disables it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from equiform.algebra.so3.features import Features


def equivariant_dropout(x: Features, rate: float, *, key: PRNGKeyArray | None) -> Features:
    """Drop irrep copies, all components together."""
    if key is None or rate == 0:
        return x
    keys = jax.random.split(key, len(x.blocks))
    blocks = []
    for k, block in zip(keys, x.blocks):
        mask = jax.random.bernoulli(k, 1 - rate, (*block.shape[:-2], 1, block.shape[-1]))
        blocks.append(jnp.where(mask, block / (1 - rate), 0))
    return Features(blocks, x.irreps)


def graph_drop_path(
    x: Features, rate: float, graph_index: Int[Array, " atoms"], num_graphs: int, *, key: PRNGKeyArray | None
) -> Features:
    """Stochastic depth: drop a residual branch for whole graphs."""
    if key is None or rate == 0:
        return x
    mask = jax.random.bernoulli(key, 1 - rate, (num_graphs,))[graph_index]
    return x.map(lambda block: jnp.where(mask[:, None, None], block / (1 - rate), 0))
