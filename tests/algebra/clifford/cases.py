"""The three models of space with a random motion each, and random multivectors."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from equiform.algebra.clifford import conformal, euclidean, projective
from equiform.algebra.clifford.algebra import Algebra
from equiform.algebra.clifford.assemble import rotation
from equiform.algebra.clifford.geometry import (
    conformal as conformal_geometry,
    euclidean as euclidean_geometry,
    projective as projective_geometry,
)
from equiform.algebra.clifford.maps import action_matrix

GEOMETRIES = {"E": euclidean_geometry(), "P": projective_geometry(), "C": conformal_geometry()}


class Motion(NamedTuple):
    """x → matrix @ x + shift, and how it acts on multivectors."""

    matrix: np.ndarray
    shift: np.ndarray
    action: np.ndarray
    odd: bool

    def point(self, x):
        return x @ self.matrix.T + self.shift

    def vector(self, v):
        return v @ self.matrix.T

    def axial(self, a):
        return a @ self.matrix.T * np.linalg.det(self.matrix)

    def multivector(self, x):
        return x @ self.action.T


def random_motion(name: str, *, odd: bool, seed: int = 0) -> Motion:
    """A rotation, with a translation where the model has one, after a mirror if odd."""
    rng, geometry = np.random.default_rng(seed), GEOMETRIES[name]
    turn, shift = Rotation.random(random_state=rng), rng.normal(size=3)
    normal, distance = _unit(rng.normal(size=3)), rng.normal()
    quaternion = jnp.asarray(turn.as_quat())
    if name == "E":
        shift, distance = np.zeros(3), 0.0
        versor, mirror = rotation(geometry.algebra, quaternion), euclidean.mirror(jnp.asarray(normal))
    else:
        model = projective if name == "P" else conformal
        versor = model.motor(quaternion, jnp.asarray(shift))
        mirror = model.plane(jnp.asarray(normal), jnp.asarray(distance))
    matrix, action = turn.as_matrix(), action_matrix(geometry.algebra, np.asarray(versor), odd=False)
    if odd:
        flip = np.eye(3) - 2 * np.outer(normal, normal)
        matrix, shift = matrix @ flip, matrix @ (2 * distance * normal) + shift
        action = action @ action_matrix(geometry.algebra, np.asarray(mirror), odd=True)
    return Motion(matrix, shift, action, odd)


def random_multivectors(algebra: Algebra, *shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*shape, algebra.num_components))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
