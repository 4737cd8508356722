"""Graph: the one data type that everything else works on.

A graph holds nodes ("atoms", whatever they represent), directed edges sender → receiver, and a batch index; arrays
are NumPy on the host and JAX on the device, the type is the same. Every array has a fixed capacity and a mask, so
that one compiled program serves a whole data set. Nothing here depends on irreps, chemistry or files.

Conventions: edge vector = x_sender + shift · cell − x_receiver, in Å; edges are sorted by receiver; NaN in a label
field means "not given for this structure".
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

AnyArray = Array | np.ndarray


class Capacity(NamedTuple):
    """The fixed sizes of a padded batch."""

    atoms: int
    edges: int
    graphs: int


def roomy(count: int) -> int:
    """The count rounded up to the next eighth of a power of two, so that few compiled programs serve many sizes."""
    step = 1 << max(count.bit_length() - 4, 0)
    return -(-count // step) * step


class Graph(eqx.Module):
    """A batch of graphs (often of one).

    Attributes:
        positions: Node positions, Å.
        species: Node type; the atomic number for atoms, 0 where it is not used.
        senders: Source node of each edge.
        receivers: Target node of each edge; ascending.
        shifts: Periodic image of the sender: its displacement in units of each cell vector.
        cell: Cell vectors as rows, Å; zero for a graph without a cell.
        graph_index: The graph a node belongs to; ascending.
        atom_mask: False for padding nodes.
        edge_mask: False for padding edges.
        graph_mask: False for padding graphs.
        node_fields: Further arrays with one row per node (charges, velocities, spins, tags, force labels).
        graph_fields: Further arrays with one row per graph (energy and stress labels, total charge).
        vectors: Edge vectors, Å, if given instead of computed from positions: by a program with its own neighbour list,
            or to differentiate with respect to them. Changing `positions` does not change them.
    """

    positions: Float[AnyArray, "atoms 3"]
    species: Int[AnyArray, "atoms"]
    senders: Int[AnyArray, "edges"]
    receivers: Int[AnyArray, "edges"]
    shifts: Int[AnyArray, "edges 3"]
    cell: Float[AnyArray, "graphs 3 3"]
    graph_index: Int[AnyArray, "atoms"]
    atom_mask: Bool[AnyArray, "atoms"]
    edge_mask: Bool[AnyArray, "edges"]
    graph_mask: Bool[AnyArray, "graphs"]
    node_fields: dict[str, Any] = eqx.field(default_factory=dict)
    graph_fields: dict[str, Any] = eqx.field(default_factory=dict)
    vectors: Float[AnyArray, "edges 3"] | None = None

    @property
    def capacity(self) -> Capacity:
        return Capacity(self.species.shape[0], self.senders.shape[0], self.graph_mask.shape[0])

    @property
    def num_atoms(self) -> Any:
        """Number of real nodes (a traced value under `jit`)."""
        return self.atom_mask.sum()

    @property
    def num_edges(self) -> Any:
        """Number of real edges (a traced value under `jit`)."""
        return self.edge_mask.sum()

    @property
    def num_graphs(self) -> Any:
        """Number of real graphs (a traced value under `jit`)."""
        return self.graph_mask.sum()

    def edge_vectors(self) -> Float[AnyArray, "edges 3"]:
        """x_sender + shift · cell − x_receiver, in Å, or the given `vectors`."""
        if self.vectors is not None:
            return self.vectors
        cell = self.cell[self.graph_index[self.receivers]]  # edges 3 3
        shift = (self.shifts[:, :, None].astype(cell.dtype) * cell).sum(axis=1)
        return self.positions[self.senders] + shift - self.positions[self.receivers]

    def sum_over_atoms(self, values: Float[AnyArray, "atoms ..."]) -> Float[Array, "graphs ..."]:
        """Sum node values over each graph, excluding padding."""
        mask = jnp.reshape(self.atom_mask, (-1,) + (1,) * (values.ndim - 1))
        real, num_graphs = jnp.where(mask, values, 0), self.graph_mask.shape[0]
        if num_graphs == 1:  # A sum, not a scatter of every atom into one address.
            return real.sum(axis=0, keepdims=True)
        return jax.ops.segment_sum(real, self.graph_index, num_graphs, indices_are_sorted=True)

    def replace(self, **changes: Any) -> "Graph":
        """A copy with some attributes replaced."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Graph(**(fields | changes))


