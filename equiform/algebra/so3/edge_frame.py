"""The depth-wise tensor product as an SO(2) (eSCN) convolution, in the frame in which the edge is the polar axis.

There only Y_{l2,0} = √(2 l2 + 1) is non-zero, and the Clebsch–Gordan coefficients couple component m of l1 to one component of
l3: +m to +m if l1 + l2 + l3 is even, ±m to ∓m if it is odd. A product followed by a linear map over channels is then one
matrix product per output irrep and |m|, and the zeros are never formed.

`Aligned` stores the components of each |m| separately, and no large array is sliced here: the transpose of a slice is a padded
sum, which costs more than the arithmetic; that of a split is one concatenation.

Source: Passaro & Zitnick, ICML 2023 (edge frame); Liao & Smidt, ICLR 2023 (the product).
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.algebra.so3.edge_weights import RadialLinear, SharedLinear, reaching, turns
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Paths, weights_of
from equiform.algebra.so3.rotations import Directions


class Aligned(eqx.Module):
    """Edge features in the edge frame.

    Attributes:
        parts: Per chunk of the irreps and |m| = 0 … l the components: (edges, 1, channels) for m = 0, else (edges, 2, channels)
            with −m before +m.
        irreps: The irreps.
    """

    parts: tuple[tuple[Array, ...], ...]
    irreps: Irreps = eqx.field(static=True)

    def get(self, irrep: Irrep) -> tuple[Array, ...] | None:
        """The parts of an irrep, None if there is none."""
        for parts, chunk in zip(self.parts, self.irreps):
            if chunk.irrep == irrep:
                return parts
        return None

    @property
    def scalars(self) -> Float[Array, "edges channels"]:
        """The 0e channels."""
        parts = self.get(SCALAR)
        if parts is None:
            raise ValueError(f"the irreps {self.irreps} have no 0e channels")
        return parts[0][:, 0, :]

    def map(self, function: Callable[[Array], Array]) -> "Aligned":
        """Apply a function that preserves the axes to every part."""
        return Aligned(tuple(tuple(map(function, parts)) for parts in self.parts), self.irreps)

    def gated(self, scalars: Array, gates: Sequence[Array]) -> "Aligned":
        """Replace the scalars, and multiply every other chunk by its gates, channel by channel."""
        rest, parts, chunks = iter(gates), [], []
        for mine, (mul, irrep) in zip(self.parts, self.irreps):
            if irrep == SCALAR:
                parts.append((scalars[:, None, :],))
                mul = scalars.shape[-1]
            else:
                factor = next(rest)[:, None, :]
                parts.append(tuple(part * factor for part in mine))
            chunks.append(Chunk(mul, irrep))
        return Aligned(tuple(parts), Irreps(tuple(chunks)))


def to_edge_frame(x: Features, directions: Directions) -> Aligned:
    """Components in the frame in which the edge is the polar axis."""

    def rotated(matrix: Array, block: Array) -> Array:
        # As a reduction it vectorises over the channels; a product of small matrices per edge does not.
        return (matrix[:, :, :, None] * block[:, None, :, :]).sum(axis=2)

    parts = [
        tuple(rotated(matrix, block) for matrix in directions.rotations[irrep.l]) if irrep.l else (block,)
        for block, (_, irrep) in zip(x.blocks, x.irreps)
    ]
    return Aligned(tuple(parts), x.irreps)


def from_edge_frame(x: Aligned, directions: Directions) -> Features:
    """The inverse of `to_edge_frame`."""

    def rotated(parts: Sequence[Array], matrices: Sequence[Array]) -> Array:
        terms = [(matrix[:, :, :, None] * part[:, :, None, :]).sum(axis=1) for matrix, part in zip(matrices, parts)]
        return sum(terms[1:], terms[0])

    blocks = [
        rotated(parts, directions.rotations[irrep.l]) if irrep.l else parts[0] for parts, (_, irrep) in zip(x.parts, x.irreps)
    ]
    return Features(blocks, x.irreps)


def depthwise_product_aligned(
    x: Features, directions: Directions, weights: Float[Array, "*edges weights"], paths: Paths
) -> Features:
    """`depthwise_product` in the edge frame: rotate in, scale component by component, rotate out."""
    aligned = to_edge_frame(x, directions)
    # An edge without a direction has Y_l = 0 for l > 0.
    direction = directions.nonzero.astype(x.blocks[0].dtype)[:, None, None]
    result = []
    for _, irrep in paths.irreps_out:
        parts = []
        for m in range(irrep.l + 1):
            rows = []
            for path in paths.to(irrep):
                coefficient = path.coefficient(m) if m <= path.l1 else 0.0
                source = aligned.parts[path.source][m if coefficient else 0]
                row = source if coefficient else jnp.zeros((len(source), 2 if m else 1, path.mul), source.dtype)
                row = coefficient * (_quarter_turn(row) if path.odd and m else row) * weights_of(path, weights)
                rows.append(row * direction if path.l2 else row)
            parts.append(jnp.concatenate(rows, axis=-1))
        result.append(tuple(parts))
    return from_edge_frame(Aligned(tuple(result), paths.irreps_out), directions)


def radial_product_linear(
    x: Aligned, weights: Sequence[Float[Array, "edges _"]], paths: Paths, linear: RadialLinear
) -> Aligned:
    """Fused depth-wise product and linear map, with separate path weights for each edge.

    Args:
        x: Features in the edge frame.
        weights: Path weights, per input chunk (`Paths.sizes`).
        paths: The product's paths.
        linear: The linear map.
    """
    scales: dict[tuple[int, Irrep, bool], Array] = {}  # edges 1 paths channels
    for source, mine in enumerate(weights):
        groups = [(key, list(group)) for key, group in groupby(paths.of(source), key=lambda path: (path.irrep, path.odd))]
        pieces = jax.lax.split(mine, [len(group) * group[0].mul for _, group in groups], axis=1)
        for ((irrep, odd), group), piece in zip(groups, pieces):
            scales[source, irrep, odd] = piece.reshape(len(piece), 1, len(group), -1)
    turned = [[_quarter_turn(part) if m else part for m, part in enumerate(parts)] for parts in x.parts]
    result = []
    for (mul, irrep), matrices in zip(linear.irreps, linear.matrices):
        parts = []
        for m, matrix in enumerate(matrices):
            if matrix is None:
                parts.append(jnp.zeros((len(weights[0]), 2 if m else 1, mul), weights[0].dtype))
                continue
            scaled = []
            for source, odd in dict.fromkeys((path.source, path.odd) for path in reaching(paths, irrep, m)):
                part = (turned if odd else x.parts)[source][m]
                scaled.append((part[:, :, None, :] * scales[source, irrep, odd]).reshape(*part.shape[:2], -1))
            parts.append(jnp.concatenate(scaled, axis=-1) @ matrix)
        result.append(tuple(parts))
    return Aligned(tuple(result), linear.irreps)


def shared_product_linear(x: Aligned, paths: Paths, linear: SharedLinear) -> Aligned:
    """`radial_product_linear` with path weights shared by all edges, which are part of the linear map.

    Args:
        x: Features in the edge frame.
        paths: The product's paths.
        linear: The product and the linear map.
    """
    irreps = linear.irreps
    result: list[list[Array]] = [[] for _ in irreps]
    for m, matrix in enumerate(linear.matrices):
        outputs = [i for i, (_, irrep) in enumerate(irreps) if irrep.l >= m]
        if matrix is None:
            for i in outputs:
                first = x.parts[0][0]
                result[i].append(jnp.zeros((len(first), 2, irreps[i].mul), first.dtype))
            continue
        sources = [parts[m] for parts in x.parts if len(parts) > m]
        inputs = [_quarter_turn(part) if odd else part for odd in turns(paths, irreps, m) for part in sources]
        product = jnp.concatenate(inputs, axis=-1) @ matrix
        for i, part in zip(outputs, jax.lax.split(product, [irreps[i].mul for i in outputs], axis=2)):
            result[i].append(part)
    return Aligned(tuple(map(tuple, result)), irreps)


def _quarter_turn(pair: Float[Array, "edges 2 channels"]) -> Float[Array, "edges 2 channels"]:
    """(y₋, y₊) ↦ (−y₊, y₋)."""
    sign = jnp.asarray([-1, 1], pair.dtype)[None, :, None]
    return sign * pair[:, ::-1]
