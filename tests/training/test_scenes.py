"""Training on scenes: a stopped run ends with the same weights, and what cannot go on says so in one line."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.training.scenes import SceneTraining, train_scenes


class Line(eqx.Module):
    """y = w · x, to be fitted."""

    weight: jax.Array

    def loss(self, batch):
        x, y = batch
        return ((x @ self.weight - y) ** 2).mean()


def batch(step):
    x = np.random.default_rng(step).normal(size=(16, 2)).astype(np.float32)
    return x, x @ np.array([2, -1], np.float32)


def config(**changes):
    return SceneTraining(steps=40, learning_rate=0.2, save_every=10, **changes)


def test_the_line_is_found(tmp_path):
    told = []
    found = train_scenes(Line(jnp.zeros(2)), batch, config(), tmp_path / "c", progress=lambda *what: told.append(what))
    np.testing.assert_allclose(found.task.weight, [2, -1], rtol=0, atol=0.05)
    assert [done for done, _, _ in told] == [10, 20, 30, 40] and told[-1][2] < told[0][2]


def test_a_stopped_run_ends_with_the_same_weights(tmp_path):
    whole = train_scenes(Line(jnp.zeros(2)), batch, config(), tmp_path / "whole").task.weight

    def stopped(step):
        if step == 25:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train_scenes(Line(jnp.zeros(2)), stopped, config(), tmp_path / "part")
    asked = []
    resumed = train_scenes(Line(jnp.zeros(2)), lambda step: (asked.append(step), batch(step))[1], config(), tmp_path / "part")
    np.testing.assert_array_equal(resumed.task.weight, whole)
    assert asked[0] == 20


def test_losses_that_are_not_finite_and_checkpoints_of_others_are_named(tmp_path):
    with pytest.raises(UserError, match="not finite after step 1"):
        train_scenes(Line(jnp.full(2, np.inf)), batch, config(), tmp_path / "bad")
    train_scenes(Line(jnp.zeros(2)), batch, config(), tmp_path / "c")
    with pytest.raises(UserError, match="does not belong to this model"):
        train_scenes(Line(jnp.zeros(3)), batch, config(), tmp_path / "c")
