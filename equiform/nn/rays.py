"""Fields on rays, and the layers that act on each ray alone: self-interaction, gates, norms, radial functions.

A field holds values for each of its types (k, ω) and channels; a motion h = (φ, s) of the ray's frame multiplies those of type
(k, ω) by e^{i(kφ + ωs)}. Values of the trivial type are real, all others complex. Parameters are real throughout: a complex
weight is a pair of real arrays, so that any optimiser works.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from equiform.algebra.pluecker import RayType, phase
from equiform.nn import init
from equiform.nn.dense import Dense

SOFTENING = 1e-5
"""ε of the norm non-linearity, as in the reference code."""


class RayField(eqx.Module):
    """Values on rays, by type.

    Attributes:
        values: Per type (…, rays, channels), real for the trivial type.
        types: The types, in the order of the values.
    """

    values: tuple[Array, ...]
    types: tuple[RayType, ...] = eqx.field(static=True)

    @property
    def scalars(self) -> Float[Array, "*rays channels"]:
        """The invariant channels.

        Raises:
            ValueError: The field has no values of type (0, 0).
        """
        for value, kind in zip(self.values, self.types):
            if kind.trivial:
                return value
        raise ValueError(f"a field of types {self.types} has no invariant channels; add RayType(0)")

    def map(self, function: Callable[[Array, RayType], Array]) -> "RayField":
        """Apply a function to the values of each type."""
        return RayField(tuple(function(value, kind) for value, kind in zip(self.values, self.types)), self.types)

    def __add__(self, other: "RayField") -> "RayField":
        return RayField(tuple(mine + its for mine, its in zip(self.values, other.values, strict=True)), self.types)


def transported(field: RayField, angle: Float[Array, " rays"], shift: Float[Array, " rays"]) -> RayField:
    """ρ(h) f, the values after a motion with the cocycle h = (angle, shift) at each ray."""
    return field.map(lambda value, kind: value if kind.trivial else phase(kind, angle, shift)[:, None] * value)


def scalar_field(values: Float[Array, "*rays channels"]) -> RayField:
    """A field of invariant channels only."""
    return RayField((values,), (RayType(0),))


def as_complex(values: Array) -> Array:
    """The same numbers in the complex type of their precision."""
    return values if jnp.iscomplexobj(values) else lax.complex(values, jnp.zeros_like(values))


def as_type(values: Complex[Array, "*shape"], kind: RayType) -> Array:
    """Values as a field holds them: only the real part for the trivial type, to which every real-linear law allows."""
    return values.real if kind.trivial else values


class RayLinear(eqx.Module):
    """Self-interaction: channels mixed within each type, by complex weights where values are. Equivariant under SE(3).

    This is the most general linear self-interaction: the stabiliser allows no mixing of different types.
    """

    weights: tuple[Array, ...]
    types: tuple[RayType, ...] = eqx.field(static=True)

    def __init__(self, types: Sequence[RayType], channels_in: int, channels_out: int, *, key: PRNGKeyArray):
        """Weights U(±1/√in) for the trivial type, and of the same mean square modulus for others."""
        self.types = tuple(types)
        bound = 1 / sqrt(channels_in)
        self.weights = tuple(
            init.uniform((channels_in, channels_out), -bound, bound, key=k)
            if kind.trivial
            else init.uniform((2, channels_in, channels_out), -bound / sqrt(2), bound / sqrt(2), key=k)
            for k, kind in zip(jax.random.split(key, len(self.types)), self.types)
        )

    def __call__(self, field: RayField) -> RayField:
        values = []
        for value, weight in zip(field.values, self.weights, strict=True):
            values.append(value @ (lax.complex(weight[0], weight[1]) if weight.ndim == 3 else weight))
        return RayField(tuple(values), self.types)


class RayGate(eqx.Module):
    """f_0 ← SiLU(W f_0 + b), f_k ← σ(W_k f_0 + b_k) f_k. Equivariant under SE(3)."""

    layers: tuple[Dense, ...]

    def __init__(self, types: Sequence[RayType], channels: int, *, key: PRNGKeyArray):
        """`types` contains the trivial type, whose channels control the gates."""
        self.layers = tuple(Dense(channels, channels, key=k) for k in jax.random.split(key, len(types)))

    def __call__(self, field: RayField) -> RayField:
        scalars, values = field.scalars, []
        for value, kind, layer in zip(field.values, field.types, self.layers, strict=True):
            opened = layer(scalars)
            values.append(jax.nn.silu(opened) if kind.trivial else as_complex(jax.nn.sigmoid(opened)) * value)
        return RayField(tuple(values), field.types)


class RayNormNonlinearity(eqx.Module):
    """f ← f / (|f| + ε) · ELU(|f| − β) with a learned β per type and channel; ELU(f − β) for invariants.

    Equivariant under SE(3). Source: the non-linearity of the reference code `xuyinxuyin/LightField_NVS`, β = 1 at first.
    """

    thresholds: tuple[Float[Array, " channels"], ...]

    def __init__(self, types: Sequence[RayType], channels: int):
        self.thresholds = tuple(init.ones(channels) for _ in types)

    def __call__(self, field: RayField) -> RayField:
        values = []
        for value, kind, threshold in zip(field.values, field.types, self.thresholds, strict=True):
            beta = threshold.reshape((1,) * (value.ndim - 1) + (-1,))
            if kind.trivial:
                values.append(jax.nn.elu(value - beta))
                continue
            length = _modulus(value)
            values.append(as_complex(jax.nn.elu(length - beta) / (length + SOFTENING)) * value)
        return RayField(tuple(values), field.types)


class RayLayerNorm(eqx.Module):
    """Layer norm of the invariants; other types divided by √(mean |f|² + ε) over their channels. Equivariant under SE(3)."""

    scales: tuple[Float[Array, " channels"], ...]
    shift: Float[Array, " channels"]

    def __init__(self, types: Sequence[RayType], channels: int):
        self.scales, self.shift = tuple(init.ones(channels) for _ in types), init.zeros(channels)

    def __call__(self, field: RayField) -> RayField:
        values = []
        for value, kind, scale in zip(field.values, field.types, self.scales, strict=True):
            row = (1,) * (value.ndim - 1) + (-1,)
            if kind.trivial:
                centred = value - value.mean(-1, keepdims=True)
                spread = lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
                values.append(centred * spread * scale.reshape(row) + self.shift.reshape(row))
            else:
                spread = lax.rsqrt((value.real**2 + value.imag**2).mean(-1, keepdims=True) + 1e-5)
                values.append(as_complex(spread * scale.reshape(row)) * value)
        return RayField(tuple(values), field.types)


class Radial(eqx.Module):
    """Complex functions of invariants, one network for each kernel: R(s) = W2 tanh(W1 s + b1) + b2.

    The last layer is handed out (`coefficients`), so that sums over pairs are products of matrices:
    Σ_y K R_c f_c = Σ_j C_jc Σ_y K B_j f_c with B = `basis`. No array of pairs times channels is ever made. Of a kernel between
    two trivial types only the real part is used.
    """

    first: Float[Array, "kernels inputs hidden"]
    first_bias: Float[Array, "kernels hidden"]
    last: Float[Array, "kernels hidden 2 channels"]
    last_bias: Float[Array, "kernels 2 channels"]

    def __init__(self, kernels: int, inputs: int, hidden: int, channels: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        # The sum over the kernels of several input types is the caller's; the sum over hidden ones has unit variance here.
        self.first = init.normal((kernels, inputs, hidden), 1 / sqrt(inputs), key=keys[0])
        self.first_bias = init.uniform((kernels, hidden), -1.0, 1.0, key=keys[1])
        self.last = init.normal((kernels, hidden, 2, channels), 1 / sqrt(hidden), key=keys[2])
        self.last_bias = init.normal((kernels, 2, channels), 0.3, key=keys[3])

    def basis(self, invariants: Float[Array, "*pairs inputs"]) -> Float[Array, "*pairs kernels _"]:
        """The hidden channels and 1, with finite derivatives for any input."""
        kernels, inputs, hidden = self.first.shape
        weights = jnp.swapaxes(self.first, 0, 1).reshape(inputs, kernels * hidden)
        flat = invariants @ weights + self.first_bias.reshape((1,) * (invariants.ndim - 1) + (-1,))
        out = jnp.tanh(flat).reshape(*flat.shape[:-1], kernels, hidden)
        return jnp.concatenate([out, jnp.ones_like(out[..., :1])], axis=-1)

    @property
    def coefficients(self) -> Complex[Array, "kernels _ channels"]:
        """C_jc, the bias as the last j."""
        rows = jnp.concatenate([self.last, self.last_bias[:, None]], axis=1)
        return lax.complex(rows[:, :, 0], rows[:, :, 1])

    def __call__(self, invariants: Float[Array, "*pairs inputs"]) -> Complex[Array, "*pairs kernels channels"]:
        """The functions themselves, for each pair."""
        return jnp.einsum("...pj,pjc->...pc", as_complex(self.basis(invariants)), self.coefficients)


def _modulus(values: Array) -> Array:
    square = values.real**2 + values.imag**2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
