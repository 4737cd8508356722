"""Fitting effective models to exact free energies: least squares, growth layer by layer, self-learning rounds.

1. couplings J_n and E_0 by linear least squares on an exact chain,
2. a random, small layer on top of the model so far, then all parameters by AdamW on the mean of (β(F − H_eff))²; by layers,
3. couplings and E_0 once more by least squares, with the effective spins as they now are: the energy is linear in them,
4. self-learning: chains with the model as the proposal; the exact free energies they visited join the data, and 2 continues.

Couplings are trained as βJ: AdamW's steps have one size for all parameters, and weights and βJ are both of the order 0.1.

Source: Nagai and Tomiya (arXiv:2306.11527) for growth and self-learning; the schedule is our own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.errors import UserError
from equiform.lattice import SquareLattice
from equiform.models.spin_linear import SpinLinear, SpinLinearConfig, shell_features
from equiform.models.spin_transformer import SpinTransformer, SpinTransformerConfig
from equiform.simulate.monte_carlo.simulation import SimulationConfig, Trace

Progress = Callable[[int, int, str], None]
"""Progress callback `(done, total, note)` in steps."""


class FitConfig(BaseModel):
    """How transformers are trained.

    Attributes:
        num_layers: Layers at the end, added one by one.
        shells: d² of the shells of neighbours.
        steps: Of AdamW, for each layer.
        batch_size: Configurations per step.
        learning_rate: At the beginning of a cosine to zero.
        weight_decay: Of AdamW, on the weights of attention; couplings do not decay.
        seed: Of new weights and of the order of configurations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_layers: int = Field(default=3, ge=0)
    shells: tuple[int, ...] = Field(default=(1, 2, 4, 5, 8, 9), min_length=1)
    steps: int = Field(default=5000, ge=1)
    batch_size: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    seed: int = Field(default=0, ge=0)


class Samples(NamedTuple):
    """Configurations and their exact free energies.

    Attributes:
        spins: Unit vectors.
        free_energy: F(S).
    """

    spins: Float[np.ndarray, "samples sites 3"]
    free_energy: Float[np.ndarray, " samples"]

    def joined(self, other: "Samples") -> "Samples":
        """Both together."""
        return Samples(*(np.concatenate(pair) for pair in zip(self, other)))


def fit_linear(lattice: SquareLattice, samples: Samples, shells: tuple[int, ...]) -> SpinLinear:
    """The linear model of least squared error.

    Args:
        lattice: Of the samples.
        samples: Configurations and free energies; more of them than shells.
        shells: d² of the shells to couple.

    Raises:
        UserError: There are too few samples, or the lattice has no such shell.
    """
    with jax.enable_x64(True):
        features = np.asarray(shell_features(lattice, shells, jnp.asarray(samples.spins)))
        couplings, offset = _least_squares(features, samples.free_energy)
        model = SpinLinear(SpinLinearConfig(shells=shells))
        return eqx.tree_at(lambda m: (m.couplings, m.offset), model, (jnp.asarray(couplings), jnp.asarray(offset)))


def fit_transformer(
    lattice: SquareLattice,
    samples: Samples,
    temperature: float,
    config: FitConfig,
    *,
    start: SpinTransformer | None = None,
    progress: Progress = lambda done, total, what: None,
) -> list[SpinTransformer]:
    """Transformers of 0, 1, … layers, each grown from the one before.

    Args:
        lattice: Of the samples.
        samples: Configurations and free energies.
        temperature: T, for errors of β(F − H_eff).
        config: Layers and schedule.
        start: A model to continue from, at its own number of layers; None begins with least squares.
        progress: Called every hundred steps.

    Returns:
        All models, the smallest first; with `start` trained further, those from its number of layers on.
    """
    models = []
    with jax.enable_x64(True):
        key = jax.random.key(config.seed)
        if start is None:
            models.append(linear_start(lattice, samples, config.shells))
        else:
            models.append(train(lattice, samples, temperature, start, config, key=key, progress=progress))
        while models[-1].config.num_layers < config.num_layers:
            layers = models[-1].config.num_layers + 1
            grow, order = jax.random.split(jax.random.fold_in(key, layers))
            grown = models[-1].grown(key=grow)
            models.append(train(lattice, samples, temperature, grown, config, key=order, progress=progress))
    return models


def linear_start(lattice: SquareLattice, samples: Samples, shells: tuple[int, ...]) -> SpinTransformer:
    """The transformer without layers: the linear model."""
    with jax.enable_x64(True):
        linear = fit_linear(lattice, samples, shells)
        model = SpinTransformer(SpinTransformerConfig(num_layers=0, shells=shells), key=jax.random.key(0))
        values = (model.weights.astype(jnp.float64), linear.couplings, linear.offset)
        return eqx.tree_at(lambda m: (m.weights, m.couplings, m.offset), model, values)


def train(
    lattice: SquareLattice,
    samples: Samples,
    temperature: float,
    model: SpinTransformer,
    config: FitConfig,
    *,
    key: PRNGKeyArray,
    progress: Progress = lambda done, total, what: None,
) -> SpinTransformer:
    """All parameters by AdamW, then couplings and E_0 by least squares.

    Args:
        lattice: Of the samples.
        samples: Configurations and free energies.
        temperature: T.
        model: Where to start.
        config: The schedule.
        key: Of the order of configurations.
        progress: Called every hundred steps.
    """
    with jax.enable_x64(True):
        scaled = _times(model, 1 / temperature)
        state = _optimizer(scaled, config).init(eqx.filter(scaled, eqx.is_array))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        size = min(config.batch_size, len(samples.free_energy))
        for number in range(config.steps):
            chosen = rng.choice(len(samples.free_energy), size, replace=False)
            targets = jnp.asarray(samples.free_energy[chosen]) / temperature
            scaled, state = _training_step(scaled, state, lattice, config, jnp.asarray(samples.spins[chosen]), targets)
            if number % 100 == 99:
                progress(number + 1, config.steps, f"{model.config.num_layers} layers")
        return refit_couplings(lattice, samples, _times(scaled, temperature))


