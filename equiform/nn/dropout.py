"""Dropout; a None key disables it."""

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray


def dropout(x: Array, rate: float, *, key: PRNGKeyArray | None) -> Array:
    """Inverted dropout."""
    return eqx.nn.Dropout(rate, inference=key is None)(x, key=key)
