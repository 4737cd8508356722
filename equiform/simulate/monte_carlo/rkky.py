"""RKKY model: couplings of the linear spin model from second-order perturbation theory, without a fit.

    F(S) = F(J = 0) + (J²/4) Σ_ij Π_ij S_i · S_j + O(J⁴)
    Π(r) = (1/N²) Σ_kk' exp(i (k − k') · r) (f_k − f_k') / (ε_k − ε_k'),     −f (1 − f) / T where ε_k = ε_k'

so that J_n = −(J²/2) Π(n) with every shell of the lattice. It becomes exact as J/T → 0; at half filling and low temperature,
where nesting makes Π(π, π) large, it is far off.

Source: Ruderman and Kittel, Phys. Rev. 96, 99 (1954); Kasuya (1956); Yosida (1957).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.errors import UserError
from equiform.models.spin_linear import SpinLinear, SpinLinearConfig
from equiform.simulate.monte_carlo.double_exchange import DoubleExchangeConfig


def rkky(config: DoubleExchangeConfig, temperature: float) -> SpinLinear:
    """The model on the lattice of the configuration; its couplings hold for that size only.

    Args:
        config: The exact model.
        temperature: T.

    Raises:
        UserError: The temperature is not positive.
    """
    if temperature <= 0:
        raise UserError(f"a temperature must be positive, got {temperature}")
    lattice = config.lattice
    waves = [2 * np.pi * np.arange(sites) / sites for sites in config.size]
    energies = -2 * config.hopping * (np.cos(waves[0])[:, None] + np.cos(waves[1]))
    x = (energies.ravel() - config.chemical_potential) / temperature
    filling = 0.5 * (1 - np.tanh(x / 2))
    difference = x[:, None] - x
    close = np.abs(difference) < 1e-6
    slope = np.where(close, -np.sqrt(np.outer(filling * (1 - filling), filling * (1 - filling))), 0.0)
    ratio = np.where(close, slope, (filling[:, None] - filling) / np.where(close, 1, difference)) / temperature
    # exp(i (k − k') r): a forward transform over one wave vector and an inverse one over the other, on the diagonal r = r'.
    both = np.fft.ifftn(np.fft.fftn(ratio.reshape(config.size * 2), axes=(2, 3)), axes=(0, 1))
    sites = lattice.num_sites
    polarization = np.diagonal(both.reshape(sites, sites)).real / sites  # by displacement
    shells = np.array([polarization[lattice.squared_distance == d2].mean() for d2 in (0, *lattice.shells)])
    at_zero = -2 * temperature * np.sum(np.logaddexp(0, -x))
    square = config.coupling**2
    with jax.enable_x64(True):
        model = SpinLinear(SpinLinearConfig(shells=lattice.shells))
        values = (jnp.asarray(-square / 2 * shells[1:]), jnp.asarray(at_zero + square / 4 * sites * shells[0]))
        return eqx.tree_at(lambda m: (m.couplings, m.offset), model, values)
