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
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Path, Paths, weights_of
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
    x: Aligned, weights: Sequence[Float[Array, "edges _"]], paths: Paths, matrices: dict[str, Float[Array, "_ _"]]
) -> Aligned:
    """Fused depth-wise product and linear map, with separate path weights for each edge.

    Args:
        x: Features in the edge frame.
        weights: Path weights, per input chunk (`Paths.columns`).
        paths: The product's paths.
        matrices: The matrix (product channels, output channels) per output irrep; irreps without one are omitted.
    """
    scales: dict[tuple[int, Irrep, bool], Array] = {}  # edges 1 paths channels
    for source, mine in enumerate(weights):
        groups = [(key, list(group)) for key, group in groupby(paths.of(source), key=lambda path: (path.irrep, path.odd))]
        pieces = jax.lax.split(mine, [len(group) * group[0].mul for _, group in groups], axis=1)
        for ((irrep, odd), group), piece in zip(groups, pieces):
            scales[source, irrep, odd] = piece.reshape(len(piece), 1, len(group), -1)
    turned = [[_quarter_turn(part) if m else part for m, part in enumerate(parts)] for parts in x.parts]
    result, chunks = [], []
    for _, irrep in paths.irreps_out:
        if str(irrep) not in matrices:
            continue
        matrix = matrices[str(irrep)]
        parts = []
        for m in range(irrep.l + 1):
            active = [path for path in paths.to(irrep) if path.l1 >= m and not (path.odd and m == 0)]
            scaled = []
            for odd in (False, True):
                for source in dict.fromkeys(path.source for path in active if path.odd == odd):
                    part = (turned if odd else x.parts)[source][m]
                    scaled.append((part[:, :, None, :] * scales[source, irrep, odd]).reshape(*part.shape[:2], -1))
            if active:
                parts.append(jnp.concatenate(scaled, axis=-1) @ _rows(matrix, active, m))
            else:
                parts.append(jnp.zeros((len(weights[0]), 2 if m else 1, matrix.shape[1]), matrix.dtype))
        result.append(tuple(parts))
        chunks.append(Chunk(matrix.shape[1], irrep))
    return Aligned(tuple(result), Irreps(tuple(chunks)))


def shared_product_linear(
    x: Aligned, weights: Float[Array, " weights"], paths: Paths, matrices: dict[str, Float[Array, "_ _"]]
) -> Aligned:
    """`radial_product_linear` with path weights shared by all edges.

    Then weights, Clebsch–Gordan coefficients and the linear map fold into one matrix per |m|, with the structure
    (x₋, x₊) ↦ (A x₋ − B x₊, A x₊ + B x₋) of a map that commutes with rotations about the edge.
    """
    irreps = Irreps(tuple(Chunk(matrices[str(ir)].shape[1], ir) for _, ir in paths.irreps_out if str(ir) in matrices))
    parities = {irrep: sorted({path.odd for path in paths.to(irrep)}) for _, irrep in irreps}
    folded = {
        (irrep, odd): _folded(paths, irrep, odd, weights, matrices[str(irrep)])
        for _, irrep in irreps
        for odd in parities[irrep]
    }
    starts = np.cumsum([0] + [mul for mul, _ in x.irreps])
    result: list[list[Array]] = [[] for _ in irreps]
    for m in range(irreps.l_max + 1):
        sources = [i for i, (_, irrep) in enumerate(x.irreps) if irrep.l >= m]
        outputs = [i for i, (_, irrep) in enumerate(irreps) if irrep.l >= m]
        if not sources:
            for i in outputs:
                result[i].append(jnp.zeros((len(x.parts[0][0]), 2, irreps[i].mul), weights.dtype))
            continue
        inputs, rows = [], []
        for odd in (False, True) if m else (False,):
            if not any(odd in parities[irreps[i].irrep] for i in outputs):
                continue
            channels = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in sources])
            inputs += [_quarter_turn(x.parts[i][m]) if odd else x.parts[i][m] for i in sources]
            blocks = [
                folded[irreps[i].irrep, odd][m, channels]
                if odd in parities[irreps[i].irrep]
                else jnp.zeros((len(channels), irreps[i].mul), weights.dtype)
                for i in outputs
            ]
            rows.append(jnp.concatenate(blocks, axis=1))
        product = jnp.concatenate(inputs, axis=-1) @ jnp.concatenate(rows)
        for i, part in zip(outputs, jax.lax.split(product, [irreps[i].mul for i in outputs], axis=2)):
            result[i].append(part)
    return Aligned(tuple(map(tuple, result)), irreps)


def _rows(matrix: Array, active: list[Path], m: int) -> Array:
    """The rows of a linear map that the active paths feed, even paths first, times the paths' coefficients."""
    parts = []
    for odd in (False, True):
        mine = [path for path in active if path.odd == odd]
        if mine:
            coefficients = np.concatenate([np.full(path.mul, path.coefficient(m)) for path in mine])
            where = np.concatenate([np.arange(path.row, path.row + path.mul) for path in mine])
            contiguous = where[-1] - where[0] + 1 == len(where)  # as is the case if the irreps are sorted by degree
            rows = matrix[where[0] : where[-1] + 1] if contiguous else matrix[where]
            parts.append(rows * jnp.asarray(coefficients, matrix.dtype)[:, None])
    return jnp.concatenate(parts)


def _folded(paths: Paths, irrep: Irrep, odd: bool, weights: Array, matrix: Array) -> Float[Array, "m channels _"]:
    """The matrices (m = 0 … l, input channels, output channels) from all inputs to one irrep by paths of one parity."""
    active = [path for path in paths.to(irrep) if path.odd == odd]
    terms = [[path for path in active if path.source == source] for source in range(len(paths.irreps_in))]
    depth = max(len(mine) for mine in terms)
    size = paths.irreps_in.num_channels
    rows, columns = np.zeros((size, depth), np.int32), np.zeros((size, depth), np.int32)
    coefficients = np.zeros((irrep.l + 1, size, depth))
    start = 0
    for source, mine in enumerate(terms):
        mul = paths.irreps_in[source].mul
        for term, path in enumerate(mine):
            rows[start : start + mul, term] = np.arange(path.row, path.row + mul)
            columns[start : start + mul, term] = np.arange(path.weight, path.weight + mul)
            for m in range(irrep.l + 1):
                coefficients[m, start : start + mul, term] = path.coefficient(m)
        start += mul
    scaled = matrix[rows] * weights[columns][:, :, None]  # channels terms channels_out
    return (jnp.asarray(coefficients, matrix.dtype)[..., None] * scaled[None]).sum(axis=2)


def _quarter_turn(pair: Float[Array, "edges 2 channels"]) -> Float[Array, "edges 2 channels"]:
    """(y₋, y₊) ↦ (−y₊, y₋)."""
    sign = jnp.asarray([-1, 1], pair.dtype)[None, :, None]
    return sign * pair[:, ::-1]
