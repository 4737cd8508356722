"""Three models of Euclidean space: E = G(3,0,0), P = G(3,0,1) and C = G(4,1), and what a network needs to know of each.

| model | generators | fixed vector | E(3)-equivariant maps | of SE(3) |
|---|---|---|---|---|
| E | e1 e2 e3 | – (only rotations and mirrors about the origin) | 4 | 8 |
| P | e0 e1 e2 e3, e0² = 0 | e0 | 9 | 16 |
| C | o ∞ e1 e2 e3, o² = ∞² = 0, o · ∞ = −1 | ∞ | 20 | 40 |

C stands in its null basis: o = (e₊ + e₋)/2, ∞ = e₋ − e₊. In the basis of e₊ and e₋, ½p² is added to and subtracted from ½,
and float32 at an offset of 200 loses d² altogether (errors of hundreds instead of hundredths).

The three spatial generators stand last. In the order of the blades the components r∧S, for a fixed r without e1 e2 e3 and all
S of one spatial grade g, are then neighbours. Maps that commute with rotations and mirrors act on r alone, one matrix per g.

Source: de Haan, Cohen & Brehmer, AISTATS 2024 (arXiv:2311.04744), for the three algebras; maps and dimensions are computed.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from math import comb

import numpy as np
from jaxtyping import Float

from equiform.algebra.clifford.algebra import Algebra, clifford
from equiform.algebra.clifford.maps import Maps, action_matrix, closed_maps, commutator_matrix, equivariant_maps

_SPATIAL = 3


@dataclass(frozen=True, eq=False)
class Geometry:
    """A model of Euclidean space; instances are `euclidean()`, `projective()` and `conformal()`.

    Attributes:
        algebra: The algebra, its last three generators e1 e2 e3.
        fixed: The vector that all motions leave alone; None if there is none.
    """

    algebra: Algebra
    fixed: Float[np.ndarray, " components"] | None

    @cached_property
    def map_names(self) -> tuple[str, ...]:
        """Names of the equivariant linear maps; a is the fixed vector."""
        return closed_maps(self.algebra, self.fixed)[0]

    @cached_property
    def maps(self) -> Maps:
        """Basis of the E(3)-equivariant linear maps (E: O(3)), in closed form, of unit norm."""
        return closed_maps(self.algebra, self.fixed)[1]

    def computed_maps(self, *, mirrors: bool = True) -> Maps:
        """The same space as the null space of its conditions; an orthonormal basis, equal to `maps` up to a change of basis.

        Args:
            mirrors: False: the larger space of maps that commute with proper motions only.
        """
        eye, algebra = np.eye(self.algebra.num_components), self.algebra
        vectors = [eye[algebra.index(f"e{i}")] for i in (1, 2, 3)]
        others = vectors if self.fixed is None else [*vectors, self.fixed]
        wedge = [np.einsum("olr,l,r->o", algebra.outer, v, w) for i, v in enumerate(vectors) for w in others[i + 1 :]]
        conditions = [commutator_matrix(algebra, bivector) for bivector in wedge]
        if mirrors:
            conditions.append(action_matrix(algebra, vectors[0], odd=True))
        return equivariant_maps(*conditions)

    @cached_property
    def slices(self) -> tuple[tuple[slice, ...], ...]:
        """For each spatial grade g, where the components r∧S stand for each r; each slice has C(3, g) components."""
        algebra = self.algebra
        extra = algebra.num_generators - _SPATIAL
        found: list[list[slice]] = [[] for _ in range(_SPATIAL + 1)]
        position = 0
        while position < algebra.num_components:
            g = sum(i >= extra for i in algebra.blades[position])
            found[g].append(slice(position, position + comb(_SPATIAL, g)))
            position += comb(_SPATIAL, g)
        return tuple(tuple(group) for group in found)

    @cached_property
    def blocks(self) -> tuple[Float[np.ndarray, "maps _ _"], ...]:
        """For each spatial grade g, each map as a matrix over r: maps = ⊕_g (blocks[g] ⊗ 1)."""
        return tuple(
            np.stack([[matrix[out.start, into.start] for into in group] for matrix in self.maps for out in group]).reshape(
                -1, len(group), len(group)
            )
            for group in self.slices
        )


@cache
def euclidean() -> Geometry:
    """G(3,0,0): vectors are directions, or positions counted from a centre."""
    return Geometry(clifford(3), None)


@cache
def projective() -> Geometry:
    """G(3,0,1): planes are vectors, points are trivectors, e0 is the plane at infinity."""
    algebra = clifford(3, 0, 1)
    return Geometry(algebra, np.eye(algebra.num_components)[algebra.index("e0")])


@cache
def conformal() -> Geometry:
    """G(4,1) in the null basis o, ∞ ("o", "i" in names of blades): points are null vectors, P · Q = −½|p − q|²."""
    frame = np.zeros((5, 5))
    frame[3:, 0] = 0.5, 0.5  # o = (e₊ + e₋) / 2
    frame[3:, 1] = -1, 1  # ∞ = e₋ − e₊
    frame[:3, 2:] = np.eye(3)
    algebra = orthogonal_conformal().rebased("oi123", frame)
    return Geometry(algebra, np.eye(algebra.num_components)[algebra.index("ei")])


def orthogonal_conformal() -> Algebra:
    """G(4,1) in the basis e1 e2 e3 e₊ e₋; `conformal().algebra.outermorphism` changes into it."""
    return clifford(4, 1, labels="123+-")
