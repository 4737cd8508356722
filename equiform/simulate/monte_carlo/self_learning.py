"""Self-learning Monte Carlo: an effective model proposes, the exact weight decides.

    S → S′ by sweeps of single flips, each accepted with min(1, exp(−βΔH_eff))
    S′ accepted with min{ 1, exp(−β[(F′ − F) − (H_eff′ − H_eff)]) }

The inner flips are in detailed balance with exp(−βH_eff), so neither their number nor the quality of H_eff touches the result:
averages are exact. A poor model only lowers the acceptance, which is about erfc(√MSE / 2) for independent
proposals whose βΔ is Gaussian with the mean squared error MSE of β(F − H_eff). A step takes one diagonalisation.

`block` limits a step's flips to a square of sites at a random place: the error of H_eff grows with the region that changes, and
so a block of fixed size keeps the acceptance on larger lattices.

Source: Liu, Qi, Meng and Fu, Phys. Rev. B 95, 041101 (arXiv:1610.03137); Nagai and Tomiya (arXiv:2306.11527).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from equiform.models.spin_model import SpinHamiltonian
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange
from equiform.simulate.monte_carlo.metropolis import choose
from equiform.simulate.monte_carlo.sampler import ChainState, Flips, Sampler, draw_flips, log_uniform, start_of


class SelfLearning(Sampler):
    """Proposals by an effective model.

    Attributes:
        effective: The effective energy, on the model's lattice.
        sweeps: Effective sweeps of a proposal, each of as many flips as there are sites that may change.
        regions: The sites that may change together, one row a region; a step takes one row at random.
    """

    effective: SpinHamiltonian
    sweeps: int
    regions: Int[np.ndarray | Array, "regions choices"]

    def step(
        self, model: DoubleExchange, temperature: Float[Array, ""], state: ChainState, key: PRNGKeyArray
    ) -> tuple[ChainState, Float[Array, ""]]:
        """One proposal."""
        region, flips, threshold = jax.random.split(key, 3)
        regions = jnp.asarray(self.regions)
        sites = regions[jax.random.randint(region, (), 0, regions.shape[0])]
        proposals = draw_flips(flips, sites, self.sweeps * regions.shape[1])
        spins = effective_flips(self.effective, temperature, state.spins, proposals)
        new = start_of(model, temperature, spins)
        exact = new.electrons.free_energy - state.electrons.free_energy
        gain = (self.effective.energy(spins) - self.effective.energy(state.spins) - exact) / temperature
        accepted = gain >= log_uniform(threshold, ())
        return choose(accepted, new, state), accepted.astype(gain.dtype)

    def diagonalizations(self, num_sites: int) -> int:
        """One a proposal."""
        return 1


def effective_flips(
    effective: SpinHamiltonian, temperature: Float[Array, ""], spins: Float[Array, "sites 3"], flips: Flips
) -> Float[Array, "sites 3"]:
    """Single flips accepted with the weight exp(−βH_eff)."""

    def flip(carry: tuple, proposal: Flips) -> tuple[tuple, None]:
        spins, energy = carry
        new_energy = effective.energy_after(spins, energy, proposal.sites, proposal.spins)
        accepted = (energy - new_energy) / temperature >= proposal.log_thresholds
        new = jnp.where(accepted, proposal.spins, spins[proposal.sites])
        return (spins.at[proposal.sites].set(new), jnp.where(accepted, new_energy, energy)), None

    (spins, _), _ = jax.lax.scan(flip, (spins, effective.energy(spins)), flips)
    return spins


def whole_lattice(num_sites: int) -> Int[np.ndarray, "1 sites"]:
    """The one region of all sites."""
    return np.arange(num_sites)[None]


def blocks_of(size: tuple[int, int], block: int) -> Int[np.ndarray, "sites choices"]:
    """All squares of block × block sites of a periodic lattice.

    Args:
        size: Sites along both directions.
        block: Sites along an edge of the square.
    """
    x, y = np.divmod(np.arange(size[0] * size[1]), size[1])
    dx, dy = np.divmod(np.arange(block * block), block)
    return (x[:, None] + dx) % size[0] * size[1] + (y[:, None] + dy) % size[1]
