"""Linear maps of multivectors that commute with a group: the null space of that condition, and closed forms beside it.

A map W is equivariant if [M_B, W] = 0 for the generators B of the connected group, M_B x = B x − x B, and [M_u, W] = 0 for one
mirror u. The closed forms take a vector a that the group leaves alone (e0 in the projective, ∞ in the conformal model):

    P_k,   a ∧ P_k,   a ⌋ P_k,   a ∧ (a ⌋ P_k)              P_k: projection on grade k; maps that vanish are left out

Source: Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), proposition 2 and appendix A, for G(3, 0, 1).
"""

import numpy as np
from jaxtyping import Float

from equiform.algebra.clifford.algebra import Algebra

Maps = Float[np.ndarray, "maps components components"]


def action_matrix(
    algebra: Algebra, versor: Float[np.ndarray, " components"], *, odd: bool
) -> Float[np.ndarray, "components components"]:
    """How a versor acts on multivectors: u x u⁻¹ if it is even, u x̂ u⁻¹ if it is odd; u⁻¹ = ũ / ⟨u ũ⟩₀.

    Args:
        algebra: The algebra.
        versor: A product of invertible vectors.
        odd: Whether their number is odd: a mirror, or a mirror and a motor.

    Raises:
        ValueError: If the versor has no inverse.
    """
    reverse = algebra.reversal * versor
    square = float(np.einsum("lr,l,r->", algebra.geometric[0], versor, reverse))
    if abs(square) < 1e-12:
        raise ValueError(f"⟨u ũ⟩₀ = {square:.1e}: this multivector has no inverse; give a product of invertible vectors")
    left = np.einsum("olr,l->or", algebra.geometric, versor)
    right = np.einsum("olr,r->ol", algebra.geometric, reverse / square)
    return right @ left @ np.diag(algebra.involution if odd else np.ones(algebra.num_components))


def commutator_matrix(
    algebra: Algebra, bivector: Float[np.ndarray, " components"]
) -> Float[np.ndarray, "components components"]:
    """M_B x = B x − x B, the action of the Lie algebra's element B."""
    left = np.einsum("olr,l->or", algebra.geometric, bivector)
    return left - np.einsum("olr,r->ol", algebra.geometric, bivector)


def equivariant_maps(*conditions: Float[np.ndarray, "components components"]) -> Maps:
    """An orthonormal basis of the maps that commute with all of the matrices given.

    Args:
        conditions: Matrices of generators (`commutator_matrix`) and of discrete elements (`action_matrix`).
    """
    size = len(conditions[0])
    gram, eye = np.zeros((size * size,) * 2), np.eye(size)
    for matrix in conditions:
        # vec(M W − W M) = K vec(W), rows first; what is needed is the kernel of Σ Kᵀ K.
        gram += np.kron(matrix.T @ matrix, eye) + np.kron(eye, matrix @ matrix.T)
        gram -= np.kron(matrix.T, matrix.T) + np.kron(matrix, matrix)
    values, vectors = np.linalg.eigh(gram)
    kernel = vectors[:, values < 1e-9 * values[-1]]
    return kernel.T.reshape(-1, size, size)


def closed_maps(algebra: Algebra, fixed: Float[np.ndarray, " components"] | None) -> tuple[tuple[str, ...], Maps]:
    """Names and matrices of the closed forms, of unit Frobenius norm in the orthogonal basis.

    Args:
        algebra: The algebra.
        fixed: The vector that the group leaves alone; None: there is none, and the grades are all.
    """
    names, maps = ["P"] * algebra.num_grades, list(algebra.grade_projections)
    if fixed is not None:
        wedge = np.einsum("olr,l->or", algebra.outer, fixed)
        contract = np.einsum("olr,l->or", algebra.contraction, fixed)
        for name, matrix in (("a∧P", wedge), ("a⌋P", contract), ("a∧(a⌋P", wedge @ contract)):
            names += [name] * algebra.num_grades
            maps += [matrix @ projection for projection in algebra.grade_projections]
    named = []
    for i, (name, matrix) in enumerate(zip(names, maps)):
        norm = np.linalg.norm(algebra.outermorphism @ matrix @ algebra.to_frame)
        if norm > 0:
            named.append((f"{name}{i % algebra.num_grades}" + ")" * name.count("("), matrix / norm))
    return tuple(name for name, _ in named), np.stack([matrix for _, matrix in named])
