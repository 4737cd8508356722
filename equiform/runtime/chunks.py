"""Chunked over edges, and rematerialised: memory need not grow with the intermediate values of all edges."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name


def in_chunks(function: Callable[..., Any], arguments: Any, size: int | None) -> Any:
    """`function(*arguments)`, some edges at a time; what happens inside is computed again for derivatives, unless `kept`.

    On a processor the intermediate values of a chunk stay in its caches; anywhere, the memory they need no longer grows with
    the number of edges.

    Args:
        function: Acts on each edge by itself.
        arguments: Arrays with one row per edge; the number of rows is a multiple of `size`, if there is more than one chunk.
        size: Edges per chunk; None: all at once, and kept.
    """
    num_edges = jax.tree.leaves(arguments)[0].shape[0]
    if size is None or num_edges <= size:
        return function(*arguments)
    folded = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), arguments)
    done = jax.lax.map(recomputed(lambda chunk: function(*chunk)), folded)
    return jax.tree.map(lambda leaf: leaf.reshape(num_edges, *leaf.shape[2:]), done)


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what happens inside is computed again for derivatives, unless `kept`."""
    return jax.checkpoint(function, prevent_cse=False, policy=_KEPT)


def kept(x: Array) -> Array:
    """x, marked: of what is computed again for derivatives it is stored instead."""
    return checkpoint_name(x, _NAME)


_NAME = "kept"
_KEPT = jax.checkpoint_policies.save_only_these_names(_NAME)
