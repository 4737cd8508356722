"""Many Markov chains of the double-exchange model at once, step by step, with exact restart.

Every step is one call of one compiled program on all chains. Its random numbers follow from the seed and the numbers of step
and chain, and a step depends on nothing but these and the state: a run that was stopped and resumed ends with the same bits as
one that was not. All of it is in float64.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equiform.errors import UserError
from equiform.lattice import SquareLattice
from equiform.models.spin_model import SpinModel
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, DoubleExchangeConfig, Thermodynamics
from equiform.simulate.monte_carlo.metropolis import metropolis
from equiform.simulate.monte_carlo.observables import magnetization, staggered_magnetization
from equiform.simulate.monte_carlo.sampler import ChainState, Sampler, random_spins, start_of
from equiform.simulate.monte_carlo.self_learning import SelfLearning, blocks_of, whole_lattice

Progress = Callable[[int, int], None]
"""Progress callback `(done, total)` in steps."""

Start = Literal["random", "ferromagnet", "neel", "mixed"]

TRACED = ("free_energy", "energy", "electrons", "heat", "magnetization", "staggered", "accepted")
"""Observables recorded for every step and chain, in this order."""


class SimulationConfig(BaseModel):
    """All settings of a simulation except the effective model.

    Attributes:
        model: The exact model.
        temperature: T, in units of the hopping amplitude if that is 1.
        method: How local flips get their weights; the chain is the same.
        effective_sweeps: Sweeps of a proposal by the effective model.
        block: Edge of the square of sites that a proposal may change; None: the whole lattice.
        local_sweeps: Exact sweeps before the first step of a self-learning run: far from equilibrium, where an effective model
            was never fitted, its proposals may never be accepted.
        num_chains: Number of independent chains.
        start: Their first configurations; `mixed` takes ferromagnet, Néel and random in turn.
        seed: Of all random numbers.
        keep: Interval of steps between saved spins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: DoubleExchangeConfig = DoubleExchangeConfig()
    temperature: float = Field(gt=0)
    method: Literal["determinant", "diagonalization"] = "determinant"
    effective_sweeps: int = Field(default=3, ge=1)
    block: int | None = Field(default=None, ge=1)
    local_sweeps: int = Field(default=30, ge=0)
    num_chains: int = Field(default=4, ge=1)
    start: Start = "mixed"
    seed: int = Field(default=0, ge=0)
    keep: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _block_fits(self) -> "SimulationConfig":
        size, block = self.model.size, self.block
        if block is not None and block > min(size):
            raise UserError(
                f"a block of {block} × {block} sites does not fit a lattice of {size[0]} × {size[1]}; make it smaller"
            )
        return self


class Trace(NamedTuple):
    """Record of the steps so far.

    Attributes:
        values: The observables of `TRACED`, of every step and chain.
        kept: Configurations of every `keep`-th step.
    """

    values: Float[np.ndarray, "steps chains observables"]
    kept: Float[np.ndarray, "kept chains sites 3"]


class Simulation:
    """Chains that can be advanced, stored and resumed.

    Attributes:
        config: Its settings.
        effective: The effective model; None samples locally.
    """

    def __init__(
        self,
        config: SimulationConfig,
        effective: SpinModel | None = None,
        *,
        spins: Float[np.ndarray, "chains sites 3"] | None = None,
        trace: Trace | None = None,
    ):
        """Start, or resume where a trace ends.

        Args:
            config: Its settings.
            effective: The effective model; None samples locally.
            spins: First configurations, instead of those of `config.start`; when resuming, the present ones.
            trace: Of the steps before.

        Raises:
            UserError: The lattice is too small for the effective model, or spins have another shape or length than 1.
        """
        self.config, self.effective = config, effective
        lattice, sites = config.model.lattice, config.model.lattice.num_sites
        trace = trace or Trace(np.zeros((0, config.num_chains, len(TRACED))), np.zeros((0, config.num_chains, sites, 3)))
        self._values, self._kept = [*trace.values], [*trace.kept]
        with jax.enable_x64(True):
            start = first_spins(config) if spins is None else _checked(spins, config)
            sampler, keys = sampler_of(config, effective), _chain_keys(config)
            self._fixed = (DoubleExchange.of(config.model), sampler, lattice, jnp.asarray(config.temperature), keys)
            self._state = _resumed(start, trace.values[-1]) if len(trace.values) else _started(config, jnp.asarray(start))

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        return len(self._values)

    @property
    def spins(self) -> Float[np.ndarray, "chains sites 3"]:
        """Present configurations."""
        return np.asarray(self._state.spins)

    def run(self, steps: int, progress: Progress = lambda done, total: None) -> None:
        """Advance all chains; may be called again, and interrupted between steps.

        Args:
            steps: Number of further steps: sweeps of the local sampler, proposals of the self-learning one.
            progress: Called after every step.

        Raises:
            UserError: A free energy is not finite.
        """
        with jax.enable_x64(True):
            for done in range(steps):
                state, row = _step(*self._fixed, self._state, jnp.asarray(self.steps))
                values = np.asarray(row)
                if not np.isfinite(values).all():
                    raise UserError(f"step {self.steps + 1} gave a value that is not finite; check coupling, μ and temperature")
                self._state = state
                self._values.append(values)
                if self.steps % self.config.keep == 0:
                    self._kept.append(self.spins)
                progress(done + 1, steps)

    @property
    def trace(self) -> Trace:
        """All steps so far."""
        sites = self.config.model.lattice.num_sites
        values = np.array(self._values).reshape(-1, self.config.num_chains, len(TRACED))
        return Trace(values, np.array(self._kept).reshape(-1, self.config.num_chains, sites, 3))


