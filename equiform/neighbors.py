"""Neighbour lists: positions and a cell → directed edges, computed by vesin.

Every pair closer than the cutoff is an edge in both directions, for every periodic image; an atom can neighbour its
own images, never itself. There is no cap on the number of neighbours.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from equiform.errors import UserError
from equiform.graph import Graph, make_graph

if TYPE_CHECKING:
    import ase

OVERLAP = 0.1
"""Å. Nuclei closer than this are an input error for any elements; no code gives them a meaningful energy."""

# vesin's grid of cells overflows (a division by zero in C) when the atoms spread over some 1e5 cutoffs.
_LARGEST_SPREAD = 1e3
_MOST_EDGES = 5e8
_FAR = 100.0  # Å from the origin, where float32 rounds positions to 4e-6 Å
_CELLS_PER_ATOM, _FEW = 8, 16  # of the grid that neighbours are searched in; measured on 30 atoms in a box of 100 Å


class Labels(NamedTuple):
    """Labels of one structure; None where unknown.

    Attributes:
        energy: Energy, eV.
        forces: Forces, eV/Å.
        stress: Stress, eV/Å³, positive under tension.
    """

    energy: float | None = None
    forces: Float[np.ndarray, "atoms 3"] | None = None
    stress: Float[np.ndarray, "3 3"] | None = None


def neighbor_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
    pbc: Bool[np.ndarray, "3"] | tuple[bool, bool, bool] | bool,
    cutoff: float,
) -> tuple[Int[np.ndarray, "edges"], Int[np.ndarray, "edges"], Int[np.ndarray, "edges 3"]]:
    """All pairs with |x_sender + shift · cell − x_receiver| < cutoff, sorted by receiver, sender and shift.

    Args:
        positions: Positions, Å; they may lie outside the cell.
        cell: Cell vectors as rows, Å, of any shape and handedness; None or zero without periodicity.
        pbc: Whether the structure is periodic along each cell vector.
        cutoff: Å.

    Returns:
        Senders, receivers and shifts (periodic image of the sender, in cell vectors).

    Raises:
        UserError: The cutoff is not positive, a position or cell vector is not finite, the cell vectors along
            periodic directions do not span a volume, or the list would not fit in memory.
    """
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise UserError(f"the cutoff must be a positive number of Å, not {cutoff}")
    periodic = np.broadcast_to(np.asarray(pbc, bool), 3).copy()
    box = _complete_cell(np.zeros((3, 3)) if cell is None else np.asarray(cell, np.float64), periodic)
    points = np.ascontiguousarray(positions, np.float64)
    if not np.isfinite(points).all():
        atom = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise UserError(f"atom {atom} has a position that is not a finite number: {points[atom].tolist()}")
    if len(points) == 0:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 3), np.int32)
    if periodic.all():
        expected = len(points) ** 2 * 4.19 * cutoff**3 / abs(np.linalg.det(box))
        if expected > _MOST_EDGES:
            raise UserError(
                f"about {expected:.1e} edges within {cutoff} Å: the cell holds {len(points)} atoms in "
                f"{abs(np.linalg.det(box)):.3g} Å³; check the cell and its unit (Å)"
            )
    points = _close_gaps(points, box, periodic, cutoff)

    from vesin import NeighborList

    # vesin's grid has cells as wide as the cutoff: few atoms in a large box are found in a coarser one.
    reach = (
        max(float(cutoff), (abs(np.linalg.det(box)) / (_CELLS_PER_ATOM * max(len(points), _FEW))) ** (1 / 3))
        if periodic.all()
        else cutoff
    )
    # One thread: structures are small, and callers run in parallel already.
    search = NeighborList(cutoff=float(reach), full_list=True, n_threads=1)
    receivers, senders, shifts = search.compute(points, box, periodic, "ijS")
    if reach > cutoff:
        near = ((points[senders] + shifts @ box - points[receivers]) ** 2).sum(axis=1) < cutoff**2
        receivers, senders, shifts = receivers[near], senders[near], shifts[near]
    order = np.lexsort((*shifts.T[::-1], senders, receivers))
    return (
        senders[order].astype(np.int32),
        receivers[order].astype(np.int32),
        shifts[order].astype(np.int32),
    )


def graph_from_atoms(atoms: "ase.Atoms", cutoff: float, *, labels: Labels | None = None, tags: bool = False) -> Graph:
    """An ASE structure as a graph on the host.

    The cell is zero unless some direction is periodic.

    Args:
        atoms: The structure.
        cutoff: Å.
        labels: Attached as `graph_fields` energy and stress and `node_fields` forces, NaN where unknown; None attaches
            no labels.
        tags: Whether to attach ASE's atom tags as `node_fields` tags.
    """
    pbc = np.asarray(atoms.pbc, bool)
    cell = np.array(atoms.cell.array, np.float64) if pbc.any() else None
    senders, receivers, shifts = neighbor_list(atoms.positions, cell, pbc, cutoff)
    positions, shifts = _near_origin(atoms.positions, cell, pbc, senders, receivers, shifts)
    node_fields: dict[str, np.ndarray] = {}
    graph_fields: dict[str, np.ndarray | float] = {}
    if tags:
        node_fields["tags"] = atoms.get_tags().astype(np.int32)
    if labels is not None:
        node_fields["forces"] = np.full((len(atoms), 3), np.nan) if labels.forces is None else labels.forces
        graph_fields["energy"] = np.nan if labels.energy is None else labels.energy
        graph_fields["stress"] = np.full((3, 3), np.nan) if labels.stress is None else labels.stress
    return make_graph(
        positions,
        atoms.numbers,
        senders,
        receivers,
        shifts=shifts,
        cell=cell,
        node_fields=node_fields,
        graph_fields=graph_fields,
    )


def _near_origin(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"] | None,
    pbc: Bool[np.ndarray, "3"],
    senders: Int[np.ndarray, "edges"],
    receivers: Int[np.ndarray, "edges"],
    shifts: Int[np.ndarray, "edges 3"],
) -> tuple[Float[np.ndarray, "atoms 3"], Int[np.ndarray, "edges 3"]]:
    """The same structure with positions that float32 has more digits of; edge vectors do not change.

    Atoms many cells away are brought home, and a structure far from the origin is centred.
    """
    if not len(positions) or np.abs(positions).max() < _FAR:
        return np.asarray(positions), shifts
    if cell is not None and np.asarray(pbc).all():
        images = np.floor(positions @ np.linalg.inv(cell)).astype(np.int32)
        positions, shifts = positions - images @ cell, shifts + images[senders] - images[receivers]
    return positions - np.mean(positions, axis=0), shifts


def _complete_cell(cell: Float[np.ndarray, "3 3"], periodic: Bool[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The cell with unit vectors, orthogonal to the periodic ones, along the non-periodic directions."""
    repeated = cell[periodic]
    lengths = np.linalg.norm(repeated, axis=1)
    # A relative volume of 1e-6 is a cell flatter than any real one; below it images cannot be enumerated.
    flat = len(repeated) and (
        not np.isfinite(repeated).all()
        or lengths.min() == 0
        or np.linalg.svd(repeated / lengths[:, None], compute_uv=False).prod() < 1e-6
    )
    if flat:
        names = ", ".join("abc"[k] for k in np.flatnonzero(periodic))
        raise UserError(
            f"periodic along {names}, but those cell vectors span no volume: {cell.round(6).tolist()} (Å); "
            "set the cell, or set pbc to false where the structure is not periodic"
        )
    box = np.array(cell)
    if not periodic.all():
        orthogonal = np.linalg.svd(repeated)[2][len(repeated) :] if len(repeated) else np.eye(3)
        box[~periodic] = orthogonal
    return np.ascontiguousarray(box)


def _close_gaps(
    points: Float[np.ndarray, "atoms 3"],
    box: Float[np.ndarray, "3 3"],
    periodic: Bool[np.ndarray, "3"],
    cutoff: float,
) -> Float[np.ndarray, "atoms 3"]:
    """Shorten gaps wider than the cutoff along non-periodic directions; no pair changes."""
    for axis in box[~periodic]:  # unit vectors, orthogonal to the periodic directions
        height = points @ axis
        if np.ptp(height) <= _LARGEST_SPREAD * cutoff:
            continue
        order = np.argsort(height)
        gaps = np.diff(height[order])
        shortened = np.where(gaps > 2 * cutoff, 2 * cutoff, gaps)
        closed = np.empty_like(height)
        closed[order] = np.concatenate([[0.0], np.cumsum(shortened)])
        points = points + (closed - height)[:, None] * axis
    return points