def refit_couplings(lattice: SquareLattice, samples: Samples, model: SpinTransformer) -> SpinTransformer:
    """The same attention with the couplings and E_0 of least squared error."""
    with jax.enable_x64(True):
        hamiltonian = model.on(lattice)
        effective = jax.jit(jax.vmap(lambda spins: hamiltonian.effective_spins(spins)[-1]))(jnp.asarray(samples.spins))
        features = np.asarray(shell_features(lattice, model.config.shells, effective))
        values = tuple(map(jnp.asarray, _least_squares(features, samples.free_energy)))
        return eqx.tree_at(lambda m: (m.couplings, m.offset), model, values)


def energies(
    lattice: SquareLattice, model: SpinLinear | SpinTransformer, spins: Float[np.ndarray, "samples sites 3"]
) -> Float[np.ndarray, " samples"]:
    """H_eff of many configurations, in float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(model.on(lattice).energy))(jnp.asarray(spins)))


def mean_squared_error(
    lattice: SquareLattice, model: SpinLinear | SpinTransformer, samples: Samples, temperature: float
) -> float:
    """Variance of β(F − H_eff): E_0 does not matter to sampling, so a constant is no error.

    Args:
        lattice: Of the samples.
        model: The effective model.
        samples: Held out, from other chains or other times: neighbours in a chain are nearly the same.
        temperature: T.
    """
    return float(np.var((samples.free_energy - energies(lattice, model, samples.spins)) / temperature))


def samples_of(config: SimulationConfig, trace: Trace, burn_in: float = 0.1) -> Samples:
    """The kept configurations of a run with their free energies.

    Args:
        config: The run's settings.
        trace: Its steps.
        burn_in: Fraction to leave out.
    """
    free_energy = trace.values[config.keep - 1 :: config.keep, :, 0]
    first = int(burn_in * len(trace.kept))
    spins = trace.kept[first:]
    return Samples(spins.reshape(-1, *spins.shape[2:]), free_energy[first:].ravel())


def split_runs(runs: Sequence[tuple[SimulationConfig, Trace]], burn_in: float) -> tuple[Samples, Samples]:
    """Samples to fit and samples held out: the last fifth of every run, by time.

    Args:
        runs: Settings and steps.
        burn_in: Fraction of each to leave out at the beginning.

    Raises:
        UserError: The runs have not kept enough configurations.
    """
    parts = []
    for config, trace in runs:
        samples, chains = samples_of(config, trace, burn_in), config.num_chains
        cut = chains * (4 * (len(samples.free_energy) // chains) // 5)
        parts.append((Samples(*(part[:cut] for part in samples)), Samples(*(part[cut:] for part in samples))))
    fitted, held_out = (Samples(*(np.concatenate(column) for column in zip(*side))) for side in zip(*parts))
    if not len(fitted.free_energy):
        raise UserError("the runs have kept too few configurations to fit anything; make them longer, or keep more")
    return fitted, held_out


def time_blocks(steps: int, folds: int) -> list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]:
    """Train and test indices of a chain by blocks of time; a random split would test on neighbours of what was fitted."""
    blocks = np.array_split(np.arange(steps), folds)
    return [(np.concatenate(blocks[:i] + blocks[i + 1 :]), block) for i, block in enumerate(blocks)]


@eqx.filter_jit
def _training_step(
    model: SpinTransformer,
    state: optax.OptState,
    lattice: SquareLattice,
    config: FitConfig,
    spins: Float[Array, "batch sites 3"],
    targets: Float[Array, " batch"],
) -> tuple[SpinTransformer, optax.OptState]:
    # Lattice and schedule are constants of the program; one is compiled for all rounds of a depth.
    def loss(model: SpinTransformer) -> Float[Array, ""]:
        return jnp.mean((targets - jax.vmap(model.on(lattice).energy)(spins)) ** 2)

    gradient = eqx.filter_grad(loss)(model)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        updates, state = _optimizer(model, config).update(gradient, state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), state


def _optimizer(model: SpinTransformer, config: FitConfig) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    decayed = eqx.tree_at(lambda m: m.weights, jax.tree.map(lambda _: False, model), True)
    return optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed)


def _times(model: SpinTransformer, factor: float) -> SpinTransformer:
    return eqx.tree_at(lambda m: (m.couplings, m.offset), model, replace_fn=lambda value: factor * value)


def _least_squares(features: np.ndarray, free_energy: np.ndarray) -> tuple[np.ndarray, float]:
    if len(features) <= features.shape[1]:
        raise UserError(f"{len(features)} configurations cannot fit {features.shape[1]} couplings; keep more of a longer chain")
    # H = E_0 − Σ J c, and the same shell features of different samples differ little: centred, then solved.
    average = features.mean(axis=0)
    couplings = -np.linalg.lstsq(features - average, free_energy - free_energy.mean(), rcond=None)[0]
    return couplings, float(free_energy.mean() + average @ couplings)
