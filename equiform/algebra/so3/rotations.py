"""Spherical harmonics, Wigner-D matrices and edge-aligned frames.

All are polynomials in the components of a unit vector or of a rotation matrix, built degree by degree with
Clebsch–Gordan coefficients, so values and derivatives are finite everywhere: there are no angles and no poles.
"""

from math import sqrt

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.edges import safe_unit


def spherical_harmonics(
    l_max: int, vectors: Float[Array, "*batch 3"], *, normalize: bool = True
) -> list[Float[Array, "*batch _"]]:
    """Real spherical harmonics of degrees 0 … l_max, component normalisation (Σ_m Y_lm² = 2l + 1 on the sphere).

    Y_{l+1} = c · (Y_l ⊗ Y_1)_{l+1}, so Y_l is the homogeneous polynomial |v|^l Y_l(v̂). Equivariant under O(3) with
    parity (−1)^l. Order as in e3nn: (x, y, z) for l = 1, polar axis y.

    Args:
        l_max: Highest degree.
        vectors: Cartesian vectors.
        normalize: Evaluate at the unit vector; a zero-length vector gives Y_0 = 1 and zeros, with zero derivatives.
    """
    if normalize:
        vectors = safe_unit(vectors)[0]
    harmonics = [jnp.ones_like(vectors[..., :1])]
    first = sqrt(3) * vectors
    for l in range(l_max):
        if l == 0:
            harmonics.append(first)
            continue
        table = wigner_3j(l, 1, l + 1)
        # Fixed by the value at the pole, Y_l,0(ŷ) = √(2l + 1).
        factor = sqrt((2 * l + 3) / (3 * (2 * l + 1))) / table[l, 1, l + 1]
        pairs = harmonics[l][..., :, None] * first[..., None, :]
        matrix = jnp.asarray((factor * table).reshape(-1, 2 * l + 3), vectors.dtype)
        harmonics.append(pairs.reshape(*pairs.shape[:-2], -1) @ matrix)
    return harmonics


def wigner_d(l_max: int, rotations: Float[Array, "*batch 3 3"]) -> list[Float[Array, "*batch _ _"]]:
    """Wigner-D matrices of degrees 0 … l_max in the real basis, D^l(R) Y_l(v) = Y_l(R v).

    D^l is the projection of D^{l−1} ⊗ D^1 onto degree l, so it is a polynomial in R.

    Args:
        l_max: Highest degree.
        rotations: Proper rotation matrices. (For an improper one multiply D^l(−R) by the parity.)
    """
    matrices = [jnp.ones_like(rotations[..., :1, :1])]
    for l in range(1, l_max + 1):
        if l == 1:
            matrices.append(rotations)
            continue
        dim, below = 2 * l + 1, 2 * l - 1
        projector = np.sqrt(dim) * wigner_3j(l - 1, 1, l).reshape(3 * below, dim)
        # P^T (D^{l−1} ⊗ R) P, one factor at a time: rows first.
        left = jnp.asarray(projector.reshape(below, 3, dim), rotations.dtype)
        half = jnp.einsum("...ij,iak->...kaj", matrices[-1], left)
        half = jnp.einsum("...kaj,...ab->...kjb", half, rotations)
        matrices.append(half.reshape(*half.shape[:-2], 3 * below) @ jnp.asarray(projector, rotations.dtype))
    return matrices


def rotation_to_pole(unit: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """A rotation matrix that takes a unit vector to the polar axis, R r̂ = ŷ.

    Two smooth charts, one per hemisphere of y: the shortest rotation to the nearer pole, followed by a half turn about x
    on the lower one. They differ in the remaining angle about the edge, so use the result only in expressions that do not
    depend on it; derivatives of those are exact everywhere.
    """
    x, y, z = (part[..., 0] for part in jnp.split(unit, 3, axis=-1))
    sign = jnp.where(y >= 0, 1, -1).astype(unit.dtype)
    k = 1 / (1 + sign * y)
    rows = [
        [1 - k * x * x, -sign * x, -k * x * z],
        [x, y, z],
        [-sign * k * x * z, -z, sign * (1 - k * z * z)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def random_rotations(count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 3 3"]:
    """Uniform (Haar) rotations: unit quaternions with a uniform direction in four dimensions."""
    q = rng.normal(size=(count, 4))
    w, x, y, z = (q / np.sqrt((q**2).sum(axis=1, keepdims=True))).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def random_rotation(seed: int) -> Float[np.ndarray, "3 3"]:
    """One Haar-random rotation, a pure function of the seed."""
    return random_rotations(1, np.random.default_rng(seed))[0]


class Directions(eqx.Module):
    """Everything about the edges' directions that a model needs, computed once and shared by all layers.

    Attributes:
        harmonics: Y_l of each edge, per degree.
        rotations: D^l into the frame in which the edge is the polar axis, per degree and |m| its rows −m and +m.
        nonzero: False for edges without a direction; there Y_l = 0 for l > 0.
    """

    harmonics: list[Float[Array, "edges _"]]
    rotations: list[list[Float[Array, "edges _ _"]]]
    nonzero: Bool[Array, "edges"]

    def __init__(self, vectors: Float[Array, "edges 3"], l_max: int, *, l_max_frame: int | None = None):
        """Compute the directions of edge vectors.

        Args:
            vectors: Edge vectors; zero-length ones are allowed.
            l_max: Highest degree of the spherical harmonics.
            l_max_frame: Highest degree that is rotated into the edge frame; None: `l_max`.
        """
        unit, _, nonzero = safe_unit(vectors)
        # The polar axis stands in for the missing direction.
        aligned = jnp.where(nonzero[:, None], unit, jnp.asarray([0, 1, 0], unit.dtype))
        self.harmonics = spherical_harmonics(l_max, unit, normalize=False)
        matrices = wigner_d(l_max if l_max_frame is None else l_max_frame, rotation_to_pole(aligned))
        self.rotations = [_by_order(matrix, l) for l, matrix in enumerate(matrices)]
        self.nonzero = nonzero


def _by_order(matrix: Float[Array, "edges _ _"], l: int) -> list[Float[Array, "edges _ _"]]:
    """Rows −m and +m of a rotation, per |m|; by a split, whose transpose is one concatenation."""
    rows = jnp.split(matrix, 2 * l + 1, axis=1)
    return [rows[l], *(jnp.concatenate([rows[l - m], rows[l + m]], axis=1) for m in range(1, l + 1))]
