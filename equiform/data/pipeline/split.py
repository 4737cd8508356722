"""Seeded splits."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int


def split_indices(
    num_structures: int, fraction: float, *, seed: int, keep: Iterable[int] = ()
) -> tuple[Int[np.ndarray, "train"], Int[np.ndarray, "held"]]:
    """Hold out a random fraction; the same arguments give the same split on every machine.

    At least one structure is held out if the fraction is positive and two can be spared, and at least one is
    kept.

    Args:
        num_structures: Number of structures.
        fraction: Fraction to hold out, 0 to 1.
        seed: Seed.
        keep: Structures that are never held out (the only ones with some element, isolated atoms).

    Returns:
        Indices to train on and indices held out, both ascending.
    """
    order = np.random.default_rng([seed, 1]).permutation(num_structures)
    kept = np.isin(order, np.fromiter(keep, np.int64))
    spare = order[~kept]
    count = round(fraction * num_structures)
    if fraction > 0:
        count = max(count, 1)
    count = min(count, len(spare), max(num_structures - 1, 0))
    held = np.sort(spare[:count])
    return np.setdiff1d(np.arange(num_structures), held), held