def first_spins(config: SimulationConfig) -> Float[np.ndarray, "chains sites 3"]:
    """The configurations that chains start from."""
    lattice = config.model.lattice
    up = np.tile([0.0, 0.0, 1.0], (lattice.num_sites, 1))
    kinds: tuple[str, ...] = ("ferromagnet", "neel", "random") if config.start == "mixed" else (config.start,)
    spins = []
    for chain in range(config.num_chains):
        kind = kinds[chain % len(kinds)]
        if kind == "random":
            spins.append(np.asarray(random_spins(_key(config.seed, 0, chain), lattice.num_sites)))
        else:
            spins.append(up if kind == "ferromagnet" else lattice.signs[:, None] * up)
    return np.array(spins)


def sampler_of(config: SimulationConfig, effective: SpinModel | None) -> Sampler:
    """The sampler of a simulation: local without an effective model, self-learning with one."""
    model, lattice = config.model, config.model.lattice
    if effective is None:
        return metropolis(DoubleExchange.of(model), config.temperature, config.method)
    regions = whole_lattice(lattice.num_sites) if config.block is None else blocks_of(model.size, config.block)
    return SelfLearning(effective.on(lattice), config.effective_sweeps, regions)


def _chain_keys(config: SimulationConfig) -> Key[Array, " chains"]:
    return jax.vmap(lambda chain: jax.random.fold_in(jax.random.key(config.seed), chain))(jnp.arange(config.num_chains))


@eqx.filter_jit
def _step(
    model: DoubleExchange,
    sampler: Sampler,
    lattice: SquareLattice,
    temperature: Float[Array, ""],
    keys: Key[Array, " chains"],
    state: ChainState,
    number: Int[Array, ""],
) -> tuple[ChainState, Float[Array, "chains observables"]]:
    # One function for all simulations: those of equal shapes share the compiled program.
    def one(state: ChainState, key: PRNGKeyArray) -> tuple[ChainState, Array]:
        # Key 0 of a chain made its first configuration.
        state, accepted = sampler.step(model, temperature, state, jax.random.fold_in(key, number + 1))
        electrons, spins = state.electrons, state.spins
        values = [electrons.free_energy, electrons.energy, electrons.electrons, electrons.heat]
        values += [magnetization(spins), staggered_magnetization(lattice, spins), accepted]
        return state, jnp.stack(values)

    return jax.vmap(one)(state, keys)


def _started(config: SimulationConfig, spins: Float[Array, "chains sites 3"]) -> ChainState:
    model, temperature = DoubleExchange.of(config.model), jnp.asarray(config.temperature)
    return eqx.filter_jit(jax.vmap(lambda one: start_of(model, temperature, one)))(spins)


def _resumed(spins: np.ndarray, values: np.ndarray) -> ChainState:
    # The stored values of the last step: recomputed ones could round differently and break the exact restart.
    return ChainState(jnp.asarray(spins), Thermodynamics(*jnp.asarray(values[:, :4].T)))


def _key(seed: int, step: int, chain: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), chain), step)


def _checked(spins: np.ndarray, config: SimulationConfig) -> Float[np.ndarray, "chains sites 3"]:
    expected = (config.num_chains, config.model.lattice.num_sites, 3)
    if spins.shape != expected:
        raise UserError(f"spins of shape {spins.shape} are not {expected}: chains, sites of the lattice, 3; check its size")
    if not np.allclose(np.linalg.norm(spins, axis=-1), 1, atol=1e-9):
        raise UserError("spins must be unit vectors; divide each by its length")
    return np.asarray(spins, np.float64)
