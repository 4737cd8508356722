"""Softmax attention over the incoming edges of each node, in two forms: the plain formula, and a fast streaming form.

    a_e = softmax of l_e over the edges into a node,    f_i = Σ_{e → i} a_e v_e            for each head

With an envelope φ(d), a_e = φ_e · φ_e exp(l_e) / Σ φ_e' exp(l_e'): one factor makes the sum smooth, the other makes the weight
itself vanish at the cutoff, even where the edge is the node's only one and the ratio is one. Weights are zero on edges outside
the cutoff, on padding, and for nodes without edges. Both forms take a message function, (inputs of some edges) → (logits,
values), and are equal up to rounding. Equivariant under the group of the values, if the logits are invariant.

Source: Liao & Smidt, ICLR 2023, section 3.3; Fuchs et al., NeurIPS 2020, eq. 10.
Differs: the references have no envelope, and their attention is discontinuous when an edge crosses the cutoff.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from equiform.algebra.so3.features import Features
from equiform.edges import Edges
from equiform.nn.dropout import dropout
from equiform.runtime.chunks import in_chunks, kept

Message = Callable[..., tuple[Array, Features]]
"""Logits (edges, heads) and values of some edges, from arrays with one row per edge."""


def attention(
    message: Message,
    inputs: tuple[Any, ...],
    edges: Edges,
    *,
    dropout_rate: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Features, Float[Array, "edges heads"]]:
    """The plain form: all logits, their softmax, the weighted sum.

    Args:
        message: Per-edge function; chunked over edges.
        inputs: Its arguments.
        edges: The edges.
        dropout_rate: Dropout rate of the attention weights.
        key: PRNG key for dropout; None means evaluation.

    Returns:
        The sums at the receivers, and the attention weights before dropout.
    """
    logits, values = in_chunks(message, inputs, edges.chunk)
    weights = edge_softmax(logits, edges)
    return sum_over_edges(weigh_heads(values, dropout(weights, dropout_rate, key=key)), edges), weights


def streaming_attention(
    message: Message,
    inputs: tuple[Any, ...],
    edges: Edges,
    *,
    dropout_rate: float = 0.0,
    key: PRNGKeyArray | None = None,
) -> tuple[Features, Float[Array, "edges heads"]]:
    """The same as `attention`; values are weighted as soon as they are computed, without waiting for other chunks' logits.

    Each chunk subtracts the maximum logit of each receiver over its own edges. Its weighted values are saved residuals;
    afterwards they are rescaled to a common shift, which the only chunk has already, summed over edges and divided by the
    normaliser.
    """

    def weighted(inputs: tuple, inside: Bool[Array, " some"], envelope: Array | None, rank: Int[Array, " some"]) -> tuple:
        logits, values = message(*inputs)
        logits = jnp.where(inside[:, None], logits, -jnp.inf)
        own = rank - rank[0]
        highest = jax.ops.segment_max(jax.lax.stop_gradient(logits), own, len(own), indices_are_sorted=True)
        shift = kept(highest[own])
        weights = kept(jnp.exp(logits - jnp.where(jnp.isfinite(shift), shift, 0)))
        if envelope is None:
            return weigh_heads(values, weights), weights, shift
        weights = weights * envelope[:, None]
        return weigh_heads(values, weights * envelope[:, None]), weights, shift

    # Consecutive indices of the receivers that have edges: a chunk has no more of them than edges.
    rank = jnp.cumsum(jnp.diff(edges.receivers, prepend=edges.receivers[:1]) > 0)
    values, weights, shift = in_chunks(weighted, (inputs, edges.inside, edges.envelope, rank), edges.chunk)
    rescale = jnp.ones_like(shift) if edges.chunk is None else _to_common_shift(shift, edges)
    total = edges.sum_at_receivers(weights * rescale) + 1e-16
    normalized = weights * rescale / edges.at_receivers(total)
    if edges.envelope is not None:
        normalized = normalized * edges.envelope[:, None]
    rescale = dropout(rescale, dropout_rate, key=key)
    summed = sum_over_edges(weigh_heads(values, rescale), edges)
    return weigh_heads(summed, 1 / total), normalized


def edge_softmax(logits: Float[Array, "edges heads"], edges: Edges) -> Float[Array, "edges heads"]:
    """Attention weights a_e from logits l_e."""
    logits = jnp.where(edges.inside[:, None], logits, -jnp.inf)
    highest = jax.ops.segment_max(jax.lax.stop_gradient(logits), edges.receivers, edges.num_atoms, indices_are_sorted=True)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    weights = jnp.exp(logits - edges.at_receivers(highest))
    if edges.envelope is not None:
        weights = weights * edges.envelope[:, None]
    normalized = weights / (edges.at_receivers(edges.sum_at_receivers(weights)) + 1e-16)
    return normalized if edges.envelope is None else normalized * edges.envelope[:, None]


def weigh_heads(values: Features, weights: Float[Array, "rows heads"]) -> Features:
    """Multiply each head's channels (contiguous in every block) by its weight."""

    def weigh(block: Array) -> Array:
        by_head = block.reshape(*block.shape[:2], weights.shape[1], -1)
        return (by_head * weights[:, None, :, None]).reshape(block.shape)

    return values.map(weigh)


def sum_over_edges(values: Features, edges: Edges) -> Features:
    """Sum edge features at their receivers."""
    sizes = [block.shape[1:] for block in values.blocks]
    flat = jnp.concatenate([block.reshape(block.shape[0], -1) for block in values.blocks], axis=1)
    summed = kept(edges.sum_at_receivers(flat))  # one saved residual for all blocks
    ends = np.cumsum([rows * channels for rows, channels in sizes])
    parts = jnp.split(summed, ends[:-1], axis=1)
    return Features([part.reshape(-1, *size) for part, size in zip(parts, sizes)], values.irreps)


def _to_common_shift(shift: Float[Array, "edges heads"], edges: Edges) -> Float[Array, "edges heads"]:
    """exp(shift − largest shift of the receiver): zero where the shift is −∞. No gradient flows through it."""
    shift = jax.lax.stop_gradient(shift)
    highest = jax.ops.segment_max(shift, edges.receivers, edges.num_atoms, indices_are_sorted=True)
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    return jnp.exp(shift - edges.at_receivers(highest))
