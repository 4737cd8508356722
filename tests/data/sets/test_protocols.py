"""Published splits: against the rule, against numbers that others published, and that nothing is in two parts."""

import numpy as np
import pytest

from equiform.data.sets import protocols
from equiform.errors import UserError


def whole(split, count):
    rows = np.concatenate([split.train, split.validation, split.test])
    return np.array_equal(np.sort(rows), np.arange(count))


def test_equiformer_on_qm9():
    split = protocols.permuted(130_831, 110_000, 10_000)
    assert (len(split.train), len(split.validation), len(split.test)) == (110_000, 10_000, 10_831)
    order = np.random.default_rng(1).permutation(130_831)
    assert split.train[0] == order[0] and split.validation[0] == order[110_000] and split.test[-1] == order[-1]
    assert whole(split, 130_831)


def test_cormorant_on_qm9():
    split = protocols.cormorant(130_831)
    assert (len(split.train), len(split.validation), len(split.test)) == (100_000, 17_748, 13_083)
    state = np.random.RandomState(0)
    assert split.train[:3].tolist() == state.permutation(130_831)[:3].tolist()
    assert whole(split, 130_831)


def test_official_training_rows_are_divided_and_test_rows_kept():
    train, test = np.arange(100, 1100), np.arange(50)
    split = protocols.official_md17(train, test, 50, number=1, num_structures=1200)
    assert (len(split.train), len(split.validation)) == (950, 50) and split.test.tolist() == test.tolist()
    assert sorted([*split.train, *split.validation]) == train.tolist()


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="do not fit: there are 900"):
        protocols.permuted(900, 950, 50)
    with pytest.raises(UserError, match="names row 1099, but there are 1000"):
        protocols.official_md17(np.arange(100, 1100), np.arange(50), 50, number=1, num_structures=1000)
    split = protocols.permuted(1200, 950, 50)
    with pytest.raises(UserError, match=r"data\.test_size=500, but the split has 200 test structures"):
        split.first(None, None, 500)
    assert len(split.first(10, 5, 3).train) == 10
