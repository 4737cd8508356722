"""Which pairs of atoms are edges: the conventions of the published results.

Molecules: every pair closer than the cutoff. OC20: d ≤ cutoff, pairs nearer than 0.01 Å left out, only the nearest 500 of an
atom, images along the surface only. A convention has a key, under which its edges are stored.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equiform.neighbors import neighbor_list

_DENSE = 64  # atoms of a molecule up to which the table of all pairs is faster than a grid


class Neighborhood(NamedTuple):
    """A convention for edges.

    Attributes:
        cutoff: Å.
        inclusive: Whether a pair exactly at the cutoff is an edge.
        max_neighbors: Maximum number of senders of each receiver, nearest first; None keeps all.
        shortest: Pairs not longer than this are no edges, Å.
    """

    cutoff: float
    inclusive: bool = False
    max_neighbors: int | None = None
    shortest: float = 0.0

    @property
    def key(self) -> str:
        """A name that is a folder's name too."""
        return f"{self.cutoff:g}" + ("-inclusive" if self.inclusive else "") + f"-{self.max_neighbors or 'all'}"


class Edges(NamedTuple):
    """Directed edges of one structure, ascending by receiver, sender and shift.

    Attributes:
        senders: Where messages come from.
        receivers: Where they go.
        shifts: Cell vectors that the sender is displaced by; None without a cell.
    """

    senders: Int[np.ndarray, "edges"]
    receivers: Int[np.ndarray, "edges"]
    shifts: Int[np.ndarray, "edges 3"] | None


def oc20_neighborhood(cutoff: float) -> Neighborhood:
    """The periodic graph of the published OC20 models.

    Source: Liao & Smidt's OC20 settings on the Open Catalyst Project's `radius_graph_pbc`.
    """
    return Neighborhood(cutoff, inclusive=True, max_neighbors=500, shortest=0.01)


def find_edges(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
    pbc: Bool[np.ndarray, "3"] | tuple[bool, bool, bool],
    neighborhood: Neighborhood,
) -> Edges:
    """The edges of one structure.

    Args:
        positions: Å.
        cell: Cell vectors as rows, Å; None without periodicity.
        pbc: Along which cell vectors the structure repeats.
        neighborhood: The convention.

    Raises:
        UserError: See `equiform.neighbors.neighbor_list`.
    """
    points = np.asarray(positions, np.float64)
    periodic = bool(np.any(pbc)) and cell is not None
    if not periodic and len(points) <= _DENSE:
        square = ((points[None] - points[:, None]) ** 2).sum(axis=-1)
        near = _within(square, neighborhood)
        np.fill_diagonal(near, False)
        receivers, senders = (index.astype(np.int32) for index in np.nonzero(near))
        shifts, square = None, square[near]
    else:
        box = None if cell is None else np.asarray(cell, np.float64)
        # The list has d < cutoff; computed with a slightly larger cutoff, then cut by the convention.
        senders, receivers, shifts = neighbor_list(points, box, np.asarray(pbc, bool), neighborhood.cutoff * (1 + 1e-6))
        vectors = points[senders] - points[receivers] + (shifts @ box if box is not None else 0)
        square = (vectors**2).sum(axis=1)
        near = _within(square, neighborhood)
        senders, receivers, shifts, square = senders[near], receivers[near], shifts[near], square[near]
        shifts = shifts if periodic else None
    if neighborhood.max_neighbors is not None:
        kept = _nearest(receivers, square, neighborhood.max_neighbors)
        senders, receivers, shifts = senders[kept], receivers[kept], None if shifts is None else shifts[kept]
    return Edges(senders, receivers, shifts)


def _within(square: np.ndarray, neighborhood: Neighborhood) -> np.ndarray:
    limit = neighborhood.cutoff**2
    near = square <= limit if neighborhood.inclusive else square < limit
    return near & (square > neighborhood.shortest**2) if neighborhood.shortest else near


def _nearest(receivers: np.ndarray, square: np.ndarray, most: int) -> np.ndarray:
    """Which edges are among the `most` shortest of their receiver; the earlier one where two are equally long."""
    if not len(receivers) or np.bincount(receivers).max() <= most:
        return np.ones(len(receivers), bool)
    order = np.lexsort((square, receivers))
    start = np.searchsorted(receivers[order], receivers[order])
    kept = np.empty(len(order), bool)
    kept[order] = np.arange(len(order)) - start < most
    return kept
