"""Structures of a store as a sequence of host graphs with labels; data are read on access."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Int

from equiform.data.pipeline.source import GraphSource
from equiform.data.store.files import EdgeIndex, Neighborhood, Store, make_stored_graph
from equiform.data.store.neighborhood import find_edges
from equiform.graph import Graph


class Noise(NamedTuple):
    """Positions that are redrawn every time a structure is trained on ("Noisy Nodes").

    Attributes:
        draw: From a structure's index in the store and a random generator to its positions, Å, and the node labels that
            depend on them.
        neighborhood: The convention by which its edges are recomputed.
    """

    draw: "Callable[[int, np.random.Generator], tuple[np.ndarray, dict[str, np.ndarray]]]"
    neighborhood: Neighborhood


class StoredGraphs(GraphSource):
    """Some structures of a store, in a given order, with labels.

    Args:
        store: The store.
        rows: Which structures.
        edges: Their edges.
        graph_labels: Values per structure, in the order of `rows`, by label.
        node_labels: Columns of the store that become node fields, by the name they get there.
        node_values: Node fields that are computed from a structure's index in the store, by name.
        noise: How training redraws the positions; None uses them as they are.
    """

    def __init__(
        self,
        store: Store,
        rows: Int[np.ndarray, "structures"],
        edges: EdgeIndex,
        *,
        graph_labels: Mapping[str, np.ndarray] | None = None,
        node_labels: Mapping[str, str] | None = None,
        node_values: Mapping[str, Callable[[int], np.ndarray]] | None = None,
        noise: Noise | None = None,
    ):
        self._store, self.rows, self._edges = store, np.asarray(rows, np.int64), edges
        self.graph_labels, self._node_labels = dict(graph_labels or {}), dict(node_labels or {})
        self._node_values, self.noise = dict(node_values or {}), noise

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Graph: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredGraphs": ...
    def __getitem__(self, index: int | slice) -> "Graph | StoredGraphs":
        if isinstance(index, slice):
            return StoredGraphs(
                self._store,
                self.rows[index],
                self._edges,
                graph_labels={name: values[index] for name, values in self.graph_labels.items()},
                node_labels=self._node_labels,
                node_values=self._node_values,
                noise=self.noise,
            )
        row = int(self.rows[index])
        return self._graph(index, row, None, {})

    def drawn(self, index: int, seed: int, epoch: int) -> Graph:
        """The graph to train on in an epoch: a pure function of the seed, the epoch and the structure."""
        if self.noise is None:
            return self[index]
        row = int(self.rows[index])
        return self._graph(index, row, *self.noise.draw(row, np.random.default_rng([seed, epoch, row, 5])))

    def _graph(self, index: int, row: int, positions: np.ndarray | None, drawn: Mapping[str, np.ndarray]) -> Graph:
        store = self._store
        if positions is None:
            edges = self._edges.of(row)
        else:
            assert self.noise is not None
            edges = find_edges(positions, store.cell(row), store.pbc, self.noise.neighborhood)
        fields = {name: np.asarray(store.rows(column, row)) for name, column in self._node_labels.items()}
        fields |= {name: value(row) for name, value in self._node_values.items() if name not in drawn}
        labels = {name: np.asarray(values[index : index + 1]) for name, values in self.graph_labels.items()}
        return make_stored_graph(store, row, edges, positions=positions, node_fields={**fields, **drawn}, graph_fields=labels)

    def gathered(self, indices: Sequence[int], draw: tuple[int, int] | None = None) -> list[Graph]:
        """The graphs of a batch, one by one."""
        return [self[index] if draw is None else self.drawn(index, *draw) for index in indices]

    @property
    def noised(self) -> bool:
        """Whether training redraws the positions in every epoch."""
        return self.noise is not None

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        """Values per structure, in the order of `rows`, by label."""
        return self.graph_labels

    @cached_property
    def num_atoms(self) -> Int[np.ndarray, "structures"]:
        """Atoms of each structure."""
        return self._store["num_atoms"][self.rows].astype(np.int64)

    @cached_property
    def num_edges(self) -> Int[np.ndarray, "structures"]:
        """Edges of each structure, without noise."""
        return self._edges.num_edges[self.rows].astype(np.int64)

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return self._store.elements(self.rows)

    @property
    def node_labels(self) -> tuple[str, ...]:
        """Names of the node fields."""
        return (*self._node_labels, *self._node_values)
