"""Equivariant linear maps: channels mix within each irrep, biases on 0e only."""

from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Irreps
from equiform.nn import init


class Linear(eqx.Module):
    """y_l = x_l W_l (+ b for 0e). Equivariant under O(3).

    An output irrep absent from the input is zero (plus the bias).

    Attributes:
        weights: Matrix (channels in, channels out) per irrep.
        bias: Bias of the 0e channels, if any.
        irreps_in: Input irreps, each once.
        irreps_out: Output irreps, each once.
    """

    weights: dict[str, Float[Array, "_ _"]]
    bias: Float[Array, " channels"] | None
    irreps_in: Irreps = eqx.field(static=True)
    irreps_out: Irreps = eqx.field(static=True)

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        *,
        bias: bool = True,
        gain: float = 1.0,
        key: PRNGKeyArray,
    ):
        """Weights from N(0, gain² / channels in), zero bias.

        Raises:
            ValueError: An irrep occurs more than once.
        """
        for irreps in (irreps_in, irreps_out):
            if not irreps.is_merged():
                raise ValueError(f"each irrep must occur only once, not as in {irreps}; use Irreps.merged")
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.weights = {}
        for k, (mul, irrep) in zip(jax.random.split(key, max(len(irreps_out), 1)), irreps_out):
            if fan_in := irreps_in.count(irrep):
                self.weights[str(irrep)] = init.normal((fan_in, mul), gain / sqrt(fan_in), key=k)
        self.bias = init.zeros(irreps_out.count(SCALAR)) if bias and SCALAR in irreps_out else None

    def __call__(self, x: Features) -> Features:
        blocks = []
        for mul, irrep in self.irreps_out:
            block = x.get(irrep)
            if block is None:
                first = x.blocks[0]
                out = jnp.zeros((*first.shape[:-2], irrep.dim, mul), first.dtype)
            else:
                out = block @ self.weights[str(irrep)]
            if irrep == SCALAR and self.bias is not None:
                out = out + jnp.broadcast_to(self.bias, out.shape)
            blocks.append(out)
        return Features(blocks, self.irreps_out)


class LinearPair(eqx.Module):
    """Two linear maps of the same features to the same irreps, as one product per irrep."""

    weights: dict[str, Float[Array, "_ _"]]
    biases: tuple[Array | None, Array | None]
    irreps_out: Irreps = eqx.field(static=True)

    def __init__(self, first: Linear, second: Linear):
        self.weights = {name: jnp.concatenate([first.weights[name], second.weights[name]], axis=1) for name in first.weights}
        self.biases = first.bias, second.bias
        self.irreps_out = first.irreps_out

    def __call__(self, x: Features) -> tuple[Features, Features]:
        pairs = []
        for mul, irrep in self.irreps_out:
            block = x.get(irrep)
            if block is None:
                out = jnp.zeros((*x.blocks[0].shape[:-2], irrep.dim, mul), x.blocks[0].dtype)
                pair = [out, out]
            else:
                pair = jnp.split(block @ self.weights[str(irrep)], 2, axis=-1)
            if irrep == SCALAR:
                pair = [
                    out if bias is None else out + jnp.broadcast_to(bias, out.shape) for out, bias in zip(pair, self.biases)
                ]
            pairs.append(pair)
        first, second = zip(*pairs)
        return Features(first, self.irreps_out), Features(second, self.irreps_out)
