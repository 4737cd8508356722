"""The published divisions into training, validation and test structures, as row numbers; each is reproducible exactly."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from equiform.errors import UserError


class Split(NamedTuple):
    """Row numbers, in the order in which the published code draws them.

    Attributes:
        train: To train on.
        validation: To choose the checkpoint.
        test: To report.
        about: The rule, human-readable.
    """

    train: Int[np.ndarray, "train"]
    validation: Int[np.ndarray, "validation"]
    test: Int[np.ndarray, "test"]
    about: str

    def first(self, train: int | None, validation: int | None, test: int | None) -> "Split":
        """The first rows of each part, where a number is given.

        Raises:
            UserError: A part has fewer rows.
        """
        parts = {}
        for name, count in (("train", train), ("validation", validation), ("test", test)):
            rows = getattr(self, name)
            if count is not None and count > len(rows):
                raise UserError(f"data.{name}_size={count}, but the split has {len(rows)} {name} structures ({self.about})")
            parts[name] = rows if count is None else rows[:count]
        cut = [f"first {count} of {name}" for name, count in zip(parts, (train, validation, test)) if count is not None]
        return Split(**parts, about=self.about + (f"; {', '.join(cut)}" if cut else ""))


def permuted(num_structures: int, train: int, validation: int, *, seed: int = 1) -> Split:
    """The splitter of TorchMD-NET, which Equiformer uses for QM9 and MD17.

    default_rng(seed).permutation(N): the first are for training, the next for validation, the rest for testing.

    Raises:
        UserError: There are too few structures.
    """
    _check(num_structures, train, validation)
    order = np.random.default_rng(seed).permutation(num_structures)
    about = f"default_rng({seed}).permutation({num_structures}): {train} / {validation} / {num_structures - train - validation}"
    return Split(order[:train], order[train : train + validation], order[train + validation :], about)


def cormorant(num_structures: int, train: int = 100_000) -> Split:
    """The splitter of Cormorant and EGNN for QM9: 100,000, a tenth for testing, what is left for validation.

    random.seed(0); random.permutation(N): training, then validation, then test.

    Raises:
        UserError: There are too few structures.
    """
    test = int(0.1 * num_structures)
    validation = num_structures - train - test
    _check(num_structures, train, max(validation, 1))
    order = np.random.RandomState(0).permutation(num_structures)
    about = f"RandomState(0).permutation({num_structures}): {train} / {validation} / {test}"
    return Split(order[:train], order[train : train + validation], order[train + validation :], about)


def official_md17(train: np.ndarray, test: np.ndarray, validation: int, *, number: int, num_structures: int) -> Split:
    """One of rMD17's official splits, its training rows divided as MD17's: validation drawn with seed 1.

    Raises:
        UserError: A row is not there, or none is left to train on.
    """
    worst = int(max(train.max(initial=-1), test.max(initial=-1)))
    if worst >= num_structures:
        raise UserError(f"the official split {number:02d} names row {worst}, but there are {num_structures} frames")
    if not 0 <= validation < len(train):
        raise UserError(
            f"the official split {number:02d} has {len(train)} training frames: {validation} for validation do not fit"
        )
    order = np.random.default_rng(1).permutation(len(train))
    keep = len(train) - validation
    about = f"official split {number:02d}: {keep} / {validation} of its training rows / {len(test)}"
    return Split(train[order[:keep]], train[order[keep:]], test, about)


def _check(num_structures: int, train: int, validation: int) -> None:
    if min(train, validation) < 1 or train + validation >= num_structures:
        raise UserError(
            f"{train} training and {validation} validation structures do not fit: there are {num_structures}, and some must be "
            "left for testing"
        )
