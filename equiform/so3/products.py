"""Depth-wise tensor product of features with the spherical harmonics of the edges, in two forms.

A path (input chunk, degree of Y, output irrep) gives, channel by channel,

    out_{l3,k} = √(2 l3 + 1) · w_c · Σ_ij C^{l1 l2 l3}_{ijk} x_{i,c} Y_{l2,j} .

`depthwise_product` is this definition. In the frame in which the edge is the polar axis only Y_{l2,0} = √(2 l2 + 1) is
left, and C then couples component m of l1 to one component of l3: +m to +m if l1 + l2 + l3 is even, ±m to ∓m if it is
odd. `depthwise_product_aligned` uses this; `aligned_product_linear` and `aligned_shared_linear` also take the linear map
that follows, in the edge frame, and never form the zeros.

Source: Liao & Smidt, ICLR 2023, section 3.2 (depth-wise tensor product); Passaro & Zitnick, ICML 2023 (edge frame).
"""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.so3.clebsch_gordan import wigner_3j
from equiform.so3.features import Features
from equiform.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.so3.rotations import Directions


@dataclass(frozen=True)
class Path:
    """One path of a depth-wise product.

    Attributes:
        source: Index of the input chunk.
        l1: Degree of the input.
        l2: Degree of the harmonic.
        irrep: Output irrep.
        mul: Number of channels.
        weight: Where its weights start in the weight vector.
        row: Where its channels start among the output channels of the same irrep.
    """

    source: int
    l1: int
    l2: int
    irrep: Irrep
    mul: int
    weight: int
    row: int

    @property
    def odd(self) -> bool:
        return (self.l1 + self.l2 + self.irrep.l) % 2 == 1

    def coefficient(self, m: int) -> float:
        """Factor on input component m (−m for an odd path) in output component m, in the edge frame.

        Even in m for an even path, odd in m for an odd one.
        """
        l3 = self.irrep.l
        m1 = -m if self.odd else m
        if abs(m1) > self.l1:
            return 0.0
        element = wigner_3j(self.l1, self.l2, l3)[m1 + self.l1, self.l2, m + l3]
        return sqrt((2 * l3 + 1) * (2 * self.l2 + 1)) * float(element)


@dataclass(frozen=True)
class Paths:
    """The paths of a depth-wise product: every allowed coupling whose result occurs in `irreps_target` or is 0e.

    Weights are numbered by (input chunk, output irrep, even before odd, l2): those of one input chunk are contiguous, and so
    are those to one output. Output channels of an irrep are numbered by (even before odd, input chunk, l2): then what reaches
    |m| is the end of each half.
    """

    irreps_in: Irreps
    irreps_sh: Irreps
    irreps_target: Irreps

    @cached_property
    def created(self) -> tuple[Path, ...]:
        """The paths in e3nn's order: by input chunk, harmonic, output degree."""
        found: list[tuple[int, int, Irrep]] = []
        for source, (_, irrep_in) in enumerate(self.irreps_in):
            for _, irrep_sh in self.irreps_sh:
                for irrep in irrep_in.couples_to(irrep_sh):
                    if irrep in self.irreps_target or irrep == SCALAR:
                        found.append((source, irrep_sh.l, irrep))

        def odd(source: int, l2: int, irrep: Irrep) -> bool:
            return (self.irreps_in[source].irrep.l + l2 + irrep.l) % 2 == 1

        weights, rows = {}, {}
        start = 0
        for path in sorted(found, key=lambda p: (p[0], p[2].l, -p[2].p, odd(*p), p[1])):
            weights[path] = start
            start += self.irreps_in[path[0]].mul
        ends: dict[Irrep, int] = {}
        for path in sorted(found, key=lambda p: (odd(*p), p[0], p[1])):
            rows[path] = ends.get(path[2], 0)
            ends[path[2]] = rows[path] + self.irreps_in[path[0]].mul
        return tuple(
            Path(
                path[0],
                self.irreps_in[path[0]].irrep.l,
                path[1],
                path[2],
                self.irreps_in[path[0]].mul,
                weights[path],
                rows[path],
            )
            for path in found
        )

    @cached_property
    def num_weights(self) -> int:
        return sum(path.mul for path in self.created)

    @cached_property
    def irreps_out(self) -> Irreps:
        return Irreps(tuple(Chunk(path.mul, path.irrep) for path in self.created)).merged()

    def to(self, irrep: Irrep) -> list[Path]:
        """The paths to an irrep, in the order of its output channels."""
        return sorted((path for path in self.created if path.irrep == irrep), key=lambda path: path.row)

    def of(self, source: int) -> list[Path]:
        """The paths from an input chunk, in the order of the weights."""
        return sorted((path for path in self.created if path.source == source), key=lambda path: path.weight)

    def weight_order(self) -> np.ndarray:
        """Index of each weight in e3nn's order of creation."""
        return np.concatenate([np.arange(path.weight, path.weight + path.mul) for path in self.created])

    def row_order(self, irrep: Irrep) -> np.ndarray:
        """Index of each output channel of an irrep in e3nn's order of creation."""
        created = [path for path in self.created if path.irrep == irrep]
        return np.concatenate([np.arange(path.row, path.row + path.mul) for path in created])


