"""Splits are seeded, disjoint and complete."""

import numpy as np
import pytest

from equiform.data.pipeline.split import split_indices


def test_is_disjoint_complete_and_repeatable():
    train, held = split_indices(100, 0.1, seed=3)
    assert len(held) == 10
    assert sorted([*train, *held]) == list(range(100))
    np.testing.assert_array_equal(held, split_indices(100, 0.1, seed=3)[1])
    assert list(held) != list(split_indices(100, 0.1, seed=4)[1])


def test_is_the_same_on_every_machine():
    # NumPy guarantees the stream of PCG64 and this formula is the definition of the split.
    expected = np.sort(np.random.default_rng([0, 1]).permutation(20)[:4])
    np.testing.assert_array_equal(split_indices(20, 0.2, seed=0)[1], expected)


@pytest.mark.parametrize(("number", "fraction", "held"), [(1, 0.5, 0), (2, 0.1, 1), (2, 0.9, 1), (5, 0.0, 0), (0, 0.1, 0)])
def test_small_sets_keep_something_to_train_on(number, fraction, held):
    train, validation = split_indices(number, fraction, seed=0)
    assert len(validation) == held and len(train) == number - held


def test_kept_structures_are_never_held_out():
    for seed in range(20):
        assert not set(split_indices(10, 0.5, seed=seed, keep=[1, 4, 7])[1]) & {1, 4, 7}
