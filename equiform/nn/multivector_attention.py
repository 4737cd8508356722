"""Attention between tokens of multivectors and scalars: one dot product on concatenated invariant features.

    logit = (Σ_c ⟨q_c, k_c⟩ + Σ_c e^{w_hc} D(q_c, k_c) + q_s · k_s) / √(number of features)

The inner product keeps the components that the algebra's form does not annihilate. D, of the improved projective algebra only,
compares positions of points, which the degenerate inner product cannot see:

    t = (x11, x12, x13, x14) · x14 / (x14² + ε),   D = −|q⃗ k4 − k⃗ q4|²  →  −|p − q|² for points of weight 1
    φ(q) = (|q⃗|², q4², q1 q4, q2 q4, q3 q4),   ψ(k) = (−k4², −|k⃗|², 2 k1 k4, 2 k2 k4, 2 k3 k4),   D = φ · ψ

so that all of it is ordinary attention. Invariant weights, hence equivariant.

Source: Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), section 3.3 and appendix A; authors' code for ε and features.
"""

from math import sqrt

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equiform.algebra.clifford.geometry import Geometry
from equiform.algebra.clifford.products import lowered
from equiform.nn.dense_attention import DEFAULT, Execution, attention

Heads = Float[Array, "*batch tokens heads channels components"]
HeadScalars = Float[Array, "*batch tokens heads scalars"]
KeyHeads = Float[Array, "*batch tokens key_heads channels components"]
ValueHeads = Float[Array, "*batch tokens key_heads value_channels components"]
KeyScalars = Float[Array, "*batch tokens key_heads scalars"]
AttentionMask = Bool[Array, "..."] | Float[Array, "..."]

_EPSILON = 1e-3  # released value; makes D −0.996 |p − q|² for points of weight 1


def multivector_attention(
    geometry: Geometry,
    queries: tuple[Heads, HeadScalars],
    keys: tuple[KeyHeads, KeyScalars],
    values: tuple[ValueHeads, KeyScalars],
    *,
    log_weights: Float[Array, "heads channels"] | None = None,
    mask: AttentionMask | None = None,
    segments: Int[Array, "*batch tokens"] | None = None,
    execution: Execution = DEFAULT,
) -> tuple[Float[Array, "*batch tokens heads value_channels components"], HeadScalars]:
    """What each token gathers, by head.

    Args:
        geometry: The model of space.
        queries: Multivectors and scalars.
        keys: The same, of as many heads or of one shared by all.
        values: The same; their channels need not be as many.
        log_weights: w, for distances between points; None: no distances.
        mask: True where a token is seen, or what is added to the logits; tokens by tokens, or batch and heads before them.
        segments: The set that each token belongs to.
        execution: Kernel and memory.
    """
    q, (v, v_s) = queries[0], values
    features = query_features(geometry, *queries, log_weights), key_features(geometry, *keys, distances=log_weights is not None)
    batch, tokens = q.shape[:-4], q.shape[-4]
    value_features = jnp.concatenate([_flat(v), v_s], axis=-1)
    out = attention(
        features[0].reshape(-1, *features[0].shape[-3:]),
        features[1].reshape(-1, *features[1].shape[-3:]),
        value_features.reshape(-1, *value_features.shape[-3:]),
        1 / sqrt(features[0].shape[-1]),
        _four_axes(mask, batch),
        segments=None if segments is None else segments.reshape(-1, tokens),
        execution=execution,
    ).reshape(*batch, tokens, q.shape[-3], -1)
    width = v.shape[-2] * v.shape[-1]
    return out[..., :width].reshape(*out.shape[:-1], *v.shape[-2:]), out[..., width:]


