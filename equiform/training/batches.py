"""Batches in a fixed order, prepared in a background thread while the device computes.

The order is a pure function of (sizes, seed, epoch), so a stream can start at any batch.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from equiform.data.pipeline.batching import MOST_GROUPS, PlannedBatch, plan_epoch
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.rotate import drawn_rotations, rotated
from equiform.graph import Capacity, Graph, batch, roomy
from equiform.training import parallel

AHEAD = 2
"""Number of batches prepared ahead."""
CHEAP_PADDING = 2
"""A batch that is only evaluated may be padded by this factor if that saves a compilation."""


class Batch(NamedTuple):
    """A batch on the device and its position in the run.

    Attributes:
        epoch: Epoch it belongs to.
        position: Its index in the epoch.
        per_epoch: Number of batches in that epoch.
        indices: Indices of its structures in the data set.
        num_atoms: Number of real atoms.
        graph: The padded batch.
        signature: Equal for batches that share a compiled program.
    """

    epoch: int
    position: int
    per_epoch: int
    indices: np.ndarray
    num_atoms: int
    graph: Graph
    signature: Any

    @property
    def capacity(self) -> Capacity:
        """Capacity of the batch, or of its shard on each device."""
        return Capacity(*(getattr(self.graph, name).shape[-1] for name in ("species", "senders", "graph_mask")))


class BatchStream:
    """The batches of a data set from a given position on; use it in a `with` statement.

    Args:
        dataset: Host graphs, with their sizes.
        batch_size: Average number of structures per batch.
        edge_budget: Maximum number of edges in a batch, unless a single structure has more.
        most_groups: Maximum number of groups of like size, each with a capacity of its own.
        least: Capacity that batches are padded to at least where that is cheap, so that data sets share a program.
        seed: Seed of the order.
        epoch: The first epoch.
        position: The first batch in it.
        shuffle: Reshuffle in every epoch; if False, a single epoch in the order of the data set.
        dtype: Precision of floating-point arrays.
        mesh: Devices over which each batch is sharded.
        rotate: Apply a random rotation to every structure, a different one in every epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        edge_budget: int | None = None,
        most_groups: int = MOST_GROUPS,
        least: Capacity | None = None,
        seed: int = 0,
        epoch: int = 0,
        position: int = 0,
        shuffle: bool = True,
        dtype: str = "float32",
        mesh: Mesh | None = None,
        rotate: bool = False,
    ):
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._shuffle, self._dtype, self._rotate = shuffle, np.dtype(dtype), rotate
        largest = int(np.max(dataset.num_edges, initial=1))
        self._edge_budget = None if edge_budget is None else max(edge_budget, largest)
        self._most_groups, self._least = most_groups, least
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(epoch, position), name="equiform-batches", daemon=True)

    def plan(self, epoch: int) -> Any:
        """The planned batches of an epoch: a pure function of the sizes, the seed and the epoch."""
        plan = plan_epoch(
            self._dataset.num_atoms,
            self._dataset.num_edges,
            batch_size=self._batch_size,
            edge_budget=self._edge_budget,
            most_groups=self._most_groups,
            seed=self._seed,
            epoch=epoch,
            shuffle=self._shuffle,
        )
        return plan if self._least is None else [_shared(planned, self._least) for planned in plan]

    def __enter__(self) -> "BatchStream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _work(self, epoch: int, position: int) -> None:
        try:
            while not self._stop.is_set():
                plan = self.plan(epoch)
                for place in range(position, len(plan)):
                    if not self._put(self._prepare(epoch, place, plan)):
                        return
                if not self._shuffle:
                    break
                epoch, position = epoch + 1, 0
            self._put(StopIteration())
        except BaseException as error:  # Re-raised in the consumer's thread, by `__next__`.
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _prepare(self, epoch: int, place: int, plan: Any) -> Batch:
        indices = np.asarray(plan[place].indices)
        host = jax.tree.map(self._cast, self._collated(plan[place], epoch))
        # JAX's x64 switch is per thread, not per process.
        with jax.enable_x64(self._dtype == np.float64):
            graph = jax.device_put(host) if self._mesh is None else parallel.scattered(self._mesh, host)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(host))
        return Batch(
            epoch=epoch,
            position=place,
            per_epoch=len(plan),
            indices=indices,
            num_atoms=int(np.asarray(self._dataset.num_atoms)[indices].sum()),
            graph=graph,
            signature=(jax.tree.structure(host), shapes),
        )

    def _collated(self, planned: PlannedBatch, epoch: int) -> Graph:
        noised = self._shuffle and self._dataset.noised
        graphs = self._dataset.gathered(planned.indices, (self._seed, epoch) if noised else None)
        if self._rotate:
            graphs = self._rotated(graphs, planned.indices, epoch)
        capacity = planned.capacity
        if self._mesh is not None:
            return parallel.stacked_parts(graphs, capacity, self._mesh.size)
        # Noised positions have other edges than the plan counted.
        edges = sum(len(graph.senders) for graph in graphs)
        return batch(graphs, capacity if edges <= capacity.edges else capacity._replace(edges=roomy(edges)))

    def _rotated(self, graphs: Sequence[Graph], indices: Any, epoch: int) -> list[Graph]:
        rotations, start, result = drawn_rotations(indices, self._seed, epoch), 0, []
        for graph in graphs:  # a graph may hold several structures
            count = len(graph.graph_mask)
            result.append(rotated(graph, rotations[start : start + count], self._dataset.declared))
            start += count
        return result

    def _cast(self, leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        if np.issubdtype(array.dtype, np.floating):
            return array.astype(self._dtype, copy=False)
        return array.astype(np.int32) if array.dtype == np.int64 else array


def _shared(planned: PlannedBatch, least: Capacity) -> PlannedBatch:
    """The batch in the shared capacity if it fits and is padded to at most twice its own."""
    fits = all(own <= most for own, most in zip(planned.capacity, least))
    cheap = least.edges <= CHEAP_PADDING * planned.capacity.edges and least.atoms <= CHEAP_PADDING * planned.capacity.atoms
    return planned._replace(capacity=least) if fits and cheap else planned
