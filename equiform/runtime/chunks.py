"""Chunking over edges and rematerialisation, so that memory need not hold the intermediate values of all edges."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name


def in_chunks(function: Callable[..., Any], arguments: Any, size: int | None) -> Any:
    """`function(*arguments)`, chunked over edges and rematerialised in the backward pass, except for saved residuals (`kept`).

    On a CPU the intermediate values of a chunk stay in cache; on any device their memory no longer grows with the number of
    edges.

    Args:
        function: Acts on each edge independently.
        arguments: Arrays with one row per edge; the number of rows is a multiple of `size`, if there is more than one chunk.
        size: Edges per chunk; None: not chunked, and not rematerialised.
    """
    num_edges = jax.tree.leaves(arguments)[0].shape[0]
    if size is None or num_edges <= size:
        return function(*arguments)
    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), arguments)
    done = jax.lax.map(recomputed(lambda chunk: function(*chunk)), folded)
    return jax.tree.map(lambda leaf: leaf.reshape(num_edges, *leaf.shape[2:]), done)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, rematerialised in the backward pass except for saved residuals (`kept`)."""
    return jax.checkpoint(function, prevent_cse=False, policy=_KEPT)


def kept(x: Array) -> Array:
    """Mark x as a saved residual: it is stored for the backward pass instead of rematerialised."""
    return checkpoint_name(x, _NAME)


_NAME = "kept"
_KEPT = jax.checkpoint_policies.save_only_these_names(_NAME)
