"""Softmax attention of all queries over all keys, in bounded memory.

    out_q = Σ_k softmax_k(scale ⟨q_q, k_k⟩ + mask) v_k

`plain_attention` is the formula. `attention` is what runs: `jax.nn.dot_product_attention` in single precision, the formula in
double, where that function still takes its softmax in float32. Where the logits would not fit, attention is chunked over
queries, and rematerialised in the backward pass.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from equiform.algebra.precision import EXACT
from equiform.runtime.policy import attention_logits

Mask = Bool[Array, "#batch #heads queries keys"] | Float[Array, "#batch #heads queries keys"]


@dataclass(frozen=True)
class Execution:
    """How a model runs; changes speed and memory, not results beyond rounding.

    Attributes:
        max_logits: Maximum number of logits held, over batch, heads, queries and keys: 4 bytes each, a few times over. None:
            by the device. On CPUs pieces that stay in a core's cache are fastest; accelerators like more.
        kernel: "formula" or "library"; None: by precision. "flash" is the library's fused kernel, on GPUs that have it. It
            rounds queries, keys and values to bfloat16, which distances between points do not survive.
        rematerialise: Save only the inputs of each block for the backward pass, and recompute the blocks there.
    """

    max_logits: int | None = None
    kernel: Literal["formula", "library", "flash"] | None = None
    rematerialise: bool = False


DEFAULT = Execution()


def plain_attention(
    q: Float[Array, "batch queries heads features"],
    k: Float[Array, "batch keys key_heads features"],
    v: Float[Array, "batch keys key_heads values"],
    scale: float,
    mask: Mask | None = None,
) -> Float[Array, "batch queries heads values"]:
    """The formula; rows that see nothing give zeros.

    Args:
        q: Queries.
        k: Keys, of as many heads as the queries or one shared by all.
        v: Values.
        scale: Factor of the products.
        mask: True where a key is seen, or what is added to the scaled products.
    """
    heads = q.shape[2]
    k, v = (jnp.broadcast_to(x, (*x.shape[:2], heads, x.shape[3])) for x in (k, v))
    logits = jnp.einsum("bqhf,bkhf->bhqk", q, k, precision=EXACT) * scale
    seen, added = _split(mask)
    logits = logits if added is None else logits + added
    if seen is not None:
        # A finite stand-in for −∞, so that a row without any key has a gradient.
        logits = jnp.where(seen, logits, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1)
    weights = weights if seen is None else jnp.where(seen, weights, 0)
    return jnp.einsum("bhqk,bkhv->bqhv", weights, v, precision=EXACT)


def attention(
    q: Float[Array, "batch queries heads features"],
    k: Float[Array, "batch keys key_heads features"],
    v: Float[Array, "batch keys key_heads values"],
    scale: float,
    mask: Mask | None = None,
    *,
    segments: Int[Array, "batch keys"] | None = None,
    execution: Execution = DEFAULT,
) -> Float[Array, "batch queries heads values"]:
    """The result of `plain_attention`, by the kernel and in chunks that `execution` sets.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        scale: Factor of the products.
        mask: True where a key is seen, or what is added to the scaled products.
        segments: The set that each token belongs to; tokens see those of their own. Needs no array of queries by keys.
        execution: Kernel and memory.
    """
    batch, queries, heads, _ = q.shape
    kernel = execution.kernel or ("formula" if q.dtype == jnp.float64 else "library")
    at_once = max(attention_logits(execution.max_logits) // max(batch * heads * k.shape[1], 1), 1)
    if queries <= at_once:
        return _run(kernel, q, k, v, scale, _both(mask, segments, None))
    pieces = ceil(queries / at_once)
    index = jnp.arange(pieces * ceil(queries / pieces), dtype=jnp.int32).reshape(pieces, -1) % queries

    @jax.checkpoint
    def some(rows: Array) -> Array:
        return _run(kernel, q[:, rows], k, v, scale, _both(mask, segments, rows))

    out = jnp.moveaxis(jax.lax.map(some, index), 0, 1)
    return out.reshape(batch, -1, *out.shape[3:])[:, :queries]


def _both(mask: Array | None, segments: Array | None, rows: Array | None) -> Array | None:
    """The mask of some rows, with what segments forbid."""
    part = mask if mask is None or rows is None else mask[:, :, rows]
    if segments is None:
        return part
    of_rows = segments if rows is None else segments[:, rows]
    together = (of_rows[:, :, None] == segments[:, None, :])[:, None]
    if part is None:
        return together
    return together & part if part.dtype == bool else jnp.where(together, part, -jnp.inf)


def _split(mask: Array | None) -> tuple[Array | None, Array | None]:
    """Which keys are seen, and what is added to the logits of those."""
    if mask is None or mask.dtype == bool:
        return mask, None
    seen = mask > -jnp.inf
    return seen, jnp.where(seen, mask, 0)


def _run(kernel: str, q: Array, k: Array, v: Array, scale: float, mask: Array | None) -> Array:
    if kernel == "formula":
        return plain_attention(q, k, v, scale, mask)
    # The library wants keys and values of one size; zeros change neither products nor the sums that are kept.
    depth, values = q.shape[-1], v.shape[-1]
    size = max(depth, values) if kernel == "library" else 8 * ceil(max(depth, values) / 8)
    q, k = (jnp.pad(x, [(0, 0)] * 3 + [(0, size - depth)]) for x in (q, k))
    v = jnp.pad(v, [(0, 0)] * 3 + [(0, size - values)])
    seen, added = _split(mask)
    kind = q.dtype if kernel == "library" else jnp.bfloat16
    with jax.default_matmul_precision("highest"):
        out = jax.nn.dot_product_attention(
            *(x.astype(kind) for x in (q, k, v)),
            bias=None if added is None else added.astype(kind),
            mask=seen,
            scale=scale,
            implementation="xla" if kernel == "library" else "cudnn",
        )
    out = out.astype(q.dtype)[..., :values]
    if seen is None:
        return out
    return jnp.where(seen.any(-1).swapaxes(1, 2)[..., None], out, 0)
