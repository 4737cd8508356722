"""Geometry in G(4,1), null basis. Equivariant under E(3), points too, with no extra sign under mirrors.

| object | embedding |
|---|---|
| point p | P = o + p + ½p² ∞;   P · Q = −½|p − q|² |
| direction v | v ∧ ∞ |
| plane n · x = d | n + d ∞;   P · π = n · p − d; the same vector is the mirror in it |
| sphere, centre c, radius r | P(c) − ½r² ∞ |
| line through p along v | P ∧ v ∧ ∞ |
| flat point p | P ∧ ∞ |
| translation by t | 1 − ½ t ∞ |

Source: Dorst, Fontijne & Mann, Geometric Algebra for Computer Science (2007), chapters 13–14.
"""

import jax.numpy as jnp

from equiform.algebra.clifford.assemble import (
    Multivector,
    Number,
    Quaternion,
    Vector,
    assemble,
    components,
    guarded,
    rotation,
)
from equiform.algebra.clifford.geometry import conformal, orthogonal_conformal
from equiform.algebra.clifford.products import geometric_product, linear

_ALGEBRA = conformal().algebra
_VECTOR = ("e1", "e2", "e3")
_IDEAL = ("ei1", "ei2", "ei3")


def point(positions: Vector) -> Multivector:
    """A point, a null vector of weight 1."""
    return sphere(positions, jnp.zeros_like(positions[..., 0]))


def extract_point(x: Multivector, *, floor: float = 1e-3) -> Vector:
    """The position: the vector part over the weight −P · ∞.

    Args:
        x: The multivector.
        floor: A weight smaller than this, in magnitude, is replaced by it; the sign stays.
    """
    return components(_ALGEBRA, x, *_VECTOR) / guarded(x[..., _ALGEBRA.index("eo")], floor)[..., None]


def sphere(centres: Vector, radii: Number) -> Multivector:
    """The sphere about a centre, in dual form: P · S = ½(r² − |p − c|²)."""
    parts = {name: centres[..., i] for i, name in enumerate(_VECTOR)}
    power = ((centres**2).sum(-1) - radii**2) / 2
    return assemble(_ALGEBRA, {"eo": 1.0, "ei": power, **parts}, radii)


def extract_sphere(x: Multivector, *, floor: float = 1e-3) -> tuple[Vector, Number]:
    """Centre and squared radius (negative for an imaginary sphere)."""
    centre = extract_point(x, floor=floor)
    weight = guarded(x[..., _ALGEBRA.index("eo")], floor)
    return centre, (centre**2).sum(-1) - 2 * x[..., _ALGEBRA.index("ei")] / weight


def direction(vectors: Vector) -> Multivector:
    """A free vector, v ∧ ∞."""
    return assemble(_ALGEBRA, {name: -vectors[..., i] for i, name in enumerate(_IDEAL)}, vectors[..., 0])


def extract_direction(x: Multivector) -> Vector:
    """The free vector."""
    return -components(_ALGEBRA, x, *_IDEAL)


def plane(normals: Vector, distances: Number) -> Multivector:
    """The plane n · x = d; as a versor, the mirror in it."""
    parts = {name: normals[..., i] for i, name in enumerate(_VECTOR)}
    return assemble(_ALGEBRA, {"ei": distances, **parts}, distances)


def extract_plane(x: Multivector) -> tuple[Vector, Number]:
    """Normal and distance, both times the plane's weight |n|."""
    return components(_ALGEBRA, x, *_VECTOR), x[..., _ALGEBRA.index("ei")]


def line(positions: Vector, directions: Vector) -> Multivector:
    """The line through a point along a direction: P ∧ v ∞ = o ∧ v ∧ ∞ + p ∧ v ∧ ∞; its moment is p × v."""
    a, b, c = (jnp.cross(positions, directions)[..., i] for i in range(3))
    parts = {f"eoi{i + 1}": -directions[..., i] for i in range(3)}
    return assemble(_ALGEBRA, {**parts, "ei23": a, "ei13": -b, "ei12": c}, a)


def extract_line(x: Multivector) -> tuple[Vector, Vector]:
    """Direction and moment p × v."""
    return components(_ALGEBRA, x, "-eoi1", "-eoi2", "-eoi3"), components(_ALGEBRA, x, "ei23", "-ei13", "ei12")


def flat_point(positions: Vector) -> Multivector:
    """A point without its sphere, P ∧ ∞: linear in the position."""
    parts = {name: -positions[..., i] for i, name in enumerate(_IDEAL)}
    return assemble(_ALGEBRA, {"eoi": 1.0, **parts}, positions[..., 0])


def extract_flat_point(x: Multivector, *, floor: float = 1e-3) -> Vector:
    """The position of a flat point."""
    return -components(_ALGEBRA, x, *_IDEAL) / guarded(x[..., _ALGEBRA.index("eoi")], floor)[..., None]


def translation(vectors: Vector) -> Multivector:
    """The translator 1 − ½ t ∞."""
    parts = {name: vectors[..., i] / 2 for i, name in enumerate(_IDEAL)}
    return assemble(_ALGEBRA, {"1": 1.0, **parts}, vectors[..., 0])


def extract_translation(x: Multivector) -> Vector:
    """The vector of a translator whose scalar part is 1."""
    return 2 * components(_ALGEBRA, x, *_IDEAL)


def motor(quaternions: Quaternion, translations: Vector) -> Multivector:
    """A rotation about the origin, then a translation."""
    return geometric_product(_ALGEBRA, translation(translations), rotation(_ALGEBRA, quaternions))


def to_orthogonal(x: Multivector) -> Multivector:
    """Components in the basis e1 e2 e3 e₊ e₋ (`orthogonal_conformal`)."""
    return linear(_ALGEBRA.outermorphism, x)


def from_orthogonal(x: Multivector) -> Multivector:
    """Components in the null basis, from those in the basis e1 e2 e3 e₊ e₋."""
    if x.shape[-1] != orthogonal_conformal().num_components:
        raise ValueError(f"{x.shape[-1]} components; a multivector of G(4,1) has 32")
    return linear(_ALGEBRA.to_frame, x)
