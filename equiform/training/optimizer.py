"""AdamW with a decay mask, the cosine schedule with warm-up, gradient clipping and the EMA of the weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from equiform.persist.parameters import named
from equiform.tasks.api import Task
from equiform.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, epoch: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """Warm-up, then cosine: lr = min + ½ (peak − min) (1 + cos(π t / T)) with t in steps or in whole epochs.

    The cosine is not shifted by the warm-up: when the warm-up ends, the rate is already slightly below the peak.

    Args:
        config: Peak and how it falls in long runs, end points, warm-up and unit of the schedule.
        step: Number of completed steps (0 for the first one).
        epoch: Number of completed epochs.
        steps_per_epoch: Number of steps in an epoch.
        total_steps: Number of steps in the run.

    Source: the schedule of the published recipes (timm's cosine per epoch; OC20's per step).
    Differs: not optax's, whose cosine begins after the warm-up and is computed in the precision of the device.
    """
    end = total_steps / steps_per_epoch if config.schedule == "epoch" else float(total_steps)
    time = epoch if config.schedule == "epoch" else step
    if config.warmup_epochs is not None:
        warmup = config.warmup_epochs * (1 if config.schedule == "epoch" else steps_per_epoch)
    else:
        warmup = config.warmup_fraction * end
    peak, start, minimum = config.learning_rate, config.initial_learning_rate, config.final_learning_rate
    if config.learning_rate_steps is not None:
        peak *= min(1, math.sqrt(config.learning_rate_steps / total_steps))
    if time < warmup:
        return start + time * (peak - start) / warmup
    return minimum + 0.5 * (peak - minimum) * (1 + math.cos(math.pi * min(time / end, 1)))


def decay_mask(task: Task, params: Any) -> Any:
    """Which parameters decay, according to the model's `decay_mask()` (True: decays).

    The mask is a tree with a bool for each parameter; it may have further leaves.

    Raises:
        ValueError: The mask leaves a parameter out.
    """
    given = named(task.model.decay_mask())
    unsaid = [name for name in named(params.model) if not isinstance(given.get(name), bool)]
    if unsaid:
        raise ValueError(f"decay_mask() of {type(task.model).__name__} has no entry for {', '.join(unsaid[:5])}")
    values = [given.get(name.removeprefix("model."), True) for name in named(params)]
    return jax.tree.unflatten(jax.tree.structure(params), values)


def adam(config: TrainingConfig) -> optax.GradientTransformation:
    """Adam's direction m̂ / (√v̂ + ε) from the gradient as one vector, see `flattened`."""
    inner = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        # Optax relies on implicit promotion (an integer count), which our tests forbid.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def nesterov(config: TrainingConfig, moments: Any, gradient: Float[Array, " numbers"]) -> Float[Array, " numbers"]:
    """β m + (1 − β) g with Adam's first moment m after the update; not corrected for its start at zero."""
    first: Any = optax.tree.get(moments, "mu")
    return config.beta1 * first + (1 - config.beta1) * gradient


def flattened(tree: Any) -> tuple[Float[Array, " numbers"], Callable[[Any], Any]]:
    """All leaves in one vector, and the function that turns such a vector back into the tree.

    A model has dozens of arrays, most of them small, and each operation on each of them is a kernel to compile and launch.
    """
    return ravel_pytree(tree)


def clipped(gradient: Float[Array, " numbers"], limit: float | None) -> Float[Array, " numbers"]:
    """The gradient, rescaled to norm `limit` if its norm is larger."""
    if limit is None:
        return gradient
    clip = optax.clip_by_global_norm(limit)
    updates: Any = clip.update(gradient, clip.init(gradient))[0]
    return updates


def ema_updated(
    ema: Float[Array, " numbers"], params: Float[Array, " numbers"], step: Array, decay: float
) -> Float[Array, " numbers"]:
    """ema ← ema + (1 − d) (params − ema), with d = min(decay, (1 + step) / (10 + step)).

    The initially small d forgets the random initialisation, so that the EMA is useful long before
    1 / (1 − decay) steps.

    Args:
        ema: The EMA as a vector, see `flattened`.
        params: The parameters after the step, likewise.
        step: Number of steps before this one.
        decay: The maximum of d.
    """
    steps = step.astype(params.dtype)
    d = jnp.minimum((1 + steps) / (10 + steps), decay)
    return ema + (1 - d).astype(ema.dtype) * (params - ema)


def apply_step(params: Any, direction: Any, rate: Float[Array, ""], *, decay: float, mask: Any) -> Any:
    """AdamW: parameter ← parameter − rate · (direction + decay · parameter), the decay only where the mask is True."""
    decayed = optax.add_decayed_weights(decay, mask)
    updates, _ = decayed.update(direction, decayed.init(params), params)
    return optax.apply_updates(params, jax.tree.map(lambda update: -rate * update, updates))
