"""Training on scenes: Adam with a cosine schedule, on batches that follow from (seed, step) alone, in float32.

For tasks whose examples are not structures (rays of images, query points). A run that was stopped resumes where it was and ends
with the same weights.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from pydantic import BaseModel, ConfigDict, Field

from equiform.errors import UserError
from equiform.persist.parameters import split, with_dtype
from equiform.training.state_file import restored_state, save_state


class SceneTask(Protocol):
    """What can be trained: anything with a loss of a batch."""

    def loss(self, batch: Any) -> Float[Array, ""]: ...


class SceneTraining(BaseModel):
    """Settings of a training.

    Attributes:
        steps: Steps of Adam.
        learning_rate: At the first step; it falls to a hundredth as a cosine.
        clip: Largest norm of the gradient.
        seed: Of weights and data order.
        save_every: Steps between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=3000, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    clip: float = Field(default=1.0, gt=0)
    seed: int = 0
    save_every: int = Field(default=100, ge=1)


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        task: With the last weights.
        seconds: Wall time of all sessions.
        losses: Mean loss between checkpoints, in this session.
    """

    task: Any
    seconds: float
    losses: list[float]


Progress = Callable[[int, int, float], Any]
"""Called with steps done, steps in all, and the mean loss since the last call."""


def train_scenes(
    task: Any, batch: Callable[[int], Any], config: SceneTraining, file: Path, *, progress: Progress | None = None
) -> Trained:
    """Train a task.

    Args:
        task: The task to start from, with a `loss` of a batch.
        batch: The batch of a step, a pure function of its number.
        config: Settings.
        file: The checkpoint; read if it is there.
        progress: Progress callback.

    Raises:
        UserError: The loss is not finite, or the checkpoint is of another model.
    """
    with jax.enable_x64(False):
        return _trained(with_dtype(task, np.float32), batch, config, file, progress)


def _trained(task: Any, batch: Callable[[int], Any], config: SceneTraining, file: Path, progress: Progress | None) -> Trained:
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(lambda count: _rate(count, config)))
    params, static = split(task)
    state = optimizer.init(params)
    first, seconds, losses = 0, 0.0, []
    if file.exists():
        (params, state), first, seconds = restored_state(file, (params, state))

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Array]:
        value, gradient = jax.value_and_grad(lambda p: eqx.combine(p, static).loss(batch))(params)
        # Optax relies on implicit promotion (an integer count), which our tests forbid.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    recent: list[float] = []
    for number in range(first, config.steps):
        begun = time.perf_counter()
        params, state, value = step(params, state, batch(number))
        recent.append(float(value))
        seconds += time.perf_counter() - begun
        if not np.isfinite(recent[-1]):
            raise UserError(f"the loss is not finite after step {number + 1}; try a lower learning rate")
        if (number + 1) % config.save_every == 0 or number + 1 == config.steps:
            save_state(file, (params, state), number + 1, seconds)
            losses.append(float(np.mean(recent)))
            recent = []
            if progress is not None:
                progress(number + 1, config.steps, losses[-1])
    return Trained(eqx.combine(params, static), seconds, losses)


def _rate(step: Any, config: SceneTraining) -> Array:
    """From the first learning rate to a hundredth of it, as half a cosine."""
    done = jnp.minimum(step.astype(jnp.float32) / config.steps, 1)
    return config.learning_rate * (0.01 + 0.495 * (1 + jnp.cos(jnp.pi * done)))
