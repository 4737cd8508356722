"""Local Metropolis sampling of the exact weight: single flips, each accepted with min(1, exp(−βΔF)).

A step is a sweep of N flips. `by_diagonalization` takes a diagonalisation a flip; `by_determinant` one a sweep, for the Green
function, which it then updates. On the same random numbers both make the same chain.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.simulate.monte_carlo.determinant import FermiPoles, change, green_function, largest_energy, updated
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange
from equiform.simulate.monte_carlo.sampler import ChainState, Flips, Sampler, draw_flips, start_of

Method = Literal["determinant", "diagonalization"]


class Metropolis(Sampler):
    """Sweeps of single flips.

    Attributes:
        poles: Of the Green function; None: diagonalise at every flip.
    """

    poles: FermiPoles | None

    def step(
        self, model: DoubleExchange, temperature: Float[Array, ""], state: ChainState, key: PRNGKeyArray
    ) -> tuple[ChainState, Float[Array, ""]]:
        """One sweep; as many flips as there are sites."""
        sites = state.spins.shape[0]
        flips = draw_flips(key, jnp.arange(sites), sites)
        if self.poles is None:
            return by_diagonalization(model, temperature, state, flips)
        return by_determinant(model, temperature, state, flips, self.poles)

    def diagonalizations(self, num_sites: int) -> int:
        """One per flip, or one per sweep."""
        return num_sites if self.poles is None else 1


def by_diagonalization(
    model: DoubleExchange, temperature: Float[Array, ""], state: ChainState, flips: Flips
) -> tuple[ChainState, Float[Array, ""]]:
    """Flips one after the other, with the free energy of all eigenvalues: the plain form."""

    def flip(state: ChainState, proposal: Flips) -> tuple[ChainState, Float[Array, ""]]:
        spins = state.spins.at[proposal.sites].set(proposal.spins)
        new = ChainState(spins, model.thermodynamics(spins, temperature))
        gain = (state.electrons.free_energy - new.electrons.free_energy) / temperature
        accepted = gain >= proposal.log_thresholds
        return choose(accepted, new, state), accepted.astype(gain.dtype)

    state, accepted = jax.lax.scan(flip, state, flips)
    return state, accepted.mean()


def by_determinant(
    model: DoubleExchange, temperature: Float[Array, ""], state: ChainState, flips: Flips, poles: FermiPoles
) -> tuple[ChainState, Float[Array, ""]]:
    """The same chain from the Green function: O(N²) a flip.

    It is recomputed at the beginning, so that rounding does not build up and the result depends on the spins alone.
    """
    green, _ = green_function(model, state.spins, poles, temperature)

    def flip(carry: tuple, proposal: Flips) -> tuple[tuple, Float[Array, ""]]:
        spins, green = carry
        difference = proposal.spins - spins[proposal.sites]
        gain = -change(model, green, poles, proposal.sites, difference)
        accepted = (gain >= proposal.log_thresholds).astype(gain.dtype)
        new = jnp.where(accepted > 0, proposal.spins, spins[proposal.sites])
        green = updated(model, green, proposal.sites, accepted * difference)
        return (spins.at[proposal.sites].set(new), green), accepted

    (spins, _), accepted = jax.lax.scan(flip, (state.spins, green), flips)
    return start_of(model, temperature, spins), accepted.mean()


def choose(accepted: Array, new: ChainState, old: ChainState) -> ChainState:
    """The new state where accepted, else the old one."""
    return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, old)


def metropolis(model: DoubleExchange, lowest_temperature: float, method: Method = "determinant") -> Metropolis:
    """The local sampler.

    Args:
        model: The exact model.
        lowest_temperature: The lowest T it will be used at: the number of poles depends on it.
        method: How the change of the free energy is computed.
    """
    if method == "diagonalization":
        return Metropolis(None)
    return Metropolis(FermiPoles.enough(largest_energy(model) / lowest_temperature))
