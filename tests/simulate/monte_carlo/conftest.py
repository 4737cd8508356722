"""Random spins, the 6 × 6 model, and the dimer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, DoubleExchangeConfig

DIMER_AVERAGES = {0.05: -0.55836499, 0.1: -0.34170911, 0.5: -0.02574392}
"""⟨S_1 · S_2⟩ of the dimer by temperature (spec, section 5.5)."""


def unit_vectors(seed: int, *shape: int) -> np.ndarray:
    """Random spins."""
    vectors = np.random.default_rng(seed).normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def dense_hamiltonian(hopping: np.ndarray, coupling: float, spins: np.ndarray) -> np.ndarray:
    """H from Kronecker products of Pauli matrices: another way to write it than the code's."""
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    sites = len(spins)
    matrix = np.kron(hopping, np.eye(2)).astype(complex)
    for site in range(sites):
        on_site = np.zeros((sites, sites))
        on_site[site, site] = 1
        matrix += coupling / 2 * sum(spins[site, a] * np.kron(on_site, pauli[a]) for a in range(3))
    return matrix


@pytest.fixture
def six() -> DoubleExchange:
    """6 × 6, t = J = 1, half filling."""
    return DoubleExchange.of(DoubleExchangeConfig())


@pytest.fixture
def dimer() -> DoubleExchange:
    """Two sites and one bond: F depends on c = S_1 · S_2 alone."""
    return DoubleExchange(np.array([[0.0, -1.0], [-1.0, 0.0]]), 1.0, 0.0)


def dimer_average(temperature: float) -> float:
    """⟨c⟩ of the dimer by Gauss–Legendre quadrature over c, which the uniform measure leaves uniform in (−1, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    free = []
    for c in nodes:
        spins = np.array([[0, 0, 1.0], [np.sqrt(1 - c * c), 0, c]])
        energies = np.linalg.eigvalsh(dense_hamiltonian(np.array([[0, -1.0], [-1, 0]]), 1.0, spins))
        free.append(-temperature * np.logaddexp(0, -energies / temperature).sum())
    boltzmann = weights * np.exp(-(np.array(free) - min(free)) / temperature)
    return float(nodes @ boltzmann / boltzmann.sum())


def at(temperature: float) -> jax.Array:
    """A temperature as the samplers take it."""
    return jnp.asarray(temperature)
