"""Equiformer's functions of the distance: bases, and the network from a basis to path weights. Invariant.

Source: Liao & Smidt, ICLR 2023 (Gaussian basis, radial network); Gasteiger et al., 2020/2021 (Bessel basis).
"""

from collections.abc import Sequence
from math import pi, sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.edges import polynomial_envelope
from equiform.nn import init
from equiform.nn.radial import ExpNormalBasis, LayerNorm

BasisName = Literal["gaussian", "bessel", "exp"]


class GaussianBasis(eqx.Module):
    """Normalised Gaussians of a scaled distance with learned centres and widths.

    φ_k = exp(−½ ((w d/r_c + b − μ_k) / σ_k)²) / (√(2 · 3.14159) σ_k), σ_k = |s_k| + 1e−5; the truncated π is the reference's.
    """

    mean: Float[Array, " basis"]
    std: Float[Array, " basis"]
    weight: Float[Array, ""]
    bias: Float[Array, ""]
    cutoff: float = eqx.field(static=True)

    def __init__(self, size: int, cutoff: float, *, key: PRNGKeyArray):
        mean_key, std_key = jax.random.split(key)
        self.cutoff = cutoff
        self.mean = init.uniform((size,), 0.0, 1.0, key=mean_key)
        self.std = init.uniform((size,), 1 / size, 1.0, key=std_key)
        self.weight, self.bias = jnp.asarray(1.0), jnp.asarray(0.0)

    def __call__(self, distance: Float[Array, " edges"]) -> Float[Array, "edges basis"]:
        sigma = jnp.abs(self.std)[None] + 1e-5
        x = self.weight * (distance[:, None] / self.cutoff) + self.bias
        return jnp.exp(-0.5 * ((x - self.mean[None]) / sigma) ** 2) / (sqrt(2 * 3.14159) * sigma)


class BesselBasis(eqx.Module):
    """Spherical Bessel functions j_0 with learned frequencies under a polynomial envelope.

    φ_k = envelope(u) √(2 / r_c³) sin(f_k u) / u with u = d / r_c, f_k initially k π.
    """

    frequencies: Float[Array, " basis"]
    cutoff: float = eqx.field(static=True)

    def __init__(self, size: int, cutoff: float):
        self.cutoff = cutoff
        self.frequencies = jnp.asarray(pi * np.arange(1, size + 1), float)

    def __call__(self, distance: Float[Array, " edges"]) -> Float[Array, "edges basis"]:
        u = distance[:, None] / self.cutoff
        safe = jnp.where(u > 0, u, 1)
        wave = jnp.where(u > 0, jnp.sin(self.frequencies[None] * safe) / safe, self.frequencies[None])
        return polynomial_envelope(u) * sqrt(2 / self.cutoff**3) * wave


RadialBasis = GaussianBasis | BesselBasis | ExpNormalBasis


def make_basis(name: BasisName, size: int, cutoff: float, *, key: PRNGKeyArray) -> RadialBasis:
    """A radial basis by name; `cutoff` in Å."""
    if name == "gaussian":
        return GaussianBasis(size, cutoff, key=key)
    return BesselBasis(size, cutoff) if name == "bessel" else ExpNormalBasis(size, cutoff)


class RadialMLP(eqx.Module):
    """(Linear → LayerNorm → SiLU) per hidden width, then a linear map plus an offset: basis → path weights.

    Initialisation: weights U(±1/√fan-in), hidden biases 0, offset U(±1/√width).
    """

    weights: list[Float[Array, "_ _"]]
    biases: list[Float[Array, " _"]]
    norms: list[LayerNorm]
    offset: Float[Array, " weights"]

    def __init__(self, widths: tuple[int, ...], *, key: PRNGKeyArray):
        """`widths`: basis size, hidden widths, number of path weights."""
        keys = jax.random.split(key, len(widths))
        self.weights = [init.uniform((a, b), -1 / sqrt(a), 1 / sqrt(a), key=k) for k, a, b in zip(keys, widths, widths[1:])]
        self.biases = [init.zeros(width) for width in widths[1:-1]]
        self.norms = [LayerNorm(width) for width in widths[1:-1]]
        bound = 1 / sqrt(widths[-2])
        self.offset = init.uniform((widths[-1],), -bound, bound, key=keys[-1])

    def __call__(self, basis: Float[Array, "edges basis"]) -> Float[Array, "edges weights"]:
        return self.hidden(basis) @ self.weights[-1] + self.offset[None]

    def hidden(self, basis: Float[Array, "edges basis"]) -> Float[Array, "edges _"]:
        """The output of all but the last linear map."""
        return _hidden(basis, self.weights, self.biases, self.norms)

    def cut(self, sizes: Sequence[int]) -> "RadialPieces":
        """The same network with the path weights in pieces of these sizes."""
        matrices, offsets = jax.lax.split(self.weights[-1], sizes, axis=1), jax.lax.split(self.offset, sizes)
        return RadialPieces(self.weights[:-1], self.biases, self.norms, list(matrices), list(offsets))


class RadialPieces(eqx.Module):
    """`RadialMLP` with its path weights in pieces, so that no array of all edges is sliced."""

    weights: list[Float[Array, "_ _"]]
    biases: list[Float[Array, " _"]]
    norms: list[LayerNorm]
    matrices: list[Float[Array, "_ _"]]
    offsets: list[Float[Array, " _"]]

    def __call__(self, basis: Float[Array, "edges basis"]) -> list[Float[Array, "edges _"]]:
        hidden = _hidden(basis, self.weights, self.biases, self.norms)
        return [hidden @ matrix + offset[None] for matrix, offset in zip(self.matrices, self.offsets)]


def _hidden(basis: Array, weights: list[Array], biases: list[Array], norms: list[LayerNorm]) -> Float[Array, "edges _"]:
    x = basis
    for weight, bias, norm in zip(weights, biases, norms):
        x = jax.nn.silu(norm(x @ weight + bias[None]))
    return x
