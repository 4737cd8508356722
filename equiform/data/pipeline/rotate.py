"""Structures in other orientations: positions, cells and every field rotate together, each as it is declared.

For models that are not equivariant: data augmentation.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from equiform.algebra.so3.rotations import random_rotations
from equiform.fields import DECLARED, Axis, Field, find_field, transformed
from equiform.graph import AnyArray, Graph

_STREAM = 7
"""Separates these random numbers from others with the same seed."""


def drawn_rotations(indices: Sequence[int] | np.ndarray, seed: int, epoch: int) -> Float[np.ndarray, "structures 3 3"]:
    """A rotation for each structure: a pure function of the seed, the epoch and the structure."""
    draws = [random_rotations(1, np.random.default_rng([seed, epoch, int(index), _STREAM])) for index in indices]
    return np.concatenate(draws)


def rotated(
    graph: Graph,
    rotations: Float[np.ndarray, "graphs 3 3"],
    declared: Mapping[tuple[Axis, str], Field] = DECLARED,
) -> Graph:
    """A host graph with each of its structures rotated (or reflected) about the origin, every field as it is declared.

    Args:
        graph: The structures.
        rotations: An element of O(3) for each.
        declared: Declarations of the fields.

    Raises:
        UserError: The graph has an undeclared field.
    """
    of_nodes = rotations[np.asarray(graph.graph_index)]

    def changed(fields: Mapping[str, AnyArray], axis: Axis, by: np.ndarray) -> dict[str, AnyArray]:
        return {name: transformed(find_field(name, axis, declared), np.asarray(v), by) for name, v in fields.items()}

    positions = np.asarray(graph.positions)
    return graph.replace(
        positions=np.einsum("aij,aj->ai", of_nodes, positions).astype(positions.dtype),
        cell=np.einsum("gij,gcj->gci", rotations, np.asarray(graph.cell)),
        node_fields=changed(graph.node_fields, "atoms", of_nodes),
        graph_fields=changed(graph.graph_fields, "graphs", rotations),
    )
