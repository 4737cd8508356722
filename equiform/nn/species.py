"""From atomic numbers to type indices."""

import numpy as np
from jaxtyping import Int


def type_table(elements: tuple[int, ...]) -> Int[np.ndarray, "numbers"]:
    """Type index by atomic number; −1 for elements unknown to the model."""
    table = np.full(max(128, max(elements, default=0) + 1), -1, np.int32)
    table[list(elements)] = np.arange(len(elements))
    return table
