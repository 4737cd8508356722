"""Checks of structures before prediction, and their names in messages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from equiform.edges import shortest_edge
from equiform.errors import UserError
from equiform.graph import Graph
from equiform.neighbors import OVERLAP
from equiform.tasks.api import Task

if TYPE_CHECKING:
    from ase import Atoms


def has_stress(atoms: "Atoms") -> bool:
    """Whether a structure has a periodic cell of non-zero volume."""
    return bool(atoms.pbc.any() and atoms.cell.rank == 3)


def check_structure(atoms: "Atoms", task: Task, index: int | str | None = None) -> None:
    """Refuse a structure that the model cannot predict.

    Args:
        atoms: The structure.
        task: The task that is to predict.
        index: Its place in a list or its name, for the message.

    Raises:
        UserError: It has no atoms, unknown elements, numbers that are not finite, a periodic direction without a cell
            vector, or not the tags that the model needs.
    """
    if not len(atoms):
        which = "the structure" if index is None else index if isinstance(index, str) else f"structure {index}"
        raise UserError(f"{which} has no atoms")
    name = name_of(atoms, index)
    elements = task.known_elements
    unknown = sorted(set(atoms.numbers.tolist()) - set(elements))
    if unknown:
        raise UserError(f"{name} has {symbols(unknown)}, but the model knows only {symbols(elements)}")
    if not np.isfinite(atoms.positions).all():
        raise UserError(f"{name} has positions that are not finite numbers")
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise UserError(f"{name} has a cell that is not finite")
    periodic = cell[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=-1, keepdims=True)
    if len(periodic) and not (lengths.all() and _independent(periodic / lengths)):
        raise UserError(
            f"{name} is periodic (pbc = {atoms.pbc.tolist()}), but its cell vectors there are zero or parallel: "
            f"{cell.tolist()}; give a cell, or set pbc to false"
        )
    if num_tags := task.model.traits.num_tags:
        check_tags(atoms.get_tags() if atoms.has("tags") else None, num_tags, name)


def check_tags(tags: np.ndarray | None, num_tags: int, name: str) -> None:
    """Refuse tags that a model of tagged atoms does not know; ASE's surface builders number the layers instead.

    Raises:
        UserError: There are none, or one is not below `num_tags`.
    """
    if tags is None or tags.min() < 0 or tags.max() >= num_tags:
        found = "has none" if tags is None else f"has {tags.min()} to {tags.max()}"
        raise UserError(
            f"the model needs tags of the atoms from 0 to {num_tags - 1} (OC20: 0 below the surface, 1 surface, "
            f"2 adsorbate), but {name} {found}; set them with ASE's atoms.set_tags"
        )


def check_overlap(atoms: "Atoms", graph: Graph, index: int | str | None = None) -> None:
    """Refuse a structure with two atoms in one place.

    Raises:
        UserError: Two atoms, or an atom and an image of its own, are closer than `OVERLAP`.
    """
    edge, distance = shortest_edge(graph.edge_vectors())
    if distance < OVERLAP:
        raise UserError(
            f"{name_of(atoms, index)} has overlapping atoms: {graph.senders[edge]} and {graph.receivers[edge]} are "
            f"{distance:.3f} Å apart"
        )


def name_of(atoms: "Atoms", index: int | str | None) -> str:
    """The formula, with the place in a list or the name if there is one."""
    formula = atoms.get_chemical_formula()
    if index is None:
        return formula
    return f"{index} ({formula})" if isinstance(index, str) else f"structure {index} ({formula})"


def symbols(numbers: Sequence[int]) -> str:
    """Chemical symbols of atomic numbers, for a message."""
    from ase.data import chemical_symbols

    known = len(chemical_symbols)
    return ", ".join(chemical_symbols[n] if 0 < n < known else f"element {n}" for n in numbers)


def _independent(vectors: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(vectors, tol=1e-6) == len(vectors))
