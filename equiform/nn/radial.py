"""A radial basis, and layer normalisation. Invariant.

Source: Unke & Meuwly, 2019 (exponential-normal basis).
"""

from math import exp

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.edges import cosine_envelope
from equiform.nn import init


class ExpNormalBasis(eqx.Module):
    """Gaussians of exp(−α d) under a cosine cutoff; no learned parameters.

    φ_k = cos-cutoff(d) exp(−β (exp(−5 d / r_c) − μ_k)²), μ_k from exp(−r_c) to 1, β = (2/K (1 − exp(−r_c)))⁻².
    """

    size: int = eqx.field(static=True)
    cutoff: float = eqx.field(static=True)

    def __call__(self, distance: Float[Array, " edges"]) -> Float[Array, "edges basis"]:
        start = exp(-self.cutoff)
        centres = jnp.linspace(start, 1, self.size, dtype=distance.dtype)
        beta = (2 / self.size * (1 - start)) ** -2
        decayed = jnp.exp(-5 / self.cutoff * distance)[:, None]
        envelope = cosine_envelope(distance / self.cutoff)[:, None]
        return envelope * jnp.exp(-beta * (decayed - centres[None]) ** 2)


class LayerNorm(eqx.Module):
    """Layer normalisation over the last axis, ε = 1e−5. Equinox's acts on one row, and makes its parameters with JAX."""

    weight: Float[Array, " channels"]
    bias: Float[Array, " channels"]

    def __init__(self, size: int):
        self.weight, self.bias = init.ones(size), init.zeros(size)

    def __call__(self, x: Float[Array, "edges channels"]) -> Float[Array, "edges channels"]:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return centred * scale * self.weight[None] + self.bias[None]
