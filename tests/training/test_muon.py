"""Muon: the direction of every linear map against a singular value decomposition, and everything else as Adam has it."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from equiform.data.pipeline.dataset import Dataset
from equiform.persist.parameters import named, split
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.linear_maps import linear_maps
from equiform.training.muon import Muon, orthogonalized
from equiform.training.step import TrainingStep
from tests.training.test_adapters import NAMES, potential
from tests.training.toys import molecule


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 4), (2, 5, 16)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = np.random.default_rng(0).normal(size=shape)
    u, s, v = np.linalg.svd(matrices, full_matrices=False)
    # Spread the singular values over all that is claimed.
    s = np.linalg.norm(s, axis=1, keepdims=True) * np.geomspace(1, 0.004, s.shape[1])
    (found,) = orthogonalized([jnp.asarray((u * s[:, None]) @ v)])
    inner = u.transpose(0, 2, 1) @ np.asarray(found) @ v.transpose(0, 2, 1)
    diagonal = np.einsum("bii->bi", inner)
    assert np.abs(inner - diagonal[..., None] * np.eye(shape[1])).max() < 1e-10
    assert diagonal.min() > 0.97 and diagonal.max() < 1.15


def test_no_gradient_is_no_direction() -> None:
    (found,) = orthogonalized([jnp.zeros((2, 3, 4))])
    assert not np.asarray(found).any()
    assert orthogonalized([]) == []


@cache
def directions(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Momentum, Adam's direction and the result, by name."""
    task = potential(name)
    params, rng = split(task)[0], np.random.default_rng(1)
    momentum, adam = (jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params) for _ in range(2))
    return named(momentum), named(adam), named(jax.jit(Muon(task))(momentum, adam))


@pytest.mark.parametrize("name", NAMES)
def test_each_matrix_is_orthogonal_with_the_size_of_adams_direction(name: str) -> None:
    momentum, adam, found = directions(name)
    maps = {f"model.{key}": matrix for key, matrix in linear_maps(potential(name).model).items()}
    assert maps
    for key, leaf in found.items():
        matrix = maps.get(key)
        if matrix is None or min(matrix.rows, matrix.columns) == 1:
            assert np.array_equal(leaf, adam[key]), key
            continue
        m, d = ((np.moveaxis(x, -1, -3) if matrix.maps_last else np.asarray(x)) for x in (momentum[key], leaf))
        u, s, v = np.linalg.svd(m, full_matrices=False)
        inner = u.swapaxes(-1, -2) @ d @ v.swapaxes(-1, -2) / (0.2 * max(m.shape[-2:]) ** 0.5)
        values = np.einsum("...ii->...i", inner)
        assert np.abs(inner - values[..., None] * np.eye(s.shape[-1])).max() < 1e-9, key  # the singular vectors are M's
        converged = s > 0.003 * np.linalg.norm(m, axis=(-2, -1))[..., None]
        assert values[converged].min() > 0.97 and values.max() < 1.15 and values.min() > 0, key


@pytest.mark.slow  # It compiles a step.
def test_a_step_takes_muons_direction_at_the_learning_rate() -> None:
    task = potential("torchmd-et")
    settings = {"optimizer": "muon", "dtype": "float64", "batch_size": 2, "weight_decay": 0, "losses": {"forces": None}}
    config = TrainingConfig.model_validate(settings)
    step = TrainingStep(task, config, config.losses.terms(), lambda _: None)
    before, state = named(split(task)[0]), step.initial_state()
    rng = np.random.default_rng(0)
    with BatchStream(
        Dataset([molecule(rng, 3) for _ in range(2)], 5.0), batch_size=2, shuffle=False, dtype="float64"
    ) as stream:
        for batch in stream:
            state = step(state, batch, 0.01, [1.0])[0]
    maps = {f"model.{key}": matrix for key, matrix in linear_maps(task.model).items()}
    moved = 0
    for key, after in named(state.params).items():
        change = (np.asarray(after) - np.asarray(before[key])) / 0.01
        if key not in maps or min(change.shape[-2:]) == 1:
            assert np.abs(change).max() < 1 + 1e-6, key  # Adam's first step is the gradient's sign.
        elif np.abs(change).max() > 0:
            largest = np.linalg.norm(change, ord=2, axis=(-2, -1)) / (0.2 * max(change.shape[-2:]) ** 0.5)
            assert np.all((largest < 1.15) & ((largest > 0.97) | (largest == 0))), key
            moved += 1
    assert moved > 5


def test_adapters_are_refused() -> None:
    with pytest.raises(ValidationError, match="optimizer=muon is for whole linear maps, not for adapters"):
        TrainingConfig(optimizer="muon", adapters=4)
