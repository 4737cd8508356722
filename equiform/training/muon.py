"""Muon: the momentum of every linear map, orthogonalised.

    D ≈ 0.2 √max(rows, columns) · U Vᵀ,   U S Vᵀ = M,   M = β m + (1 − β) g,   m ← β m + (1 − β) g

A step then moves all directions of a matrix by the same amount, where Adam follows the few with the largest gradients. The
factor gives D the root mean square of Adam's direction, so that the learning rate and its schedule mean the same. Only linear
maps (`linear_maps`) of two or more rows and columns are orthogonalised; biases, norms, attention vectors and the readout's
last row keep Adam's direction. m is Adam's first moment, so there is no further state.

Source: Jordan et al., https://kellerjordan.github.io/posts/muon (2024); the factor: Liu et al., arXiv:2502.16982; the
coefficients of the iteration: those of `optax.contrib.muon`'s preset "dion".
Differs: not optax's, which compiles an iteration for every array; here all matrices of a shape are one stack.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.persist.parameters import named
from equiform.tasks.api import Task
from equiform.training.linear_maps import linear_maps

_COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""a, b, c of X ← a X + b X Xᵀ X + c (X Xᵀ)² X, one row for each iteration."""
_RMS = 0.2
"""Root mean square of Adam's direction, as measured in the source of the factor."""
_SMALLEST_NORM = 1e-20
"""A matrix without gradient stays zero."""


class Muon:
    """Orthogonalised directions of a model's linear maps.

    Args:
        task: The task with the model.
    """

    def __init__(self, task: Task):
        found = {f"model.{name}": matrix for name, matrix in linear_maps(task.model).items()}
        self._maps = {name: matrix for name, matrix in found.items() if min(matrix.rows, matrix.columns) > 1}

    def __call__(self, momentum: Any, direction: Any) -> Any:
        """The direction of a step.

        Args:
            momentum: M of all parameters, as a tree.
            direction: Adam's direction, likewise; kept for what is no linear map.
        """
        leaves, found = named(momentum), named(direction)
        stacks: dict[tuple[int, int], list[tuple[str, Array]]] = {}
        for name, matrix in self._maps.items():
            matrices = matrix.matrices(leaves[name])
            wide = matrices if matrix.rows <= matrix.columns else matrices.mT
            stacks.setdefault((wide.shape[1], wide.shape[2]), []).append((name, wide))
        whole = [jnp.concatenate([wide for _, wide in members]) for members in stacks.values()]
        for members, result in zip(stacks.values(), orthogonalized(whole)):
            bounds = np.cumsum([len(wide) for _, wide in members])
            for (name, _), wide in zip(members, jnp.split(result, bounds[:-1])):
                matrix, scale = self._maps[name], _RMS * wide.shape[2] ** 0.5
                matrices = wide if matrix.rows <= matrix.columns else wide.mT
                found[name] = matrix.weights(scale * matrices, leaves[name].shape)
        return jax.tree.unflatten(jax.tree.structure(direction), list(found.values()))


def orthogonalized(stacks: list[Float[Array, "_ _ _"]]) -> list[Float[Array, "_ _ _"]]:
    """U Vᵀ of each matrix: singular values above 0.003 of the Frobenius norm become 0.97 to 1.15, smaller ones stay smaller.

    Args:
        stacks: Stacks of matrices (stack rows columns), each with no more rows than columns.
    """

    def iterate(x: list[Array], row: Array) -> tuple[list[Array], None]:
        a, b, c = row
        squares = [matrix @ matrix.mT for matrix in x]
        return [a * matrix + (b * square + c * (square @ square)) @ matrix for matrix, square in zip(x, squares)], None

    norms = [jnp.linalg.norm(matrix, axis=(1, 2), keepdims=True) for matrix in stacks]
    scaled = [matrix / jnp.maximum(norm, _SMALLEST_NORM) for matrix, norm in zip(stacks, norms)]
    if not scaled:
        return []
    return jax.lax.scan(iterate, scaled, jnp.asarray(_COEFFICIENTS, scaled[0].dtype))[0]
