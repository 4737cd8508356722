"""Geometry in G(3,0,0). Equivariant under rotations and mirrors about the origin; count positions from a centre first.

| object | embedding |
|---|---|
| direction v, or position from the centre | v |
| axial vector a (angular momentum) | a1 e23 − a2 e13 + a3 e12 |
| plane n · x = d | n + d (the distance as a scalar) |
| mirror with normal n | n, an odd versor |
"""

from equiform.algebra.clifford.assemble import Multivector, Number, Vector, assemble, components
from equiform.algebra.clifford.geometry import euclidean

_ALGEBRA = euclidean().algebra
_VECTOR = ("e1", "e2", "e3")


def direction(vectors: Vector) -> Multivector:
    """A vector."""
    return assemble(_ALGEBRA, {name: vectors[..., i] for i, name in enumerate(_VECTOR)}, vectors[..., 0])


def extract_direction(x: Multivector) -> Vector:
    """The vector."""
    return components(_ALGEBRA, x, *_VECTOR)


def axial(vectors: Vector) -> Multivector:
    """An axial vector, as the plane it stands on: unchanged by inversion."""
    a, b, c = (vectors[..., i] for i in range(3))
    return assemble(_ALGEBRA, {"e23": a, "e13": -b, "e12": c}, a)


def extract_axial(x: Multivector) -> Vector:
    """The axial vector."""
    return components(_ALGEBRA, x, "e23", "-e13", "e12")


def plane(normals: Vector, distances: Number) -> Multivector:
    """The plane n · x = d."""
    return direction(normals) + assemble(_ALGEBRA, {"1": distances}, distances)


def extract_plane(x: Multivector) -> tuple[Vector, Number]:
    """Normal and distance."""
    return extract_direction(x), x[..., 0]


def mirror(normals: Vector) -> Multivector:
    """The reflection in the plane through the origin with this normal; an odd versor."""
    return direction(normals)
