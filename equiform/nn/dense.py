"""Standard layers on invariant channels: an affine map and a two-layer MLP.

Not `equinox.nn.Linear` and `MLP`: those store transposed weights under other names, act on one row, and draw them with JAX.
"""

from collections.abc import Callable
from math import sqrt
from typing import Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.nn import init

DenseInit = Literal["fan_in", "xavier"]


class Dense(eqx.Module):
    """y = x W + b. Invariant in, invariant out; without bias it may also mix the channels of vectors.

    Initialisation "fan_in": weight and bias U(±1/√in); "xavier": weight U(±gain √(6 / (in + out))), bias 0.
    """

    weight: Float[Array, "_ _"]
    bias: Float[Array, " channels"] | None

    def __init__(
        self,
        size_in: int,
        size_out: int,
        *,
        bias: bool = True,
        kind: DenseInit = "fan_in",
        gain: float = 1.0,
        key: PRNGKeyArray,
    ):
        weight_key, bias_key = jax.random.split(key)
        bound = gain * (sqrt(6 / (size_in + size_out)) if kind == "xavier" else 1 / sqrt(max(size_in, 1)))
        self.weight = init.uniform((size_in, size_out), -bound, bound, key=weight_key)
        self.bias = None
        if bias:
            self.bias = init.zeros(size_out) if kind == "xavier" else init.uniform((size_out,), -bound, bound, key=bias_key)

    def __call__(self, x: Float[Array, "... _"]) -> Float[Array, "... _"]:
        out = x @ self.weight
        return out if self.bias is None else out + self.bias.reshape((1,) * (out.ndim - 1) + (-1,))


class MLP(eqx.Module):
    """Dense, activation, Dense."""

    first: Dense
    second: Dense

    def __init__(
        self,
        size_in: int,
        hidden: int,
        size_out: int,
        *,
        kind: DenseInit = "fan_in",
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key)
        self.first = Dense(size_in, hidden, kind=kind, key=keys[0])
        self.second = Dense(hidden, size_out, kind=kind, key=keys[1])

    def __call__(self, x: Float[Array, "... _"], activation: Callable[[Array], Array] = jax.nn.silu) -> Float[Array, "... _"]:
        return self.second(activation(self.first(x)))
