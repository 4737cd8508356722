"""Fields: what each named array of a structure is, the axis it belongs to, its unit, and how it transforms.

A field is declared once. Whatever has to rotate, reflect or report an array asks its declaration; nothing concludes "a
vector" from three columns. Rotations act about the origin, by a matrix R of O(3) (det R = −1: a reflection):

    invariant     x                     pseudoscalar    det(R) x
    polar         R x                   axial           det(R) R x
    tensor        R x Rᵀ                spin            x (a vector in a space of its own, which no rotation of space turns)
    multivector   Λ(1 ⊕ R) x, grade by grade, of G(3,0,1) (16 components, e0 first) or G(3,0,0) (8)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float

from equiform.errors import UserError

Axis = Literal["atoms", "edges", "graphs", "tokens"]
Representation = Literal["invariant", "pseudoscalar", "polar", "axial", "tensor", "spin", "multivector"]
Matrices = Float[np.ndarray, "rows 3 3"]


@dataclass(frozen=True)
class Field:
    """The declaration of one named array.

    Attributes:
        name: Its name in `Graph.node_fields` or `Graph.graph_fields`, in a token set, and among a model's outputs.
        axis: What it has one row for.
        representation: How a row transforms under rotations and reflections of space.
        unit: Empty for a pure number, and for a readout whose unit the task decides.
    """

    name: str
    axis: Axis
    representation: Representation
    unit: str = ""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The last axes of a row; None where any shape will do."""
        return {"polar": (3,), "axial": (3,), "spin": (3,), "tensor": (3, 3)}.get(self.representation)


def _declared(*fields: Field) -> dict[tuple[Axis, str], Field]:
    return {(field.axis, field.name): field for field in fields}


DECLARED: Mapping[tuple[Axis, str], Field] = _declared(
    # labels of structures
    Field("energy", "graphs", "invariant", "eV"),
    Field("forces", "atoms", "polar", "eV/Å"),
    Field("stress", "graphs", "tensor", "eV/Å³"),
    Field("virial", "graphs", "tensor", "eV"),
    Field("dipole", "graphs", "polar", "e Å"),
    Field("polarizability", "graphs", "tensor", "Å³"),
    # weights of the loss
    Field("weight", "graphs", "invariant"),
    Field("energy_weight", "graphs", "invariant"),
    Field("forces_weight", "graphs", "invariant"),
    Field("stress_weight", "graphs", "invariant"),
    # what atoms and bodies come with
    Field("tags", "atoms", "invariant"),
    Field("charge", "atoms", "invariant", "e"),
    Field("mass", "atoms", "invariant", "u"),
    Field("position", "atoms", "polar", "Å"),
    Field("velocity", "atoms", "polar", "Å/fs"),
    Field("magnetic_moment", "atoms", "axial", "μB"),
    Field("spin", "atoms", "spin"),
    # where they go
    Field("displacement", "atoms", "polar", "Å"),
    Field("velocity_change", "atoms", "polar"),
)
"""The fields that Equiform itself reads, writes or predicts; a data set declares its own beside them."""


def find_field(name: str, axis: Axis, declared: Mapping[tuple[Axis, str], Field] = DECLARED) -> Field:
    """The declaration of a field.

    Args:
        name: Its name.
        axis: What it has one row for.
        declared: Where to look; a data set's own declarations stand before the common ones (`{**DECLARED, **own}`).

    Raises:
        UserError: Nobody declared it, so nobody knows how it transforms.
    """
    if (axis, name) not in declared:
        have = ", ".join(sorted(known for place, known in declared if place == axis))
        raise UserError(
            f"nobody declared the field {name!r} ({axis}), so nothing can say how it rotates; declare it as a "
            f"Field(name, axis, representation) of the data set (declared: {have})"
        )
    return declared[axis, name]


def declarations(*fields: Field) -> dict[tuple[Axis, str], Field]:
    """The common declarations and further ones, which win."""
    return {**DECLARED, **_declared(*fields)}


def transformed(field: Field, values: np.ndarray, matrices: Matrices) -> np.ndarray:
    """The rows of a field in a structure that was rotated or reflected about the origin.

    Args:
        field: The declaration.
        values: One row per atom, edge, graph or token; further axes in front of the last ones are channels.
        matrices: The element of O(3) for each row.

    Raises:
        ValueError: The rows do not have the shape of their representation.
    """
    values = np.asarray(values)
    if field.shape is not None and values.shape[1:][-len(field.shape) :] != field.shape:
        raise ValueError(f"field {field.name!r} is declared as {field.representation}, but has the shape {values.shape}")
    return _ACTIONS[field.representation](values, np.asarray(matrices)).astype(values.dtype, copy=False)


def _kept(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return values


def _flipped(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return values * np.linalg.det(matrices).round().reshape(-1, *(1,) * (values.ndim - 1))


def _turned(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return np.einsum("aij,a...j->a...i", matrices, values)


def _tensor(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return np.einsum("aij,a...jk,alk->a...il", matrices, values, matrices)


def _multivector(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    ideal = {8: 0, 16: 1}.get(values.shape[-1])
    if ideal is None:
        raise ValueError(f"a multivector has 8 components (G(3,0,0)) or 16 (G(3,0,1)), not {values.shape[-1]}")
    return np.einsum("aij,a...j->a...i", multivector_matrices(matrices, ideal), values)


def multivector_matrices(matrices: Matrices, ideal: int) -> Float[np.ndarray, "rows components components"]:
    """Λ(1 ⊕ R): the minors of 1 ⊕ R by grade, components in lexicographic order of their basis vectors.

    Args:
        matrices: Elements of O(3).
        ideal: Number of basis vectors in front that rotations about the origin leave alone: 1 (e0) or 0.
    """
    size = 3 + ideal
    full = np.tile(np.eye(size), (len(matrices), 1, 1))
    full[:, ideal:, ideal:] = matrices
    blades = [blade for grade in range(size + 1) for blade in combinations(range(size), grade)]
    out = np.zeros((len(matrices), len(blades), len(blades)))
    for i, rows in enumerate(blades):
        for j, columns in enumerate(blades):
            if len(rows) == len(columns):
                out[:, i, j] = np.linalg.det(full[:, list(rows)][:, :, list(columns)]) if rows else 1
    return out


_ACTIONS: dict[Representation, Callable[[np.ndarray, Matrices], np.ndarray]] = {
    "invariant": _kept,
    "spin": _kept,
    "pseudoscalar": _flipped,
    "polar": _turned,
    "axial": lambda values, matrices: _flipped(_turned(values, matrices), matrices),
    "tensor": _tensor,
    "multivector": _multivector,
}
