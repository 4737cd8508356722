"""Geometry in G(3,0,1). Equivariant under E(3); points, rays and what is built of them take a factor −1 under mirrors.

| object | embedding |
|---|---|
| point p | e123 − x e023 + y e013 − z e012 |
| direction v | e0 v |
| plane n · x = d | n − d e0; the same vector is the mirror in it |
| ray through o along v, m = o × v | m e0 + v3 e12 − v2 e13 + v1 e23 |
| translation by t | 1 − ½ e0 t |
| oriented object | three channels M e_i M⁻¹ with M = T R; or a point and three planes |

Source: Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), table 1; conventions of the authors' code.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.clifford.assemble import (
    Multivector,
    Number,
    Quaternion,
    Vector,
    assemble,
    components,
    extract_rotation,
    guarded,
    rotation,
)
from equiform.algebra.clifford.geometry import projective
from equiform.algebra.clifford.products import geometric_product, inverse_versor, sandwich

_ALGEBRA = projective().algebra
_IDEAL = ("e01", "e02", "e03")
_NORMAL = ("e1", "e2", "e3")


def point(positions: Vector) -> Multivector:
    """A point, with weight 1."""
    x, y, z = (positions[..., i] for i in range(3))
    return assemble(_ALGEBRA, {"e123": 1.0, "e023": -x, "e013": y, "e012": -z}, x)


def extract_point(x: Multivector, *, floor: float = 1e-3, signed: bool = False) -> Vector:
    """The position: the trivector's moments over its weight.

    Args:
        x: The multivector.
        floor: A weight smaller than this, in magnitude, is replaced by it.
        signed: Whether what replaces it keeps its sign. The published code's does not, and a point just below weight zero
            jumps to the other side.
    """
    weight = x[..., _ALGEBRA.index("e123")]
    divisor = guarded(weight, floor) if signed else jnp.where(jnp.abs(weight) > floor, weight, floor)
    return components(_ALGEBRA, x, "-e023", "e013", "-e012") / divisor[..., None]


def point_weight_error(x: Multivector) -> Number:
    """(|e123| − 1)²: how far a multivector is from a point of weight 1."""
    return (jnp.abs(x[..., _ALGEBRA.index("e123")]) - 1) ** 2


def direction(vectors: Vector) -> Multivector:
    """A free vector, a point at infinity of translations: e0 v."""
    return assemble(_ALGEBRA, {name: vectors[..., i] for i, name in enumerate(_IDEAL)}, vectors[..., 0])


def extract_direction(x: Multivector) -> Vector:
    """The free vector."""
    return components(_ALGEBRA, x, *_IDEAL)


def plane(normals: Vector, distances: Number) -> Multivector:
    """The plane n · x = d; as a versor, the mirror in it."""
    parts = {name: normals[..., i] for i, name in enumerate(_NORMAL)}
    return assemble(_ALGEBRA, {"e0": -distances, **parts}, distances)


def plane_through(normals: Vector, positions: Vector) -> Multivector:
    """The plane with this normal through this point."""
    return plane(normals, (normals * positions).sum(-1))


def extract_plane(x: Multivector) -> tuple[Vector, Number]:
    """Normal and distance, both times the plane's weight |n|."""
    return components(_ALGEBRA, x, *_NORMAL), -x[..., _ALGEBRA.index("e0")]


def ray(directions: Vector, moments: Vector) -> Multivector:
    """A line from its Plücker coordinates: direction v and moment m = o × v, with o any point of it."""
    v1, v2, v3 = (directions[..., i] for i in range(3))
    parts = {name: moments[..., i] for i, name in enumerate(_IDEAL)}
    return assemble(_ALGEBRA, {**parts, "e12": v3, "e13": -v2, "e23": v1}, v1)


def extract_ray(x: Multivector) -> tuple[Vector, Vector]:
    """Direction and moment."""
    return components(_ALGEBRA, x, "e23", "-e13", "e12"), components(_ALGEBRA, x, *_IDEAL)


def translation(vectors: Vector) -> Multivector:
    """The translator 1 − ½ e0 t."""
    parts = {name: -vectors[..., i] / 2 for i, name in enumerate(_IDEAL)}
    return assemble(_ALGEBRA, {"1": 1.0, **parts}, vectors[..., 0])


def extract_translation(x: Multivector) -> Vector:
    """The vector of a translator whose scalar part is 1."""
    return -2 * components(_ALGEBRA, x, *_IDEAL)


def motor(quaternions: Quaternion, translations: Vector) -> Multivector:
    """A rotation about the origin, then a translation."""
    return geometric_product(_ALGEBRA, translation(translations), rotation(_ALGEBRA, quaternions))


def oriented_object(positions: Vector, quaternions: Quaternion) -> Float[Array, "*batch 3 components"]:
    """A rigid body's pose as three planes M e_i M⁻¹, where M is its motor."""
    planes = jnp.asarray(np.eye(_ALGEBRA.num_components)[[_ALGEBRA.index(name) for name in _NORMAL]], positions.dtype)
    versor = motor(quaternions, positions)[..., None, :]
    planes = jnp.broadcast_to(planes, (*versor.shape[:-2], *planes.shape))
    return sandwich(_ALGEBRA, jnp.broadcast_to(versor, planes.shape), planes, odd=False)


def extract_pose(planes: Float[Array, "*batch 3 components"]) -> tuple[Vector, Float[Array, "*batch 3 3"]]:
    """Position Σ n_i d_i and rotation matrix (columns: the body's axes n_i) from a body's three planes, n_i orthonormal."""
    normals, distances = extract_plane(planes)
    return (normals * distances[..., None]).sum(-2), jnp.swapaxes(normals, -1, -2)


def framed_object(positions: Vector, first: Vector, second: Vector) -> Float[Array, "*batch 4 components"]:
    """A pose from two of its axes, as its point and the planes of first, second and first × second through it."""
    normals = jnp.stack([first, second, jnp.cross(first, second)], axis=-2)
    planes = plane_through(normals, jnp.broadcast_to(positions[..., None, :], normals.shape))
    return jnp.concatenate([point(positions)[..., None, :], planes], axis=-2)


def extract_motor(x: Multivector) -> tuple[Quaternion, Vector]:
    """Quaternion (i, j, k, w) and translation of a motor M = T R, T = M R⁻¹."""
    quaternion = extract_rotation(_ALGEBRA, x)
    rotor = rotation(_ALGEBRA, quaternion)
    return quaternion, extract_translation(geometric_product(_ALGEBRA, x, inverse_versor(_ALGEBRA, rotor)))
