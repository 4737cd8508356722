"""Structures in other orientations: positions, cells and every field of vectors or matrices turn together.

For models that are not equivariant, which learn from it what the others know.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from equiform.graph import AnyArray, Graph

_STREAM = 7
"""Keeps these random numbers apart from others with the same seed."""


def random_rotations(count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 3 3"]:
    """Uniform (Haar) rotations: unit quaternions with a uniform direction in four dimensions."""
    q = rng.normal(size=(count, 4))
    w, x, y, z = (q / np.sqrt((q**2).sum(axis=1, keepdims=True))).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def drawn_rotations(indices: Sequence[int] | np.ndarray, seed: int, epoch: int) -> Float[np.ndarray, "structures 3 3"]:
    """A rotation for each structure: a pure function of the seed, the epoch and the structure."""
    draws = [random_rotations(1, np.random.default_rng([seed, epoch, int(index), _STREAM])) for index in indices]
    return np.concatenate(draws)


def rotated(graph: Graph, rotations: Float[np.ndarray, "graphs 3 3"]) -> Graph:
    """A host graph with each of its structures turned about the origin.

    Fields with three real numbers per row turn as vectors (velocities, forces, a dipole), those with 3 × 3 as matrices
    (stress); all others stay as they are.

    Args:
        graph: The structures.
        rotations: A rotation matrix for each.
    """
    of_nodes = rotations[np.asarray(graph.graph_index)]

    def turned(value: AnyArray, by: np.ndarray) -> AnyArray:
        value = np.asarray(value)
        if not np.issubdtype(value.dtype, np.floating) or value.ndim < 2 or value.shape[1:] not in ((3,), (3, 3)):
            return value
        out = np.einsum("aij,aj->ai", by, value) if value.ndim == 2 else np.einsum("aij,ajk,alk->ail", by, value, by)
        return out.astype(value.dtype)

    return graph.replace(
        positions=turned(graph.positions, of_nodes),
        cell=np.einsum("gij,gcj->gci", rotations, np.asarray(graph.cell)),
        node_fields={name: turned(value, of_nodes) for name, value in graph.node_fields.items()},
        graph_fields={name: turned(value, rotations) for name, value in graph.graph_fields.items()},
    )
