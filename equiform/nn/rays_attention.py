"""Attention on the space of rays: rays among rays, and points among rays.

    key_o(x, y) = Σ_i K_oi(x, y) W_i f_i(y),    value likewise with other K and W
    logit(x, y) = Σ_o Re ⟨W f_o(x), key_o(x, y)⟩ / √dim,    out(x) = W Σ_y softmax_y(logit) value(x, y)

All types are unitary, so logits are invariant under SE(3) and independent of the section. Keys and values belong to pairs, but
no array of pairs times channels is made: the radial functions are sums of few hidden channels, and each of these is a product
of matrices (see `nn.rays.Radial`). A test compares this with the formula written out pair by pair.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871). Differs: smooth kernels, a^k R(cos θ, c) with ω = 0.
"""

from collections.abc import Sequence
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, PRNGKeyArray

from equiform.algebra.pluecker import PointPairs, RayPairs, RayType, power
from equiform.nn.dense import MLP, Dense
from equiform.nn.rays import Radial, RayField, RayLinear, as_complex, as_type
from equiform.nn.rays_convolution import pair_factor


class RayAttention(eqx.Module):
    """Each ray among its neighbours, see above. Equivariant under SE(3); add the result to the field."""

    query: RayLinear
    key: RayLinear
    value: RayLinear
    out: RayLinear
    key_radial: Radial
    value_radial: Radial
    num_heads: int = eqx.field(static=True)

    def __init__(
        self, types: Sequence[RayType], channels: int, num_heads: int, *, inputs: int = 2, hidden: int = 8, key: PRNGKeyArray
    ):
        """Make the layer.

        Args:
            types: Types of the field, with ω = 0.
            channels: Channels of each type, a multiple of `num_heads`.
            num_heads: Attention heads.
            inputs: Invariants of a pair.
            hidden: Hidden channels of each radial function.
            key: For the initial parameters.
        """
        keys = jax.random.split(key, 6)
        self.query, self.key, self.value, self.out = (RayLinear(types, channels, channels, key=k) for k in keys[:4])
        self.key_radial, self.value_radial = (Radial(len(types) ** 2, inputs, hidden, channels, key=k) for k in keys[4:])
        self.num_heads = num_heads

    def __call__(
        self,
        field: RayField,
        pairs: RayPairs,
        invariants: Float[Array, "rays rays inputs"],
        neighbors: Bool[Array, "rays rays"],
    ) -> RayField:
        """The attention output of each ray; zero for rays without neighbours.

        Args:
            field: Values on the rays.
            pairs: All pairs of the rays.
            invariants: Inputs of the radial functions, for each pair.
            neighbors: True where the second ray is a key of the first.
        """
        weights = masked_softmax(self.logits(field, pairs, invariants), neighbors[..., None])
        basis, coefficients = self.value_radial.basis(invariants), self.value_radial.coefficients
        source, values = self.value(field), []
        for o, kind_out in enumerate(field.types):
            total = 0.0
            for i, kind_in in enumerate(field.types):
                n = o * len(field.types) + i
                kernel = pair_factor(pairs, kind_out, kind_in, "smooth")[..., None] * as_complex(basis[..., n, :])
                apart = _heads(as_complex(source.values[i]), self.num_heads)
                summed = jnp.einsum("xyh,xyj,yhc->xjhc", as_complex(weights), kernel, apart)
                total = total + jnp.einsum("xjhc,jhc->xhc", summed, _heads(coefficients[n], self.num_heads))
            total = jnp.asarray(total)
            values.append(as_type(total.reshape(total.shape[0], -1), kind_out))
        return self.out(RayField(tuple(values), field.types))

    def logits(
        self, field: RayField, pairs: RayPairs, invariants: Float[Array, "rays rays inputs"]
    ) -> Float[Array, "rays rays heads"]:
        """Σ_o Re ⟨q_o, key_o⟩ / √(channels of a head × types). Invariant."""
        basis, coefficients = self.key_radial.basis(invariants), self.key_radial.coefficients
        asked, source, total = self.query(field), self.key(field), 0.0
        for o, kind_out in enumerate(field.types):
            query = _heads(jnp.conj(as_complex(asked.values[o])), self.num_heads)
            for i, kind_in in enumerate(field.types):
                n = o * len(field.types) + i
                rows = _heads(coefficients[n], self.num_heads)[None] * query[:, None]  # rays j heads channels
                products = jnp.einsum("xjhc,yhc->xyjh", rows, _heads(as_complex(source.values[i]), self.num_heads))
                kernel = pair_factor(pairs, kind_out, kind_in, "smooth")[..., None] * as_complex(basis[..., n, :])
                total = total + _real_part_of_sum(kernel, products)
        depth = field.values[0].shape[-1] // self.num_heads * len(field.types)
        return jnp.asarray(total) / sqrt(depth)


