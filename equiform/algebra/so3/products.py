"""Depth-wise tensor product of features with the spherical harmonics of the edges: paths and reference form.

A path (input chunk, degree of Y, output irrep) gives, channel by channel,

    out_{l3,k} = √(2 l3 + 1) · w_c · Σ_ij C^{l1 l2 l3}_{ijk} x_{i,c} Y_{l2,j} .

`depthwise_product` evaluates this definition; `equiform.algebra.so3.edge_frame` has the fast forms, tested equal to it.

Source: Liao & Smidt, ICLR 2023, section 3.2 (depth-wise tensor product).
"""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.rotations import Directions


@dataclass(frozen=True)
class Path:
    """One path of a depth-wise product.

    Attributes:
        source: Index of the input chunk.
        l1: Degree of the input.
        l2: Degree of the harmonic.
        irrep: Output irrep.
        mul: Number of channels.
        weight: Offset of its weights in the weight vector.
        row: Offset of its channels among the output channels of the same irrep.
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
    are those to one output. Output channels of an irrep are numbered by (even before odd, input chunk, l2), so that the
    channels that reach |m| are the end of each half.
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

    @cached_property
    def sizes(self) -> list[int]:
        """Number of weights of each input chunk; their weights follow one another."""
        return [sum(path.mul for path in self.of(source)) for source in range(len(self.irreps_in))]

    def weight_order(self) -> np.ndarray:
        """Index of each weight in e3nn's order of creation."""
        return np.concatenate([np.arange(path.weight, path.weight + path.mul) for path in self.created])

    def row_order(self, irrep: Irrep) -> np.ndarray:
        """Index of each output channel of an irrep in e3nn's order of creation."""
        created = [path for path in self.created if path.irrep == irrep]
        return np.concatenate([np.arange(path.row, path.row + path.mul) for path in created])


def depthwise_product(x: Features, directions: Directions, weights: Float[Array, "*edges weights"], paths: Paths) -> Features:
    """The definition, with dense Clebsch–Gordan tables: the oracle for the fast forms. Equivariant under O(3)."""
    blocks = []
    for _, irrep in paths.irreps_out:
        parts = []
        for path in paths.to(irrep):
            table = sqrt(irrep.dim) * wigner_3j(path.l1, path.l2, irrep.l)
            harmonic = directions.harmonics[path.l2]
            part = jnp.einsum("eic,ej,ijk->ekc", x.blocks[path.source], harmonic, jnp.asarray(table, harmonic.dtype))
            parts.append(part * weights_of(path, weights))
        blocks.append(jnp.concatenate(parts, axis=-1))
    return Features(blocks, paths.irreps_out)


def weights_of(path: Path, weights: Array) -> Array:
    """A path's weights as (edges or 1, 1, channels)."""
    mine = weights[..., path.weight : path.weight + path.mul]
    return mine[:, None, :] if mine.ndim == 2 else mine[None, None, :]
