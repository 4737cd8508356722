"""Equivariant kernels between all degrees with learned radial functions, one radial network per pair of degrees.

Source: Fuchs et al., NeurIPS 2020, section 3.2 and the reference code FabianFuchsML/se3-transformer-public.
"""

from functools import partial
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.so3.edge_kernel import (
    frame_product,
    frame_rotation,
    into_frame,
    kernel_table,
    num_turns,
    out_of_frame,
)
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irreps
from equiform.algebra.so3.rotations import Directions
from equiform.nn import init


class RadialKernel(eqx.Module):
    """f_j ↦ Σ_k W^{lk}(r_ij) f_j^k for each target, φ = Dense (ReLU LayerNorm Dense)² of the edge scalars.

    Sources and targets are chunks of equal width. The networks of all pairs are batched, and the table that takes φ_J to the
    edge frame is folded into their last layer. Equivariant under SO(3), and O(3) with true parities. Initialisation:
    weights U(±√(6/in)), biases U(±1/√in).

    Attributes:
        first: First-layer weights, per source and target; the others likewise.
        last: Last-layer weights and, in the row after them, biases, per kernel (source, target, degree J).
    """

    first: Float[Array, "sources targets inputs width"]
    second: Float[Array, "sources targets width width"]
    biases: Float[Array, "2 sources targets width"]
    norm_weights: Float[Array, "2 sources targets width"]
    norm_biases: Float[Array, "2 sources targets width"]
    last: Float[Array, "kernels rows channels_in channels_out"]
    irreps_in: Irreps = eqx.field(static=True)
    irreps_out: Irreps = eqx.field(static=True)
    true_parity: bool = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        num_inputs: int,
        width: int,
        *,
        true_parity: bool,
        smooth: bool,
        key: PRNGKeyArray,
    ):
        """Draw the weights.

        Args:
            irreps_in: Features of the sender, ascending degrees.
            irreps_out: Messages, ascending degrees; repeats are allowed, their channels are concatenated in the result.
            num_inputs: Number of edge scalars.
            width: Hidden width of the networks.
            true_parity: Leave out the degrees J that change sign under reflection.
            smooth: SiLU instead of ReLU.
            key: PRNG key of the initial weights.

        Raises:
            ValueError: The chunks of one side have different numbers of channels.
        """
        for irreps in (irreps_in, irreps_out):
            if len({mul for mul, _ in irreps}) != 1:
                raise ValueError(f"a kernel needs the same number of channels for each degree, not {irreps}")
        self.irreps_in, self.irreps_out = irreps_in, irreps_out
        self.true_parity, self.smooth = true_parity, smooth
        keys, pairs = jax.random.split(key, 6), (len(irreps_in), len(irreps_out))
        self.first = _kaiming((*pairs, num_inputs, width), num_inputs, key=keys[0])
        self.second = _kaiming((*pairs, width, width), width, key=keys[1])
        sizes = ((num_inputs, keys[2]), (width, keys[3]))
        drawn = [init.uniform((*pairs, width), -1 / sqrt(size), 1 / sqrt(size), key=k) for size, k in sizes]
        self.biases = jnp.stack(drawn)
        self.norm_weights, self.norm_biases = jnp.ones((2, *pairs, width)), jnp.zeros((2, *pairs, width))
        channels = (irreps_in[0].mul, irreps_out[0].mul)
        kernels = len(self._table)
        weights = _kaiming((kernels, width, *channels), width, key=keys[4])
        offsets = init.uniform((kernels, 1, *channels), -1 / sqrt(width), 1 / sqrt(width), key=keys[5])
        self.last = jnp.concatenate([weights, offsets], axis=1)

    @property
    def num_weights(self) -> int:
        """Intermediate values per edge: those of the networks' last two layers."""
        return self.last.shape[0] * self.last.shape[2] * self.last.shape[3] + self.norm_weights.size

    @property
    def _table(self) -> np.ndarray:
        degrees = [tuple(irrep.l for _, irrep in irreps) for irreps in (self.irreps_in, self.irreps_out)]
        return kernel_table(*degrees, true_parity=self.true_parity)

    def __call__(self, x: Features, directions: Directions, inputs: Float[Array, "edges inputs"]) -> Features:
        """Edge messages, each degree of `irreps_out` once.

        Args:
            x: Features of each edge's sender.
            directions: Directions of the edges, with frames up to the highest degree.
            inputs: Inputs of the radial networks.
        """
        hidden = self._hidden(inputs)  # sources targets width+1 edges
        sources, targets = ([irrep.l for _, irrep in irreps] for irreps in (self.irreps_in, self.irreps_out))
        rotations = {l: frame_rotation(directions, l) for l in {*sources, *targets}}
        aligned = into_frame([jnp.moveaxis(block, 0, -1) for block in x.blocks], [rotations[l] for l in sources])
        table = jnp.asarray(self._table, self.last.dtype)
        folded = (table.T @ self.last.reshape(len(table), -1)).reshape(-1, *self.last.shape[1:])
        products, start = [], 0
        for m in range(min(sources[-1], targets[-1]) + 1):
            turns = num_turns(m, true_parity=self.true_parity)
            size = (sum(k >= m for k in sources), sum(l >= m for l in targets))
            count = turns * size[0] * size[1]
            mine = folded[start : start + count].reshape(turns, *size, *folded.shape[1:])
            weights = jnp.einsum("tklhio,klhe->kltioe", mine, hidden[len(sources) - size[0] :, len(targets) - size[1] :])
            products.append(frame_product(aligned[m], weights))
            start += count
        merged = self.irreps_out.merged()
        counts = [targets.count(irrep.l) for _, irrep in merged]
        blocks = out_of_frame(products, counts, [rotations[irrep.l] for _, irrep in merged])
        return Features([jnp.moveaxis(block, -1, 0) for block in blocks], merged)

    def _hidden(self, inputs: Float[Array, "edges inputs"]) -> Float[Array, "sources targets _ edges"]:
        x = self._activated(jnp.einsum("klih,ei->klhe", self.first, inputs), 0)
        x = self._activated(jnp.einsum("klgh,klge->klhe", self.second, x), 1)
        return jnp.concatenate([x, jnp.ones_like(x[:, :, :1])], axis=2)

    def _activated(self, x: Float[Array, "sources targets width edges"], layer: int) -> Array:
        size = x.shape[-1]
        x = x + _spread(self.biases[layer], size)
        x = x - x.mean(axis=2, keepdims=True)
        x = x * jax.lax.rsqrt((x**2).mean(axis=2, keepdims=True) + 1e-5)
        x = x * _spread(self.norm_weights[layer], size) + _spread(self.norm_biases[layer], size)
        return jax.nn.silu(x) if self.smooth else jax.nn.relu(x)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _spread(values: Array, size: int) -> Array:
    """Broadcast over edges. The transpose is a product with ones, because sums over the last axis are slow on CPUs."""
    return jnp.broadcast_to(values[..., None], (*values.shape, size))


@_spread.defjvp
def _spread_tangent(size: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _spread(primals[0], size), tangents[0][..., None] @ jnp.ones((1, size), tangents[0].dtype)


def _kaiming(shape: tuple[int, ...], size_in: int, *, key: PRNGKeyArray) -> Array:
    bound = sqrt(6 / size_in)
    return init.uniform(shape, -bound, bound, key=key)