class PointState(eqx.Module):
    """Features at points.

    Attributes:
        scalars: Invariant channels.
        vectors: Channels that rotate.
    """

    scalars: Float[Array, "points channels"]
    vectors: Float[Array, "points channels 3"]

    def __add__(self, other: "PointState") -> "PointState":
        return PointState(self.scalars + other.scalars, self.vectors + other.vectors)


class PointAttention(eqx.Module):
    """Each point among rays; the keys and values are invariants of the pair, the output has vectors as well.

        S = Σ_k Re(R_k(r) ā_s^k W_k f_k(y)) [+ W F(p) + W (V(p) · e_i)]         a_s = a / √(1 + r²), r_s likewise
        logit = W SiLU(S),    w = softmax over the rays
        F ← Σ_y w S,    V ← Σ_y w Σ_i C_i(r) (W_i SiLU(S)) e_i,    e = (d, r_s u, r_s d × u)

    The terms in brackets are there where the points have features already. Scalars are invariant, vectors equivariant under
    SE(3). Not O(3): d × u is a pseudo-vector. Rays through the point have r = 0 and bring f_0 and d alone.
    """

    mix: RayLinear
    radial: Radial
    score: Dense
    vector: Dense
    vector_radial: MLP
    scalars_in: Dense | None
    vectors_in: Dense | None
    types: tuple[RayType, ...] = eqx.field(static=True)

    def __init__(
        self,
        types: Sequence[RayType],
        channels: int,
        num_heads: int,
        *,
        inputs: int = 1,
        hidden: int = 8,
        with_state: bool = False,
        key: PRNGKeyArray,
    ):
        """Make the layer.

        Args:
            types: Types of the field, with ω = 0.
            channels: Channels of each type and of the points, a multiple of `num_heads`.
            num_heads: Attention heads.
            inputs: Invariants of a pair.
            hidden: Hidden channels of each radial function.
            with_state: Whether the points have features.
            key: For the initial parameters.
        """
        keys = jax.random.split(key, 7)
        self.types = tuple(types)
        self.mix = RayLinear(types, channels, channels, key=keys[0])
        self.radial = Radial(len(types), inputs, hidden, channels, key=keys[1])
        self.score = Dense(channels, num_heads, bias=False, key=keys[2])
        self.vector = Dense(channels, 3 * channels, bias=False, key=keys[3])
        self.vector_radial = MLP(inputs, hidden, 3 * channels, key=keys[4])
        self.scalars_in = Dense(channels, channels, bias=False, key=keys[5]) if with_state else None
        self.vectors_in = Dense(3 * channels, channels, bias=False, key=keys[6]) if with_state else None

    def __call__(
        self,
        field: RayField,
        pairs: PointPairs,
        invariants: Float[Array, "points rays inputs"],
        neighbors: Bool[Array, "points rays"],
        state: PointState | None = None,
    ) -> PointState:
        """The attention output of each point; zero for points without rays.

        Args:
            field: Values on rays that all points share, (rays, channels), or on each point's own rays.
            pairs: The points and the rays.
            invariants: Inputs of the radial functions, for each pair; (r,) at least.
            neighbors: True where the ray is a key of the point.
            state: The points' features, if the layer was made for them.
        """
        parts, weights = self.parts(field, pairs, invariants, neighbors, state)
        apart = parts.reshape(*parts.shape[:2], weights.shape[-1], -1)
        scalars = (weights[..., None] * apart).sum(axis=1).reshape(len(parts), -1)
        # Weights times coefficients, by axis and channel; the axes themselves are the same for all channels.
        strength = self.vector_radial(invariants, jnp.tanh) * self.vector(jax.nn.silu(parts))
        strength = weights[:, :, None, :, None] * strength.reshape(*parts.shape[:2], 3, weights.shape[-1], -1)
        strength = strength.reshape(*parts.shape[:2], 3, -1)
        # Sums of products, which fuse; a product of matrices for each point, three columns wide, takes far longer.
        vectors = jnp.stack([(strength * axis[..., None]).sum(axis=(1, 2)) for axis in _components(_axes(pairs))], axis=-1)
        return PointState(scalars, vectors)

    def parts(
        self,
        field: RayField,
        pairs: PointPairs,
        invariants: Float[Array, "points rays inputs"],
        neighbors: Bool[Array, "points rays"],
        state: PointState | None = None,
    ) -> tuple[Float[Array, "points rays channels"], Float[Array, "points rays heads"]]:
        """S and the attention weights. Invariant."""
        near = pairs.a / as_complex(jnp.sqrt(1 + pairs.distance**2))
        basis, coefficients = self.radial.basis(invariants), self.radial.coefficients
        mixed, total = self.mix(field), 0.0
        for i, kind in enumerate(self.types):
            value = mixed.values[i] if mixed.values[i].ndim == 3 else mixed.values[i][None]
            # In real numbers, where sums over pairs are a lot faster.
            real, imag = basis[..., i, :] @ coefficients[i].real, basis[..., i, :] @ coefficients[i].imag
            if kind.trivial:
                total = total + real * value
                continue
            turn = power(near, kind.k)[..., None]
            total = (
                total + (real * turn.real + imag * turn.imag) * value.real - (imag * turn.real - real * turn.imag) * value.imag
            )
        parts = jnp.asarray(total)
        if state is not None and self.scalars_in is not None and self.vectors_in is not None:
            rows = zip(_components(state.vectors), _components(_axes(pairs)))
            seen = jnp.asarray(sum(vector[:, None, None] * axis[..., None] for vector, axis in rows))
            parts = parts + self.scalars_in(state.scalars)[:, None] + self.vectors_in(seen.reshape(*seen.shape[:2], -1))
        return parts, masked_softmax(self.score(jax.nn.silu(parts)), neighbors[..., None])