def depthwise_product(x: Features, directions: Directions, weights: Float[Array, "*edges weights"], paths: Paths) -> Features:
    """The definition, with dense Clebsch–Gordan tables: the oracle of the faster forms. Equivariant under O(3)."""
    blocks = []
    for _, irrep in paths.irreps_out:
        parts = []
        for path in paths.to(irrep):
            table = sqrt(irrep.dim) * wigner_3j(path.l1, path.l2, irrep.l)
            harmonic = directions.harmonics[path.l2]
            part = jnp.einsum("eic,ej,ijk->ekc", x.blocks[path.source], harmonic, jnp.asarray(table, harmonic.dtype))
            parts.append(part * _weights_of(path, weights))
        blocks.append(jnp.concatenate(parts, axis=-1))
    return Features(blocks, paths.irreps_out)


def depthwise_product_aligned(
    x: Features, directions: Directions, weights: Float[Array, "*edges weights"], paths: Paths
) -> Features:
    """The same function by way of the edge frame: rotate in, scale component by component, rotate out."""
    aligned = to_edge_frame(x, directions)
    # An edge without a direction has Y_l = 0 for l > 0.
    direction = directions.nonzero.astype(aligned.blocks[0].dtype)[:, None, None]
    blocks = []
    for _, irrep in paths.irreps_out:
        parts = []
        for path in paths.to(irrep):
            block, rows = aligned.blocks[path.source], []
            for m in range(-irrep.l, irrep.l + 1):
                index = path.l1 + (-m if path.odd else m)
                coefficient = path.coefficient(m)
                row = block[:, index : index + 1] if coefficient else jnp.zeros_like(block[:, :1])
                rows.append(coefficient * row)
            part = jnp.concatenate(rows, axis=-2) * _weights_of(path, weights)
            parts.append(part * direction if path.l2 else part)
        blocks.append(jnp.concatenate(parts, axis=-1))
    return from_edge_frame(Features(blocks, paths.irreps_out), directions)


def to_edge_frame(x: Features, directions: Directions) -> Features:
    """Components in the frame in which the edge is the polar axis."""
    return Features(
        [_rotate(directions.rotations[ir.l], b) if ir.l else b for b, (_, ir) in zip(x.blocks, x.irreps)],
        x.irreps,
    )


def from_edge_frame(x: Features, directions: Directions) -> Features:
    """The inverse of `to_edge_frame`."""
    inverse = [jnp.swapaxes(matrix, 1, 2) for matrix in directions.rotations]
    return Features([_rotate(inverse[ir.l], b) if ir.l else b for b, (_, ir) in zip(x.blocks, x.irreps)], x.irreps)


def aligned_product_linear(
    x: Features,
    weights: Float[Array, "edges weights"],
    paths: Paths,
    matrices: dict[str, Float[Array, "_ _"]],
) -> Features:
    """Depth-wise product and linear map in one, in and out in the edge frame; weights differ from edge to edge.

    For each output irrep, |m| and parity of l1 + l2 + l3 one matrix product over the rows of the paths that reach it; the
    Clebsch–Gordan numbers go into the matrix.

    Args:
        x: Features in the edge frame.
        weights: Path weights.
        paths: The product's paths.
        matrices: Per output irrep the matrix (product channels, output channels).
    """
    num_edges = weights.shape[0]
    scaled = []  # per source: edges, 2 l1 + 1, all its weights
    for source, block in enumerate(x.blocks):
        of_source = paths.of(source)
        start = of_source[0].weight
        mine = weights[:, start : start + len(of_source) * of_source[0].mul].reshape(num_edges, 1, len(of_source), -1)
        scaled.append((block[:, :, None, :] * mine).reshape(num_edges, block.shape[1], -1))
    blocks, chunks = [], []
    for _, irrep in paths.irreps_out:
        if str(irrep) not in matrices:
            continue
        matrix = matrices[str(irrep)]
        pairs: list[Array] = []
        for m in range(irrep.l + 1):
            total = jnp.zeros((num_edges, 1 if m == 0 else 2, matrix.shape[1]), matrix.dtype)
            for odd in (False, True):
                active = [path for path in paths.to(irrep) if path.odd == odd and path.l1 >= m]
                if not active or (odd and m == 0):
                    continue
                parts = []
                for source in dict.fromkeys(path.source for path in active):
                    mine = [path for path in active if path.source == source]
                    first = mine[0].weight - paths.of(source)[0].weight
                    columns = slice(first, first + len(mine) * mine[0].mul)
                    parts.append(scaled[source][:, _pair(mine[0].l1, m), columns])
                coefficients = np.concatenate([np.full(path.mul, path.coefficient(m)) for path in active])
                rows = matrix[active[0].row : active[-1].row + active[-1].mul]
                rows = rows * jnp.asarray(coefficients, matrix.dtype)[:, None]
                out = jnp.concatenate(parts, axis=-1) @ rows
                total = total + (_quarter_turn(out) if odd else out)
            pairs.append(total)
        blocks.append(_join_components(pairs))
        chunks.append(Chunk(matrix.shape[1], irrep))
    return Features(blocks, Irreps(tuple(chunks)))


