"""Activations with unit second moment, and the gate that extends them to l > 0."""

from typing import TypeVar

import jax
from jaxtyping import Array

from equiform.algebra.so3.edge_frame import Aligned
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irreps

# 1 / √E[f(z)²] for z ~ N(0, 1). These are the Monte-Carlo estimates that the official code uses, 0.1–0.2 % off the exact
# values (1.676532, 1.846229, 1.529087): the official weights were trained with them.
SILU_FACTOR = 1.6791767923989418
SIGMOID_FACTOR = 1.8467055342154763
SMOOTH_LEAKY_RELU_FACTOR = 1.531320475574866


Gateable = TypeVar("Gateable", Features, Aligned)


def scaled_silu(x: Array) -> Array:
    """SiLU with unit second moment on normal inputs."""
    return SILU_FACTOR * jax.nn.silu(x)


def scaled_smooth_leaky_relu(x: Array) -> Array:
    """0.6 x + 0.4 x (2 σ(x) − 1), a smooth leaky ReLU of slope 0.2, with unit second moment."""
    return SMOOTH_LEAKY_RELU_FACTOR * (0.6 * x + 0.4 * x * (2 * jax.nn.sigmoid(x) - 1))


def gate_input(irreps: Irreps) -> Irreps:
    """Input irreps of a gate whose output is `irreps`: one more scalar per non-scalar channel."""
    num_gates = irreps.num_channels - irreps.count(SCALAR)
    scalars = Chunk(irreps.count(SCALAR) + num_gates, SCALAR)
    return Irreps((scalars, *(chunk for chunk in irreps if chunk.irrep != SCALAR)))


def gate(x: Gateable) -> Gateable:
    """SiLU on scalars, and every other channel times the sigmoid of its own gate scalar. Equivariant under O(3).

    Args:
        x: Features of irreps `gate_input(irreps)`: the 0e block holds the scalars, then the gates in channel order.
    """
    sizes = [mul for mul, irrep in x.irreps if irrep != SCALAR]
    scalars = x.scalars
    num_scalars = scalars.shape[-1] - sum(sizes)
    values, *gates = jax.lax.split(scalars, [num_scalars, *sizes], axis=scalars.ndim - 1)
    return x.gated(scaled_silu(values), [SIGMOID_FACTOR * jax.nn.sigmoid(gate) for gate in gates])
