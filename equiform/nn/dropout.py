"""Dropout. A None key switches it off."""

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray


def dropout(x: Array, rate: float, *, key: PRNGKeyArray | None) -> Array:
    """Ordinary inverted dropout."""
    return eqx.nn.Dropout(rate, inference=key is None)(x, key=key)