def aligned_shared_linear(
    x: Features,
    weights: Float[Array, " weights"],
    paths: Paths,
    matrices: dict[str, Float[Array, "_ _"]],
) -> Features:
    """As `aligned_product_linear`, for path weights that are the same on all edges.

    Then weights, Clebsch–Gordan numbers and the linear map fold into one matrix per |m|, with the structure
    (x₋, x₊) ↦ (A x₋ − B x₊, A x₊ + B x₋) of a map that commutes with rotations about the edge.
    """
    irreps_out = Irreps(tuple(Chunk(matrices[str(ir)].shape[1], ir) for _, ir in paths.irreps_out if str(ir) in matrices))
    folded = {
        (irrep, odd): _folded(paths, irrep, odd, weights, matrices[str(irrep)])
        for _, irrep in irreps_out
        for odd in ((False, True) if irrep.l else (False,))
    }
    pairs: dict[Irrep, list[Array]] = {irrep: [] for _, irrep in irreps_out}
    starts = np.cumsum([0] + [mul for mul, _ in x.irreps])
    for m in range(irreps_out.l_max + 1):
        sources = [i for i, (_, irrep) in enumerate(x.irreps) if irrep.l >= m]
        outputs = [chunk for chunk in irreps_out if chunk.irrep.l >= m]
        if not sources:
            for mul, irrep in outputs:
                pairs[irrep].append(jnp.zeros((x.blocks[0].shape[0], 2, mul), weights.dtype))
            continue
        inputs = jnp.concatenate([x.blocks[i][:, _pair(x.irreps[i].irrep.l, m)] for i in sources], axis=-1)
        parities = (False,) if m == 0 else (False, True)
        matrix = jnp.concatenate(
            [folded[irrep, odd][m, starts[sources[0]] :] for odd in parities for _, irrep in outputs], axis=1
        )
        result = inputs @ matrix
        width = sum(mul for mul, _ in outputs)
        if m:
            result = result[..., :width] + _quarter_turn(result[..., width:])
        start = 0
        for mul, irrep in outputs:
            pairs[irrep].append(result[..., start : start + mul])
            start += mul
    return Features([_join_components(pairs[irrep]) for _, irrep in irreps_out], irreps_out)


def _folded(paths: Paths, irrep: Irrep, odd: bool, weights: Array, matrix: Array) -> Float[Array, "m channels _"]:
    """The matrices (m = 0 … l, input channels, output channels) from all inputs to one irrep by paths of one parity."""
    active = [path for path in paths.to(irrep) if path.odd == odd]
    terms = [[path for path in active if path.source == source] for source in range(len(paths.irreps_in))]
    depth = max(1, max(len(mine) for mine in terms))
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


def _weights_of(path: Path, weights: Array) -> Array:
    """A path's weights as (edges or 1, 1, channels)."""
    mine = weights[..., path.weight : path.weight + path.mul]
    return mine[:, None, :] if mine.ndim == 2 else mine[None, None, :]


def _rotate(matrix: Float[Array, "edges i j"], block: Float[Array, "edges j channels"]) -> Array:
    """Σ_j matrix_ij block_jc, edge by edge; as a reduction it vectorises over the channels, a batched product does not."""
    return (matrix[:, :, :, None] * block[:, None, :, :]).sum(axis=2)


def _pair(l: int, m: int) -> slice:
    """Selects components −m and m of a block of degree l (one component for m = 0)."""
    return slice(l - m, l + m + 1, max(2 * m, 1))


def _quarter_turn(pair: Float[Array, "edges 2 channels"]) -> Float[Array, "edges 2 channels"]:
    """(y₋, y₊) ↦ (−y₊, y₋)."""
    return jnp.concatenate([-pair[:, 1:], pair[:, :1]], axis=1)


def _join_components(pairs: list[Array]) -> Float[Array, "edges lm channels"]:
    """From the pairs (−m, m), m = 0 … l, to the block of components −l … l."""
    negative = [pair[:, :1] for pair in pairs[:0:-1]]
    return jnp.concatenate([*negative, pairs[0], *(pair[:, 1:] for pair in pairs[1:])], axis=1)
