"""Norm non-linearities of features, and attentive self-interaction: channels mixed by their inner products.

Source: Fuchs et al., NeurIPS 2020, and the reference code FabianFuchsML/se3-transformer-public.
"""

from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Irreps
from equiform.nn import init
from equiform.nn.dense import Dense
from equiform.nn.radial import LayerNorm

NormKind = Literal["smooth", "bias", "norm"]
SOFTENING = 0.5
"""ε of the smooth length of a feature, whose components are of order one."""


class NormNonlinearity(eqx.Module):
    """Changes the length of each channel and keeps its direction. Equivariant under O(3).

    "bias": ReLU(‖f‖ + b); "norm": ReLU(LayerNorm(‖f‖)) over the channels of a degree. Both take f / ‖f‖, which jumps where f
    passes through zero (which scalars do anywhere). "smooth": SiLU(f + b) for scalars, else f SiLU(s + b) / s with
    s = √(‖f‖² + ε²).
    """

    biases: dict[str, Float[Array, " channels"]]
    norms: dict[str, LayerNorm]
    kind: NormKind = eqx.field(static=True)

    def __init__(self, irreps: Irreps, kind: NormKind, *, key: PRNGKeyArray):
        self.kind, self.biases, self.norms = kind, {}, {}
        for k, (mul, irrep) in zip(jax.random.split(key, len(irreps)), irreps):
            if kind == "norm":
                self.norms[str(irrep)] = LayerNorm(mul)
            else:
                self.biases[str(irrep)] = init.normal((mul,), key=k)

    def __call__(self, x: Features) -> Features:
        blocks = []
        for block, (_, irrep) in zip(x.blocks, x.irreps):
            squared = (block**2).sum(axis=1)
            if self.kind == "smooth":
                bias = self.biases[str(irrep)][None]
                if irrep == SCALAR:
                    blocks.append(jax.nn.silu(block + bias[None]))
                    continue
                length = jnp.sqrt(squared + SOFTENING**2)
                blocks.append(block * (jax.nn.silu(length + bias) / length)[:, None])
                continue
            length = jnp.sqrt(jnp.where(squared > 0, squared, 1))
            direction = jnp.where((squared > 0)[:, None], block / length[:, None], 0)
            length = jnp.where(squared > 0, length, 0)
            new = self.norms[str(irrep)](length) if self.kind == "norm" else length + self.biases[str(irrep)][None]
            blocks.append(direction * jax.nn.relu(new)[:, None])
        return Features(blocks, x.irreps)


class AttentiveMix(eqx.Module):
    """Output channels are averages of the input channels of a degree, weighted by a softmax (attentive self-interaction).

    w = softmax(Dense LeakyReLU LayerNorm of all inner products ⟨f_a, f_b⟩). Equivariant under O(3).
    """

    norms: dict[str, LayerNorm]
    dense: dict[str, Dense]
    irreps_in: Irreps = eqx.field(static=True)
    irreps_out: Irreps = eqx.field(static=True)

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, *, key: PRNGKeyArray):
        """`irreps_out` has the same degrees as `irreps_in`, each once."""
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.norms, self.dense = {}, {}
        for k, (mul, irrep) in zip(jax.random.split(key, len(irreps_in)), irreps_in):
            self.norms[str(irrep)] = LayerNorm(mul**2)
            # U(±√(6/in)), as Kaiming et al. have it.
            layer = Dense(mul**2, mul * irreps_out.count(irrep), key=k)
            self.dense[str(irrep)] = eqx.tree_at(lambda made: made.weight, layer, sqrt(6) * layer.weight)

    def __call__(self, x: Features) -> Features:
        blocks = []
        for block, (mul, irrep) in zip(x.blocks, x.irreps):
            products = (block[:, :, :, None] * block[:, :, None, :]).sum(axis=1).reshape(len(block), -1)
            hidden = jax.nn.leaky_relu(self.norms[str(irrep)](products), 0.01)
            weights = self.dense[str(irrep)](hidden).reshape(len(block), -1, mul)
            blocks.append(block @ jnp.swapaxes(jax.nn.softmax(weights, axis=2), 1, 2))
        return Features(blocks, self.irreps_out)
