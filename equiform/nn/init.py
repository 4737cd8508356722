"""Random initial parameters, drawn with NumPy: compiling hundreds of small JAX draws takes half a minute.

Under tracing (`jax.eval_shape` of a model, which loading uses) the same functions fall back to `jax.random`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PRNGKeyArray


def normal(shape: tuple[int, ...], scale: float = 1.0, *, key: PRNGKeyArray) -> Array:
    """Draws from N(0, scale²)."""
    if isinstance(key, Tracer):
        return scale * jax.random.normal(key, shape)
    return jnp.asarray(scale * _generator(key).standard_normal(shape), float)


def uniform(shape: tuple[int, ...], low: float, high: float, *, key: PRNGKeyArray) -> Array:
    """Draws from U(low, high)."""
    if isinstance(key, Tracer):
        return jax.random.uniform(key, shape, minval=low, maxval=high)
    return jnp.asarray(_generator(key).uniform(low, high, shape), float)


def zeros(size: int) -> Array:
    return jnp.asarray(np.zeros(size), float)


def ones(size: int) -> Array:
    return jnp.asarray(np.ones(size), float)


def stack(layers: Sequence[Any]) -> Any:
    """Layers of identical structure as one, their arrays stacked along a new leading axis."""

    def join(*leaves: Any) -> Array:
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return jnp.stack(leaves)
        return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))

    return jax.tree.map(join, *layers)


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng(np.asarray(data).ravel().tolist())