def masked_softmax(logits: Float[Array, "a b heads"], allowed: Bool[Array, "a b 1"]) -> Float[Array, "a b heads"]:
    """The softmax over the allowed entries of b; zeros where there are none."""
    top = jnp.where(allowed, logits, -jnp.inf).max(axis=1, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    grown = jnp.where(allowed, jnp.exp(jnp.where(allowed, logits - top, 0)), 0)
    total = grown.sum(axis=1, keepdims=True)
    return grown / jnp.where(total > 0, total, 1)


def _axes(pairs: PointPairs) -> Float[Array, "points rays 3 3"]:
    """e = (d, r_s u, r_s d × u), which are smooth where r vanishes."""
    outward = pairs.outward / jnp.sqrt(1 + pairs.distance**2)[..., None]
    return jnp.stack([pairs.direction, outward, jnp.cross(pairs.direction, outward)], axis=-2)


def _components(vectors: Array) -> list[Array]:
    return [vectors[..., i] for i in range(3)]


def _heads(values: Array, num_heads: int) -> Array:
    return values.reshape(*values.shape[:-1], num_heads, -1)


def _real_part_of_sum(kernel: Complex[Array, "x y j"], products: Complex[Array, "x y j h"]) -> Float[Array, "x y h"]:
    return jnp.einsum("xyj,xyjh->xyh", kernel.real, products.real) - jnp.einsum("xyj,xyjh->xyh", kernel.imag, products.imag)
