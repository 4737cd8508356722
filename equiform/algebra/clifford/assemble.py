"""Multivectors from named components, and rotors that every model of Euclidean space shares."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.algebra.clifford.algebra import Algebra

Number = Float[Array, "*batch"]
Vector = Float[Array, "*batch 3"]
Quaternion = Float[Array, "*batch 4"]
Multivector = Float[Array, "*batch components"]


def assemble(algebra: Algebra, parts: Mapping[str, Array | float], like: Array) -> Multivector:
    """The multivector with these coefficients of named blades, and zero elsewhere.

    Args:
        algebra: The algebra.
        parts: Coefficients, arrays of the batch's shape or numbers.
        like: An array whose shape is that of the batch, and whose type is that of the result.
    """
    columns = [jnp.zeros_like(like)] * algebra.num_components
    for name, value in parts.items():
        columns[algebra.index(name)] = jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)
    return jnp.stack(columns, axis=-1)


def components(algebra: Algebra, x: Multivector, *names: str) -> Float[Array, "*batch _"]:
    """Coefficients of named blades; "-e13" is the coefficient of e13 with the other sign."""
    columns = [(x[..., algebra.index(name.removeprefix("-"))], name.startswith("-")) for name in names]
    return jnp.stack([-column if negative else column for column, negative in columns], axis=-1)


def scalar(algebra: Algebra, values: Number) -> Multivector:
    """A number as grade 0. Invariant."""
    return assemble(algebra, {"1": values}, values)


def extract_scalar(algebra: Algebra, x: Multivector) -> Number:
    """Grade 0."""
    return x[..., algebra.index("1")]


def pseudoscalar(algebra: Algebra, values: Number) -> Multivector:
    """A number that changes sign under mirrors, as the highest grade."""
    return assemble(algebra, {algebra.names[-1]: values}, values)


def extract_pseudoscalar(algebra: Algebra, x: Multivector) -> Number:
    """The highest grade."""
    return x[..., -1]


def rotation(algebra: Algebra, quaternion: Quaternion) -> Multivector:
    """The rotor of a rotation about the origin: w − k e12 + j e13 − i e23.

    Args:
        algebra: An algebra with generators e1 e2 e3 of square 1.
        quaternion: (i, j, k, w), Hamilton's product; need not be normalised.
    """
    i, j, k, w = (quaternion[..., n] for n in range(4))
    return assemble(algebra, {"1": w, "e12": -k, "e13": j, "e23": -i}, w)


def extract_rotation(algebra: Algebra, x: Multivector) -> Quaternion:
    """(i, j, k, w) of a rotor, not normalised."""
    return components(algebra, x, "-e23", "e13", "-e12", "1")


def guarded(weight: Array, floor: float) -> Array:
    """A divisor that is at least `floor` in magnitude; its sign is kept."""
    return jnp.where(jnp.abs(weight) > floor, weight, jnp.where(weight < 0, -floor, floor))
