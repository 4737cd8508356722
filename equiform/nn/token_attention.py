"""Softmax attention among the tokens of a group: the atoms or edges of one structure, or what belongs to one atom. Invariant.

Tokens of all groups stand in one flat array. They are brought side by side, a row per group, so that scores are dense products
within groups and nothing passes from one group to another. A row has a fixed number of slots; where a group has more tokens,
a slower program compares some queries at a time with all keys and masks by group: slots decide the cost, never the result.

    out_q = Σ_k w_k e_qk v_k / (Σ_k w_k e_qk + s),   e_qk = exp(⟨q_q, k_k⟩ / √d)   for each head

w is 1 for an ordinary token; one that is about to disappear has a weight that fades, and leaves the sums continuously. s = 1
is a sink, an empty token with score 0, which keeps the quotient smooth where all weights fade together; s = 0 is the plain
softmax. Without any key the result is zero.
"""

from collections.abc import Callable
from math import ceil, sqrt
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Allowed = Callable[[Array, Array], Array]
"""Whether a query (by its place in the flat array) may see a key; both arrays broadcast."""

_CHUNK = 64  # queries at a time where rows are too short


class Groups(eqx.Module):
    """Which tokens stand in which row.

    Attributes:
        group: The group of each token.
        present: False for tokens that take no part.
        rows: Tokens of each group in its slots; any token where a slot is empty.
        filled: False for empty slots.
        slot: Where a token stands in its row.
        longest: Tokens of the largest group.
    """

    group: Int[Array, " tokens"]
    present: Bool[Array, " tokens"]
    rows: Int[Array, "groups slots"]
    filled: Bool[Array, "groups slots"]
    slot: Int[Array, " tokens"]
    longest: Int[Array, ""]

    @property
    def always_fits(self) -> bool:
        """Whether no group can have more tokens than slots."""
        return self.rows.shape[1] >= self.group.shape[0]


def group_tokens(*parts: tuple[Int[Array, " _"], Bool[Array, " _"]], num_groups: int, slots: int | None = None) -> Groups:
    """Bring tokens into rows by group.

    Args:
        parts: Group of each token, and whether it takes part; ascending in each part, which stand one after the other.
        num_groups: How many groups there are.
        slots: Length of a row; None: twice the average group.
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
    row = jnp.where(present, group, num_groups)  # what takes no part, or finds no place, is left out
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
    """What each query gathers from the keys of its group, heads side by side.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        queries: Rows of the queries.
        keys: Rows of the keys, of the same groups.
        weight: Weights of the keys; None: 1.
        sink: Whether there is an empty token with score 0.
        allowed: A further condition on (query, key).
    """
    if not k.shape[0]:
        return jnp.zeros((q.shape[0], q.shape[1] * q.shape[2]), q.dtype)
    weight = jnp.ones_like(k[:, 0, 0]) if weight is None else weight

    def side_by_side(q: Array, k: Array, v: Array, weight: Array) -> Array:
        shares = jnp.where(keys.filled, weight[keys.rows], 0)[:, None]  # groups 1 keys
        if allowed is not None:
            shares = jnp.where(allowed(queries.rows[:, :, None], keys.rows[:, None]), shares, 0)
        out = _softmax_sum(q[queries.rows], k[keys.rows], v[keys.rows], shares, sink)
        return out[queries.group, jnp.clip(queries.slot, 0, out.shape[1] - 1)]

    def one_by_one(q: Array, k: Array, v: Array, weight: Array) -> Array:
        @jax.checkpoint
        def some(index: Array) -> Array:
            together = keys.present[None] & (queries.group[index][:, None] == keys.group[None])
            if allowed is not None:
                together = together & allowed(index[:, None], jnp.arange(k.shape[0], dtype=index.dtype)[None])
            shares = jnp.where(together, weight[None], 0)[None]
            return _softmax_sum(q[index][None], k[None], v[None], shares, sink)[0]

        number = q.shape[0]
        index = jnp.arange(_CHUNK * ceil(number / _CHUNK), dtype=jnp.int32) % max(number, 1)
        return jax.lax.map(some, index.reshape(-1, _CHUNK)).reshape(-1, *q.shape[1:])[:number]

    if queries.always_fits and keys.always_fits:
        out = side_by_side(q, k, v, weight)
    else:
        too_long = (queries.longest > queries.rows.shape[1]) | (keys.longest > keys.rows.shape[1])
        out = jax.lax.cond(too_long, jax.checkpoint(one_by_one), jax.checkpoint(side_by_side), q, k, v, weight)
    return jnp.where(queries.present[:, None], out.reshape(out.shape[0], -1), 0)


def _softmax_sum(q: Array, k: Array, v: Array, shares: Array, sink: bool) -> Float[Array, "groups queries heads depth"]:
    """The weighted softmax of rows; shares (groups, queries or 1, keys) are zero where a key is not seen."""
    scores = jnp.einsum("gqhd,gkhd->ghqk", q, k) / sqrt(q.shape[-1])
    seen = (shares > 0)[:, None]
    # The quotient does not depend on what is subtracted.
    top = jnp.where(seen, scores, 0.0 if sink else -jnp.inf).max(axis=-1, keepdims=True, initial=0.0 if sink else -jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    grown = jnp.where(seen, shares[:, None] * jnp.exp(jnp.where(seen, scores - top, 0)), 0)
    total = grown.sum(axis=-1, keepdims=True) + (jnp.exp(-top) if sink else 0)
    weights = grown / jnp.where(total > 0, total, 1)
    return jnp.einsum("ghqk,gkhd->gqhd", weights, v)


def heads_apart(x: Float[Array, "tokens channels"], num_heads: int) -> Any:
    """Channels apart by head: tokens, heads, channels of a head."""
    return x.reshape(x.shape[0], num_heads, -1)
