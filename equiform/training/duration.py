"""Number of steps of a run and its validation interval: fixed once, at the start, and stored."""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from equiform.data.pipeline.batching import Batching
from equiform.data.pipeline.dataset import Dataset
from equiform.training import parallel
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.step import TrainingStep

DEFAULT_EPOCHS = 300
"""Length of a run without a given one; two hundred frames still gain from it, see docs/accuracy-per-minute.md."""
MOST_VALIDATIONS = 100
TRIAL_SHARE = 0.04
TRIAL_SECONDS = 20.0
TRIAL_STEPS = 3
TRAINING_SHARE = 0.1
"""Share of a time budget "in all" that is trained for however long compilation took."""
CHECKS = 5
"""How often the length of a run is compared with its time limit, evenly among its steps."""
TOLERANCE = 0.05
"""Relative deviation from the time limit that is left alone."""
SHORTEST_CHECKED = 20.0
"""Seconds: shorter runs are not corrected."""


class Duration(NamedTuple):
    """The length of a run.

    Attributes:
        total_steps: Number of steps in the run.
        steps_per_epoch: Number of steps in its first epoch.
        validate_every: Steps between validations.
        seconds: Time that was planned for training and validation; None without a time limit.
    """

    total_steps: int
    steps_per_epoch: int
    validate_every: int
    seconds: float | None = None


class Speed(NamedTuple):
    """Measured time of a step and of a validation in seconds, without compilation."""

    step: float
    validation: float


def duration(config: TrainingConfig, steps_per_epoch: int, steps_in_time: int | None) -> Duration:
    """The tightest of the given limits; `DEFAULT_EPOCHS` if there are none."""
    limits = [config.max_steps, config.epochs and config.epochs * steps_per_epoch, steps_in_time]
    total = min((limit for limit in limits if limit), default=DEFAULT_EPOCHS * steps_per_epoch)
    return Duration(total, steps_per_epoch, _validate_every(config, steps_per_epoch, total))


def steps_within(seconds: float, speed: Speed, config: TrainingConfig, steps_per_epoch: int) -> int:
    """The largest number of steps that fits into the time, validations included; at least one."""

    def cost(total: int) -> float:
        validations = math.ceil(total / _validate_every(config, steps_per_epoch, total))
        return total * speed.step + validations * speed.validation

    low, high = 1, max(int(seconds / speed.step), 1) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= seconds else (low, middle)
    return low


def corrected(planned: Duration, config: TrainingConfig, step: int, seconds: float, pace: float) -> Duration:
    """The length of a run that keeps its time limit at the speed that it has had lately.

    Args:
        planned: The length, with a time limit.
        config: The other limits, which stay.
        step: Number of completed steps.
        seconds: Time that they and their validations took.
        pace: Seconds of a step since the last check, with its share of the validations.
    """
    if planned.seconds is None or planned.seconds < SHORTEST_CHECKED:
        return planned
    expected = seconds + pace * (planned.total_steps - step)
    if abs(expected / planned.seconds - 1) <= TOLERANCE:
        return planned
    total = step + max(int((planned.seconds - seconds) / pace), 1)
    return planned._replace(total_steps=duration(config, planned.steps_per_epoch, total).total_steps)


def measure(step: TrainingStep, state: Any, train: Dataset, config: TrainingConfig, batching: Batching) -> float:
    """Seconds per step, of some steps on a copy of the state, so that the run itself is not touched.

    Args:
        step: The training step; it is compiled here.
        state: The initial state of the run.
        train: The training set.
        config: Training settings, with a time limit.
        batching: How structures are put into batches.
    """
    trial = jax.tree.map(jnp.copy, state)
    enough = min(TRIAL_SECONDS, TRIAL_SHARE * 60 * (config.max_minutes or config.max_minutes_in_all or 0))
    weights = [term.weight for term in step.terms.values()]
    measured, steps = 0.0, 0
    settings = {"batch_size": config.batch_size, "seed": config.seed, "dtype": config.dtype, "mesh": step.mesh}
    settings |= {"edge_budget": batching.edges, "most_groups": batching.groups}
    with BatchStream(train, **settings, rotate=config.random_rotations) as stream:
        while measured < enough or steps < TRIAL_STEPS:
            batch = next(stream)
            known = step.compilations
            start = time.perf_counter()
            trial, loss = step(trial, batch, 0.0, weights)
            jax.block_until_ready(loss)
            # The first step of a program also loads it and is not counted.
            if step.compilations == known:
                measured, steps = parallel.agreed(measured + time.perf_counter() - start), steps + 1
    return measured / steps


def _validate_every(config: TrainingConfig, steps_per_epoch: int, total_steps: int) -> int:
    return config.validate_every or max(steps_per_epoch, math.ceil(total_steps / MOST_VALIDATIONS))
