"""Softmax attention within groups of tokens: the atoms or edges of one structure, or the tokens of one atom. Invariant.

The tokens of all groups share one flat array. They are gathered into padded rows, one per group, so that scores are dense
products and nothing passes between groups. A row has a fixed number of slots; if a group has more tokens, a slower path
compares chunks of queries with all keys and masks by group: the slots determine the cost, never the result.

    out_q = Σ_k w_k e_qk v_k / (Σ_k w_k e_qk + s),   e_qk = exp(⟨q_q, k_k⟩ / √d)   for each head

w is 1 for an ordinary token; the weight of a token that reaches the cutoff goes to zero, so that it leaves the sums
continuously. s = 1 is a sink, an empty token with score 0, which keeps the quotient smooth where all weights vanish together;
s = 0 is the plain softmax. Without keys the result is zero.
"""

from collections.abc import Callable
from math import ceil, sqrt
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Allowed = Callable[[Array, Array], Array]
"""Whether a query (by its index in the flat array) may attend to a key; both arrays broadcast."""

_CHUNK = 64  # queries per chunk on the slower path


class Groups(eqx.Module):
    """Assignment of tokens to rows.

    Attributes:
        group: The group of each token.
        present: False for tokens that are masked out.
        rows: Index of the token in each slot of each group; arbitrary in empty slots.
        filled: False for empty slots.
        slot: Slot of each token in its row.
        longest: Number of tokens in the largest group.
    """

    group: Int[Array, " tokens"]
    present: Bool[Array, " tokens"]
    rows: Int[Array, "groups slots"]
    filled: Bool[Array, "groups slots"]
    slot: Int[Array, " tokens"]
    longest: Int[Array, ""]

    @property
    def always_fits(self) -> bool:
        """Whether no group can have more tokens than slots, whatever the data."""
        return self.rows.shape[1] >= self.group.shape[0]


def group_tokens(*parts: tuple[Int[Array, " _"], Bool[Array, " _"]], num_groups: int, slots: int | None = None) -> Groups:
    """Assign tokens to rows by group.

    Args:
        parts: Group of each token, ascending within a part, and False for masked tokens; parts are concatenated.
        num_groups: Number of groups.
        slots: Length of a row; None: twice the average group size.
    """
    tokens = sum(part[0].shape[0] for part in parts)
    slots = min(max(slots or 8 * ceil(tokens / (4 * max(num_groups, 1))), 1), max(tokens, 1))
    total, places = jnp.zeros(num_groups, jnp.int32), []
    for group, present in parts:
        one = present.astype(jnp.int32)
        count = jax.ops.segment_sum(one, group, num_groups)
        start = jnp.cumsum(count) - count - total
        places.append(jnp.cumsum(one) - 1 - start[group])
        total = total + count
    group, present = (jnp.concatenate(column) for column in zip(*parts))
    slot = jnp.concatenate(places).astype(jnp.int32)
    row = jnp.where(present, group, num_groups)  # masked tokens, and those without a slot, are dropped
    rows = jnp.zeros((num_groups, slots), jnp.int32)
    rows = rows.at[row, slot].set(jnp.arange(tokens, dtype=jnp.int32), mode="drop")
    return Groups(
        group=group,
        present=present,
        rows=rows,
        filled=jnp.arange(slots, dtype=jnp.int32)[None] < total[:, None],
        slot=slot,
        longest=total.max(initial=0),
    )


def attend(
    q: Float[Array, "queries heads depth"],
    k: Float[Array, "keys heads depth"],
    v: Float[Array, "keys heads depth"],
    queries: Groups,
    keys: Groups,
    *,
    weight: Float[Array, " keys"] | None = None,
    sink: bool = False,
    allowed: Allowed | None = None,
) -> Float[Array, "queries channels"]:
    """Attention of each query over the keys of its group, heads concatenated.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        queries: Rows of the queries.
        keys: Rows of the keys, for the same groups.
        weight: Weights of the keys; None: 1.
        sink: Whether to add an empty token with score 0.
        allowed: A further mask on (query, key).
    """
    if not k.shape[0]:
        return jnp.zeros((q.shape[0], q.shape[1] * q.shape[2]), q.dtype)
    weight = jnp.ones_like(k[:, 0, 0]) if weight is None else weight

    def side_by_side(q: Array, k: Array, v: Array, weight: Array) -> Array:
        key_weights = jnp.where(keys.filled, weight[keys.rows], 0)[:, None]  # groups 1 keys
        if allowed is not None:
            key_weights = jnp.where(allowed(queries.rows[:, :, None], keys.rows[:, None]), key_weights, 0)
        out = _softmax_sum(q[queries.rows], k[keys.rows], v[keys.rows], key_weights, sink)
        return out[queries.group, jnp.clip(queries.slot, 0, out.shape[1] - 1)]

    def chunked(q: Array, k: Array, v: Array, weight: Array) -> Array:
        @jax.checkpoint
        def chunk(index: Array) -> Array:
            together = keys.present[None] & (queries.group[index][:, None] == keys.group[None])
            if allowed is not None:
                together = together & allowed(index[:, None], jnp.arange(k.shape[0], dtype=index.dtype)[None])
            key_weights = jnp.where(together, weight[None], 0)[None]
            return _softmax_sum(q[index][None], k[None], v[None], key_weights, sink)[0]

        num_queries = q.shape[0]
        index = jnp.arange(_CHUNK * ceil(num_queries / _CHUNK), dtype=jnp.int32) % max(num_queries, 1)
        return jax.lax.map(chunk, index.reshape(-1, _CHUNK)).reshape(-1, *q.shape[1:])[:num_queries]

    if queries.always_fits and keys.always_fits:
        out = side_by_side(q, k, v, weight)
    else:
        too_long = (queries.longest > queries.rows.shape[1]) | (keys.longest > keys.rows.shape[1])
        out = jax.lax.cond(too_long, jax.checkpoint(chunked), jax.checkpoint(side_by_side), q, k, v, weight)
    return jnp.where(queries.present[:, None], out.reshape(out.shape[0], -1), 0)


def _softmax_sum(q: Array, k: Array, v: Array, key_weights: Array, sink: bool) -> Float[Array, "groups queries heads depth"]:
    """The weighted softmax of rows; key_weights (groups, queries or 1, keys) are zero where a key is masked."""
    scores = jnp.einsum("gqhd,gkhd->ghqk", q, k) / sqrt(q.shape[-1])
    seen = (key_weights > 0)[:, None]
    # The quotient does not depend on the shift.
    top = jnp.where(seen, scores, 0.0 if sink else -jnp.inf).max(axis=-1, keepdims=True, initial=0.0 if sink else -jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    exponentials = jnp.where(seen, key_weights[:, None] * jnp.exp(jnp.where(seen, scores - top, 0)), 0)
    total = exponentials.sum(axis=-1, keepdims=True) + (jnp.exp(-top) if sink else 0)
    weights = exponentials / jnp.where(total > 0, total, 1)
    return jnp.einsum("ghqk,gkhd->gqhd", weights, v)


def heads_apart(x: Float[Array, "tokens channels"], num_heads: int) -> Any:
    """Split channels by head: tokens, heads, channels of a head."""
    return x.reshape(x.shape[0], num_heads, -1)
