"""Common parts of all samplers: the state of a chain, the interface of a step, and random proposals.

A sampler's `step` is a pure function of one chain: the state, the inverse temperature and a random key. Many chains are one
`vmap` of it. The state holds only the spins and functions of them, so an exact restart needs the spins and the step number
alone.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, Thermodynamics


class ChainState(eqx.Module):
    """A chain between two steps.

    Attributes:
        spins: The configuration, unit vectors.
        electrons: Thermodynamics of the electrons in it.
    """

    spins: Float[Array, "*batch sites 3"]
    electrons: Thermodynamics


class Sampler(eqx.Module):
    """One step of a Markov chain that leaves exp(−F/T) unchanged."""

    @abstractmethod
    def step(
        self, model: DoubleExchange, temperature: Float[Array, ""], state: ChainState, key: PRNGKeyArray
    ) -> tuple[ChainState, Float[Array, ""]]:
        """Advance one chain.

        Args:
            model: The exact model.
            temperature: T.
            state: The chain's state.
            key: Of this step and no other.

        Returns:
            The next state, and the fraction of the step's proposals that was accepted.
        """

    @abstractmethod
    def diagonalizations(self, num_sites: int) -> int:
        """Number of exact diagonalisations a step takes."""


class Flips(eqx.Module):
    """Single-spin proposals, one after the other.

    Attributes:
        sites: Which spin, uniform.
        spins: Its new value, uniform on the sphere.
        log_thresholds: Logarithms of uniform numbers in (0, 1]; a flip is accepted if −βΔ is above.
    """

    sites: Int[Array, " flips"]
    spins: Float[Array, "flips 3"]
    log_thresholds: Float[Array, " flips"]


def draw_flips(key: PRNGKeyArray, sites: Int[Array, " choices"], count: int) -> Flips:
    """Proposals for a number of flips.

    Args:
        key: Of these proposals.
        sites: The spins that may be chosen.
        count: Number of flips.
    """
    where, direction, threshold = jax.random.split(key, 3)
    chosen = sites[jax.random.randint(where, (count,), 0, len(sites))]
    return Flips(chosen, random_spins(direction, count), log_uniform(threshold, (count,)))


def random_spins(key: PRNGKeyArray, count: int) -> Float[Array, "count 3"]:
    """Unit vectors, uniform on the sphere, in float64."""
    vectors = jax.random.normal(key, (count, 3), jnp.float64)
    return vectors / jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True))


def log_uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Logarithms of uniform numbers in (0, 1]."""
    return jnp.log1p(-jax.random.uniform(key, shape, jnp.float64))


def start_of(model: DoubleExchange, temperature: Float[Array, ""], spins: Float[Array, "sites 3"]) -> ChainState:
    """The state of a chain that starts from given spins."""
    return ChainState(spins, model.thermodynamics(spins, temperature))
