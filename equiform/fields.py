"""Fields: the axis, unit and representation of each named array of a structure.

A field is declared once. Code that rotates, reflects or reports an array looks up its declaration; three columns do not make
a vector. Rotations act about the origin, by a matrix R of O(3) (det R = −1: a reflection):

    invariant     x                     pseudoscalar    det(R) x
    polar         R x                   axial           det(R) R x
    tensor        R x Rᵀ                spin            x (a vector in spin space, unaffected by spatial rotations)
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
        axis: The axis of its rows.
        representation: How a row transforms under rotations and reflections of space.
        unit: Empty if dimensionless, or for a readout whose unit the task sets.
    """

    name: str
    axis: Axis
    representation: Representation
    unit: str = ""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Trailing shape of a row; None if arbitrary."""
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
    # inputs of atoms and bodies
    Field("tags", "atoms", "invariant"),
    Field("charge", "atoms", "invariant", "e"),
    Field("mass", "atoms", "invariant", "u"),
    Field("position", "atoms", "polar", "Å"),
    Field("velocity", "atoms", "polar", "Å/fs"),
    Field("magnetic_moment", "atoms", "axial", "μB"),
    Field("spin", "atoms", "spin"),
    # predicted motion
    Field("displacement", "atoms", "polar", "Å"),
    Field("velocity_change", "atoms", "polar"),
)
"""The fields that Equiform itself reads, writes or predicts; a data set adds its own."""


def find_field(name: str, axis: Axis, declared: Mapping[tuple[Axis, str], Field] = DECLARED) -> Field:
    """The declaration of a field.

    Args:
        name: Its name.
        axis: The axis of its rows.
        declared: Declarations to search; a data set's own override the common ones (`{**DECLARED, **own}`).

    Raises:
        UserError: The field is not declared, so its representation is unknown.
    """
    if (axis, name) not in declared:
        have = ", ".join(sorted(known for place, known in declared if place == axis))
        raise UserError(
            f"the field {name!r} ({axis}) is not declared, so its representation is unknown; declare it as a "
            f"Field(name, axis, representation) of the data set (declared: {have})"
        )
    return declared[axis, name]


def declarations(*fields: Field) -> dict[tuple[Axis, str], Field]:
    """The common declarations, extended or overridden by further ones."""
    return {**DECLARED, **_declared(*fields)}


def transformed(field: Field, values: np.ndarray, matrices: Matrices) -> np.ndarray:
    """The rows of a field after rotating or reflecting the structure about the origin.

    Args:
        field: The declaration.
        values: One row per atom, edge, graph or token; axes between the first and the trailing ones are channels.
        matrices: The element of O(3) for each row.

    Raises:
        ValueError: The rows do not have the shape of their representation.
    """
    values = np.asarray(values)
    if field.shape is not None and values.shape[1:][-len(field.shape) :] != field.shape:
        raise ValueError(f"field {field.name!r} is declared as {field.representation}, but has the shape {values.shape}")
    return _ACTIONS[field.representation](values, np.asarray(matrices)).astype(values.dtype, copy=False)


def _unchanged(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return values


def _signed(values: np.ndarray, matrices: Matrices) -> np.ndarray:
    return values * np.linalg.det(matrices).round().reshape(-1, *(1,) * (values.ndim - 1))


def _rotated(values: np.ndarray, matrices: Matrices) -> np.ndarray:
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
        ideal: Number of leading basis vectors that rotations about the origin leave fixed: 1 (e0) or 0.
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
    "invariant": _unchanged,
    "spin": _unchanged,
    "pseudoscalar": _signed,
    "polar": _rotated,
    "axial": lambda values, matrices: _signed(_rotated(values, matrices), matrices),
    "tensor": _tensor,
    "multivector": _multivector,
}
