"""Equivariant layer normalisation."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Irreps
from equiform.nn import init


class EquivariantNorm(eqx.Module):
    """Subtracts the channel mean of the scalars, then divides everything by a root mean square. Equivariant under O(3).

    `per_degree` divides each irrep by its own, √(mean over channels and components of x² + ε), as the reference does. Where
    an irrep vanishes by symmetry this amplifies its rounding error by 1/√ε = 316 in every layer, until invariance is lost.
    `joint` divides all irreps by one number, the root of the mean of these means (centred scalars included), which does
    not vanish there.

    Source: Liao & Smidt, ICLR 2023, appendix; `joint` follows the merged norm of later Equiformers.
    """

    weights: dict[str, Float[Array, " channels"]]
    bias: Float[Array, " channels"]
    irreps: Irreps = eqx.field(static=True)
    kind: Literal["per_degree", "joint"] = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)

    def __init__(self, irreps: Irreps, kind: Literal["per_degree", "joint"], *, epsilon: float = 1e-5):
        self.irreps, self.kind, self.epsilon = irreps, kind, epsilon
        self.weights = {str(irrep): init.ones(mul) for mul, irrep in irreps}
        self.bias = init.zeros(irreps.count(SCALAR))

    def __call__(self, x: Features) -> Features:
        centred = [
            block - block.mean(axis=-1, keepdims=True) if chunk.irrep == SCALAR else block
            for block, chunk in zip(x.blocks, x.irreps)
        ]
        squares = [(block**2).mean(axis=(-2, -1), keepdims=True) for block in centred]
        if self.kind == "joint":
            squares = [sum(squares) / len(squares)] * len(squares)
        blocks = []
        for block, square, (_, irrep) in zip(centred, squares, x.irreps):
            scale = jax.lax.rsqrt(square + self.epsilon) * jnp.expand_dims(self.weights[str(irrep)], (0, 1))
            out = block * scale
            blocks.append(out + jnp.expand_dims(self.bias, (0, 1)) if irrep == SCALAR else out)
        return Features(blocks, self.irreps)
