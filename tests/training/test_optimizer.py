"""Schedule, AdamW with decay groups, clipping and running mean, each against its formula in NumPy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.persist.parameters import named, split
from equiform.tasks.energy import Potential
from equiform.training import optimizer
from equiform.training.config import TrainingConfig
from tests.toy import ToyModel
from tests.training.toys import learner


def rates(config: TrainingConfig, epochs: int, steps_per_epoch: int) -> np.ndarray:
    total = epochs * steps_per_epoch
    sizes = {"steps_per_epoch": steps_per_epoch, "total_steps": total}
    return np.array([optimizer.learning_rate(config, step, step // steps_per_epoch, **sizes) for step in range(total)])


def test_schedule_per_epoch_is_the_published_one() -> None:
    """QM9: 300 epochs, five epochs of warm-up from 1e-6, then the cosine that the warm-up does not shift."""
    config = TrainingConfig(schedule="epoch", warmup_epochs=5, learning_rate=5e-4)
    have = rates(config, 300, 3).reshape(300, 3)
    t = np.arange(300)
    cosine = 1e-6 + 0.5 * (5e-4 - 1e-6) * (1 + np.cos(np.pi * t / 300))
    expected = np.where(t < 5, 1e-6 + t * (5e-4 - 1e-6) / 5, cosine)
    np.testing.assert_allclose(have, expected[:, None].repeat(3, axis=1), rtol=1e-12)
    assert have[5, 0] < 5e-4


def test_schedule_per_step_is_the_published_one() -> None:
    """OC20: from 0.2 lr to lr over two epochs, then a cosine to 0.01 lr, with every step."""
    lr = 2e-4
    config = TrainingConfig(learning_rate=lr, warmup_epochs=2, initial_learning_rate=0.2 * lr, final_learning_rate=0.01 * lr)
    step = np.arange(20 * 7)
    cosine = 0.01 + 0.5 * 0.99 * (1 + np.cos(np.pi * step / 140))
    expected = lr * np.where(step < 14, 0.2 + 0.8 * step / 14, cosine)
    np.testing.assert_allclose(rates(config, 20, 7), expected, rtol=1e-12)


def test_warmup_as_a_fraction_of_the_run() -> None:
    have = rates(TrainingConfig(warmup_fraction=0.1, learning_rate=1.0), 10, 10)
    np.testing.assert_allclose(have[:10], 1e-6 + np.arange(10) * (1 - 1e-6) / 10, rtol=1e-12)
    assert have.argmax() == 10 and have[-1] < 1e-3


def test_long_runs_take_a_lower_peak() -> None:
    config = TrainingConfig(warmup_fraction=0.1, learning_rate=1.0, learning_rate_steps=25)
    for epochs, peak in ((1, 1.0), (2, 1.0), (10, 0.5), (40, 0.25)):
        plain = TrainingConfig(warmup_fraction=0.1, learning_rate=peak)
        np.testing.assert_allclose(rates(config, epochs, 10), rates(plain, epochs, 10), rtol=1e-12)


def clipped_in_numpy(gradients: np.ndarray, limit: float | None) -> np.ndarray:
    """g · limit / max(‖g‖, limit), the norm over all parameters of a step."""
    norms = np.sqrt((gradients**2).sum(axis=(1, 2), keepdims=True))
    return gradients if limit is None else gradients * (limit / np.maximum(norms, limit))


def adamw_in_numpy(p: np.ndarray, gradients: np.ndarray, rate: float, decay: float) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        p = p * (1 - rate * decay)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        p = p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    return p


@pytest.mark.parametrize("limit", [None, 2.5, 100.0])
def test_adamw_clips_and_decays_only_where_the_mask_says(limit: float | None) -> None:
    config = TrainingConfig(weight_decay=0.1, beta2=0.99, clip=limit)
    rng = np.random.default_rng(0)
    params = {"weight": jnp.asarray(rng.normal(size=4)), "bias": jnp.asarray(rng.normal(size=4))}
    gradients = rng.normal(size=(6, 2, 4))
    adam, trained = optimizer.adam(config), params
    vector, unflatten = optimizer.flattened(params)
    state = adam.init(vector)
    for weight, bias in gradients:
        gradient, _ = optimizer.flattened({"weight": jnp.asarray(weight), "bias": jnp.asarray(bias)})
        direction, state = adam.update(optimizer.clipped(gradient, config.clip), state)
        decay = {"decay": config.weight_decay, "mask": {"weight": True, "bias": False}}
        trained = optimizer.apply_step(trained, unflatten(direction), jnp.asarray(0.05), **decay)
    for place, (name, decay) in enumerate({"weight": 0.1, "bias": 0.0}.items()):
        taken = clipped_in_numpy(gradients, limit)[:, place]
        expected = adamw_in_numpy(np.asarray(params[name]), taken, 0.05, decay)
        np.testing.assert_allclose(trained[name], expected, rtol=1e-10)


def test_the_model_says_what_decays() -> None:
    potential = learner()
    mask = optimizer.decay_mask(potential, split(potential)[0])
    assert named(mask) == {
        "model.embedding": True,
        "model.bias": False,
        "model.out": True,
        "model.vector": True,
    }


def test_a_mask_that_leaves_a_parameter_out_is_refused() -> None:
    class Forgetful(ToyModel):
        def decay_mask(self) -> Any:
            return eqx.tree_at(lambda m: (m.depth, m.width, m.r0), self, (True, True, None))

    potential = Potential(Forgetful())
    with pytest.raises(ValueError, match="has no entry for r0"):
        optimizer.decay_mask(potential, split(potential)[0])


@pytest.mark.parametrize("limit", [0.5, 100.0, None])
def test_gradient_is_shortened_to_the_limit_and_keeps_its_direction(limit: float | None) -> None:
    gradient, unflatten = optimizer.flattened({"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([[4.0]])})
    clipped = unflatten(optimizer.clipped(gradient, limit))
    factor = min(1.0, (limit or 100.0) / 5)
    np.testing.assert_allclose(clipped["a"], [3 * factor, 0], rtol=1e-14)
    np.testing.assert_allclose(clipped["b"], [[4 * factor]], rtol=1e-14)


def test_zero_gradient_stays_zero() -> None:
    gradient = jnp.zeros(3)
    assert optimizer.clipped(gradient, 1.0).tolist() == [0, 0, 0]


def test_running_mean_warms_up_and_then_has_its_decay() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3000, 2))
    update = jax.jit(lambda ema, p, step: optimizer.ema_updated(ema, p, step, 0.99))
    ema, expected = jnp.asarray(weights[0]), weights[0]
    for step, w in enumerate(weights):
        ema = update(ema, jnp.asarray(w), jnp.asarray(step))
        d = min(0.99, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * w
    np.testing.assert_allclose(ema, expected, rtol=1e-10)


def test_running_mean_forgets_the_start_early() -> None:
    ema = jnp.ones(1)
    for step in range(50):
        ema = optimizer.ema_updated(ema, jnp.zeros(1), jnp.asarray(step), 0.9999)
    assert float(ema[0]) < 1e-5
