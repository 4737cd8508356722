"""The precision of matrix products that carry coordinates."""

import jax

EXACT = jax.lax.Precision.HIGHEST
"""The default of some accelerators rounds float32 to ten bits, which no coordinate survives."""
