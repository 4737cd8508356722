"""Observables of a spin configuration: magnetisations, structure factor, correlations. All invariant under O(3).

    m = |Σ_i S_i| / N,    m_s = |Σ_i (−1)^(x+y) S_i| / N
    S(q) = |Σ_i S_i exp(−i q · r_i)|² / N,    C(r) = (1/N) Σ_i S_i · S_{i+r} = (1/N) Σ_q S(q) exp(i q · r)

q = 2π (a / Lx, b / Ly) stands at [a, b]; S(0, 0) = N m², S(π, π) = N m_s².
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.lattice import SquareLattice


def magnetization(spins: Float[Array, "sites 3"]) -> Float[Array, ""]:
    """m, between 0 and 1."""
    return _length(spins.mean(axis=0))


def staggered_magnetization(lattice: SquareLattice, spins: Float[Array, "sites 3"]) -> Float[Array, ""]:
    """m_s, between 0 and 1; a lattice with an odd number of sites in a direction cannot reach 1 without frustration."""
    return _length((jnp.asarray(lattice.signs, spins.dtype)[:, None] * spins).mean(axis=0))


def structure_factor(lattice: SquareLattice, spins: Float[np.ndarray, "*batch sites 3"]) -> Float[np.ndarray, "*batch x y"]:
    """S(q) on all q; its sum over q is N."""
    waves = np.fft.fft2(spins.reshape(*spins.shape[:-2], *lattice.size, 3), axes=(-3, -2))
    return np.sum(np.abs(waves) ** 2, axis=-1) / lattice.num_sites


def correlation_by_distance(
    lattice: SquareLattice, structure_factor: Float[np.ndarray, "*batch x y"]
) -> Float[np.ndarray, "*batch shells"]:
    """C at each squared distance of `(0, *lattice.shells)`, averaged over the shell.

    Args:
        lattice: The lattice.
        structure_factor: S(q), of one configuration or an average.
    """
    by_displacement = np.fft.ifft2(structure_factor).real.reshape(*structure_factor.shape[:-2], -1)
    shells = lattice.in_shells((0, *lattice.shells))
    return by_displacement @ (shells / shells.sum(axis=1, keepdims=True)).T


def _length(vector: Float[Array, "3"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.sum(vector**2))