def make_graph(
    positions: np.ndarray,
    species: np.ndarray | Sequence[int] | None = None,
    senders: np.ndarray | Sequence[int] = (),
    receivers: np.ndarray | Sequence[int] = (),
    *,
    shifts: np.ndarray | None = None,
    cell: np.ndarray | None = None,
    node_fields: Mapping[str, np.ndarray] | None = None,
    graph_fields: Mapping[str, np.ndarray | float] | None = None,
) -> Graph:
    """One unpadded graph on the host, its edges sorted by receiver (senders ascending within).

    Raises:
        ValueError: An edge names a node that does not exist, or a field has the wrong number of rows.
    """
    positions = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    num_atoms = len(positions)
    species = np.zeros(num_atoms, np.int32) if species is None else np.asarray(species, np.int32)
    senders, receivers = np.asarray(senders, np.int32), np.asarray(receivers, np.int32)
    if len(species) != num_atoms:
        raise ValueError(f"{len(species)} species were given for {num_atoms} positions")
    if len(senders) != len(receivers):
        raise ValueError(f"{len(senders)} senders but {len(receivers)} receivers")
    ends = np.concatenate([senders, receivers])
    if len(ends) and (ends.min() < 0 or ends.max() >= num_atoms):
        raise ValueError(f"edges name node {ends.max()} (or a negative one), but there are {num_atoms} nodes")
    shifts = np.zeros((len(senders), 3), np.int32) if shifts is None else np.asarray(shifts, np.int32)
    order = np.lexsort((*shifts.T[::-1], senders, receivers))
    node_fields = {name: np.asarray(value) for name, value in (node_fields or {}).items()}
    for name, value in node_fields.items():
        if len(value) != num_atoms:
            raise ValueError(f"node field {name!r} has {len(value)} rows for {num_atoms} nodes")
    return Graph(
        positions=positions,
        species=species,
        senders=senders[order],
        receivers=receivers[order],
        shifts=shifts[order],
        cell=np.zeros((1, 3, 3)) if cell is None else np.asarray(cell, np.float64).reshape(1, 3, 3),
        graph_index=np.zeros(num_atoms, np.int32),
        atom_mask=np.ones(num_atoms, bool),
        edge_mask=np.ones(len(senders), bool),
        graph_mask=np.ones(1, bool),
        node_fields=node_fields,
        graph_fields={name: np.asarray(value)[None] for name, value in (graph_fields or {}).items()},
    )


def fully_connected_edges(num_atoms: int, *, self_loops: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Senders and receivers of the fully connected graph."""
    receivers, senders = np.divmod(np.arange(num_atoms**2, dtype=np.int32), max(num_atoms, 1))
    keep = (senders != receivers) | self_loops
    return senders[keep], receivers[keep]


def batch(graphs: Sequence[Graph], capacity: Capacity | None = None) -> Graph:
    """Concatenate host graphs into one, padded to a capacity.

    Only fields that all graphs have are kept. Padding atoms and edges sit at the end: padding atoms in the last
    graph slot, padding edges at the last atom, both masked.

    Raises:
        ValueError: There are no graphs, or they do not fit; the message names the required capacity.
    """
    if not graphs:
        raise ValueError("cannot batch zero graphs")
    sizes = [graph.capacity for graph in graphs]
    needed = Capacity(*(sum(column) for column in zip(*sizes)))
    capacity = capacity or needed
    if any(have < need for have, need in zip(capacity, needed)):
        raise ValueError(f"the batch needs {needed} but the capacity is {capacity}")
    pad = Capacity(*(have - need for have, need in zip(capacity, needed)))
    atom_offsets = np.cumsum([0] + [size.atoms for size in sizes])
    graph_offsets = np.cumsum([0] + [size.graphs for size in sizes])

    def joined(arrays: Sequence[AnyArray], padding: int, fill: float | int = 0) -> np.ndarray:
        parts = [np.asarray(array) for array in arrays]
        if padding:
            parts.append(np.full((padding, *parts[0].shape[1:]), fill, parts[0].dtype))
        return np.concatenate(parts)

    def fields(kind: str, padding: int) -> dict[str, np.ndarray]:
        columns = [getattr(graph, kind) for graph in graphs]
        names = [name for name in columns[0] if all(name in column for column in columns)]
        return {name: joined([column[name] for column in columns], padding) for name in names}

    last_atom = max(capacity.atoms - 1, 0)
    return Graph(
        positions=joined([g.positions for g in graphs], pad.atoms),
        species=joined([g.species for g in graphs], pad.atoms, fill=_padding_species(graphs)),
        senders=joined([g.senders + o for g, o in zip(graphs, atom_offsets)], pad.edges, last_atom),
        receivers=joined([g.receivers + o for g, o in zip(graphs, atom_offsets)], pad.edges, last_atom),
        shifts=joined([g.shifts for g in graphs], pad.edges),
        cell=joined([g.cell for g in graphs], pad.graphs),
        graph_index=joined([g.graph_index + o for g, o in zip(graphs, graph_offsets)], pad.atoms, capacity.graphs - 1),
        atom_mask=joined([g.atom_mask for g in graphs], pad.atoms),
        edge_mask=joined([g.edge_mask for g in graphs], pad.edges),
        graph_mask=joined([g.graph_mask for g in graphs], pad.graphs),
        node_fields=fields("node_fields", pad.atoms),
        graph_fields=fields("graph_fields", pad.graphs),
        vectors=joined([g.edge_vectors() for g in graphs], pad.edges) if any(g.vectors is not None for g in graphs) else None,
    )


def _padding_species(graphs: Sequence[Graph]) -> int:
    """A species that the model is sure to know: the first one in the batch."""
    return next((int(graph.species[0]) for graph in graphs if len(graph.species)), 0)


def with_padding_edges(graph: Graph, count: int) -> Graph:
    """A graph with `count` masked edges appended, all at the last node."""

    def extend(array: AnyArray, fill: Array | int | bool) -> Array:
        return jnp.concatenate([array, jnp.full((count, *array.shape[1:]), fill, array.dtype)])

    last = graph.species.shape[0] - 1
    return graph.replace(
        senders=extend(graph.senders, last),
        receivers=extend(graph.receivers, last),
        shifts=extend(graph.shifts, 0),
        edge_mask=extend(graph.edge_mask, False),
        vectors=None if graph.vectors is None else extend(graph.vectors, 0),
    )


def to_device(graph: Graph, dtype: Any = jnp.float32) -> Graph:
    """Move a host graph to the device, its floating-point arrays as `dtype`."""

    def move(leaf: AnyArray) -> Array:
        return jnp.asarray(leaf, dtype) if np.issubdtype(leaf.dtype, np.floating) else jnp.asarray(leaf)

    return jax.tree.map(move, graph)
