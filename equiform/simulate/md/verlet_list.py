"""The host side of the neighbour list: pairs within cutoff + skin, and their capacity in the loop."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from equiform.edges import within
from equiform.graph import fully_connected_edges, roomy
from equiform.neighbors import neighbor_list
from equiform.simulate.md.integrator import Candidates, TwoFloat, split

# A list of all pairs of a molecule never goes stale; worth it while there are few more of them than listed ones.
ALL_PAIRS_EXCESS = 1.25
# Displacements are compared in the dtype of the run; this is far above its rounding error.
SAFETY = 1e-3


class EdgeCapacity(NamedTuple):
    """Edge capacity of the compiled loop: in the list, and within the cutoff.

    Both only grow, by at least a quarter, so that a run is compiled a handful of times at most; and they are round, so that the
    next run of a like structure finds the program compiled.
    """

    listed: int = 0
    active: int = 0

    def grown(self, listed: int, active: int) -> "EdgeCapacity":
        """A capacity with room for this many edges; unchanged if it has room already."""
        return EdgeCapacity(_grown(self.listed, listed), _grown(self.active, active))


def _grown(have: int, need: int) -> int:
    if 0 < have >= need:
        return have
    return roomy(max(int(1.05 * need) + 8, int(1.25 * have)))


class VerletList:
    """The pairs of atoms within cutoff + skin of one structure, rebuilt on demand.

    Attributes:
        cutoff: The model's cutoff, Å.
        skin: Margin added to the cutoff, Å.
        capacity: Edge capacity of the compiled loop.
        complete: Whether the list holds all pairs of a molecule and so never goes stale.
    """

    def __init__(
        self,
        cell: Float[np.ndarray, "3 3"],
        pbc: np.ndarray,
        cutoff: float,
        skin: float,
        dtype: Any,
        capacity: EdgeCapacity | None = None,
    ):
        self.cell, self.pbc, self.dtype = cell, pbc, dtype
        self.cutoff, self.skin, self.capacity = cutoff, skin, capacity or EdgeCapacity()
        self.complete = False

    def wrap(self, positions: Float[np.ndarray, "atoms 3"]) -> Int[np.ndarray, "atoms 3"]:
        """Periodic image of each atom: multiples of the cell vectors to subtract to wrap it into the cell."""
        if not self.pbc.any():
            return np.zeros(positions.shape, np.int64)
        # Directions without a cell vector get a unit vector; they are never wrapped.
        cell = np.where(self.pbc[:, None], self.cell, 0)
        basis = _completed(cell, self.pbc)
        return np.where(self.pbc, np.floor(positions @ np.linalg.inv(basis)), 0).astype(np.int64)

    def build(self, reference: TwoFloat) -> Candidates:
        """List the pairs at these positions, and grow the capacity if needed."""
        positions = np.asarray(reference.high, np.float64) + np.asarray(reference.low, np.float64)
        num_atoms = len(positions)
        reach = self.cutoff + self.skin
        senders, receivers, shifts = neighbor_list(positions, self.cell, self.pbc, reach)
        vectors = positions[senders] + shifts @ self.cell - positions[receivers]
        active = int(within((vectors**2).sum(-1), self.cutoff**2).sum())
        all_pairs = num_atoms * (num_atoms - 1)
        self.complete = not self.pbc.any() and all_pairs <= ALL_PAIRS_EXCESS * len(senders)
        if self.complete:
            senders, receivers = fully_connected_edges(num_atoms)
            shifts = np.zeros((all_pairs, 3), np.int32)
            # A small molecule uses all its pairs: gathering the near ones would save next to nothing.
            self.capacity = EdgeCapacity(all_pairs, all_pairs)
        else:
            self.capacity = self.capacity.grown(len(senders), active)
        return self._padded(senders, receivers, shifts, reference)

    def make_room(self) -> None:
        """Grow the capacity for edges within the cutoff after the loop reported an overflow."""
        self.capacity = self.capacity.grown(0, self.capacity.active + 1)

    def _padded(self, senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray, reference: TwoFloat) -> Candidates:
        count, room = len(senders), max(self.capacity.listed, 1)
        last_atom = len(reference.high) - 1
        limit = np.inf if self.complete else 0.5 * self.skin - SAFETY

        def padded(values: np.ndarray, fill: int) -> np.ndarray:
            rest = np.full((room - count, *values.shape[1:]), fill)
            return np.concatenate([values, rest]).astype(np.int32)

        arrays: Any = (
            padded(senders, last_atom),
            padded(receivers, last_atom),
            padded(shifts, 0),
            np.arange(room) < count,
            np.asarray(limit, self.dtype),
        )
        # In a single transfer: a rebuild should not cost more than a few steps.
        placed: Any = jax.device_put(arrays)
        return Candidates(placed[0], placed[1], placed[2], placed[3], reference, placed[4])


def _completed(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """Cell vectors of the periodic directions, completed by orthonormal vectors for the others."""
    periodic = cell[pbc]
    null_space = np.linalg.svd(periodic)[2][len(periodic) :]
    basis = cell.copy()
    basis[~pbc] = null_space
    return basis


def moved_home(positions: TwoFloat, images: Int[np.ndarray, "atoms 3"], cell: Float[np.ndarray, "3 3"], dtype: Any) -> TwoFloat:
    """Positions minus multiples of the cell vectors, at full precision."""
    exact = np.asarray(positions.high, np.float64) + np.asarray(positions.low, np.float64)
    return split(exact - images @ cell, dtype) if images.any() else positions