def query_features(
    geometry: Geometry, q: Heads, s: HeadScalars, log_weights: Float[Array, "heads channels"] | None
) -> Float[Array, "*batch tokens heads features"]:
    """Features of queries; their dot product with `key_features` is the logit before the division by √(their number).

    Args:
        geometry: The model of space.
        q: Multivectors.
        s: Scalars.
        log_weights: w, for distances between points; None: no distances.
    """
    parts = [_flat(_kept(geometry, lowered(geometry.algebra, q), with_points=log_weights is None)), s]
    if log_weights is not None:
        scale = jnp.exp(log_weights).reshape((1,) * (q.ndim - 3) + (*log_weights.shape, 1))
        parts.append(_flat(scale * _from_query(_weighted_points(q))))
    return jnp.concatenate(parts, axis=-1)


def key_features(
    geometry: Geometry, k: KeyHeads, s: KeyScalars, *, distances: bool
) -> Float[Array, "*batch tokens key_heads features"]:
    """Features of keys.

    Args:
        geometry: The model of space.
        k: Multivectors.
        s: Scalars.
        distances: Whether queries have weights of distances.
    """
    parts = [_flat(_kept(geometry, k, with_points=not distances)), s]
    return jnp.concatenate([*parts, _flat(_from_key(_weighted_points(k)))] if distances else parts, axis=-1)


def rotary(s: HeadScalars, *, base: float = 4096.0) -> HeadScalars:
    """Scalars of each head turned by the token's place in the sequence, halves of the channels as real and imaginary part."""
    tokens, half = s.shape[-3], s.shape[-1] // 2
    frequencies = base ** (-np.arange(half) / half)
    angles = (np.arange(tokens)[:, None] * frequencies)[:, None].reshape((1,) * (s.ndim - 3) + (tokens, 1, half))
    cos, sin = (jnp.asarray(f(angles), s.dtype) for f in (np.cos, np.sin))
    low, high = s[..., :half], s[..., half:]
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def _weighted_points(x: Heads) -> Float[Array, "*batch tokens heads channels 4"]:
    """(x11, x12, x13, x14) · x14 / (x14² + ε): a point's moments and weight, of weight about 1."""
    weight = x[..., 14:15]
    return x[..., 11:15] * (weight / (weight**2 + _EPSILON))


def _from_query(t: Array) -> Array:
    vector, weight = t[..., :3], t[..., 3:]
    return jnp.concatenate([(vector**2).sum(-1, keepdims=True), weight**2, vector * weight], axis=-1)


def _from_key(t: Array) -> Array:
    vector, weight = t[..., :3], t[..., 3:]
    return jnp.concatenate([-(weight**2), -(vector**2).sum(-1, keepdims=True), 2 * vector * weight], axis=-1)


def _kept(geometry: Geometry, x: Array, *, with_points: bool) -> Array:
    """The components that the algebra's form does not annihilate; e123, a point's weight, is left to D where D is used."""
    algebra = geometry.algebra
    kept = np.flatnonzero(np.abs(algebra.form).sum(0))
    if not with_points:
        kept = kept[kept != algebra.index("e123")]
    return x if len(kept) == algebra.num_components else _take(x, kept)


def _take(x: Array, kept: np.ndarray) -> Array:
    """Components as runs of neighbours: slices have a cheap derivative, a gather does not."""
    runs = np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)
    return jnp.concatenate([x[..., run[0] : run[-1] + 1] for run in runs], axis=-1)


def _flat(x: Array) -> Array:
    return x.reshape(*x.shape[:-2], -1)


def _four_axes(mask: AttentionMask | None, batch: tuple[int, ...]) -> Array | None:
    """A mask as (batch or 1, heads or 1, tokens, tokens), leading axes flattened."""
    if mask is None:
        return None
    if mask.ndim == 2:
        return mask[None, None]
    if mask.ndim != len(batch) + 3:
        raise ValueError(
            f"the attention mask has shape {mask.shape}; give tokens by tokens, or {len(batch)} axes for the batch and one for "
            "heads (either may be 1) before them"
        )
    return jnp.broadcast_to(mask, (*batch, *mask.shape[-3:])).reshape(-1, *mask.shape[-3:])
