"""One training step on several devices: each computes a part of the batch, sums and gradients are added up.

The weights are copies on all devices. A batch is the same set of structures however many devices there are, and errors are
summed and counted over all of them before they are divided, so loss and gradient are those of one device up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from equiform.errors import UserError
from equiform.graph import Capacity, Graph, batch

AXIS = "devices"


def mesh_of(wanted: int | None, batch_size: int) -> Mesh:
    """The devices of a run: as many as wanted, without a wish all local ones, but not more than structures in a batch.

    Raises:
        UserError: There are not so many devices.
    """
    devices = jax.local_devices()
    if wanted is None:
        wanted = min(len(devices), batch_size)
    if wanted > len(devices):
        raise UserError(
            f"training.devices={wanted}, but there {'is' if len(devices) == 1 else 'are'} {len(devices)} of kind "
            f"{devices[0].device_kind!r} (processor cores can stand for devices: "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={wanted})"
        )
    return Mesh(np.array(devices[:wanted]), (AXIS,))


def replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies of arrays on all devices of a mesh; untouched where there is but one."""
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def single(mesh: Mesh, tree: Any) -> Any:
    """Replicated arrays as arrays of the first device."""
    return tree if mesh.size == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def scattered(mesh: Mesh, stacked: Any) -> Any:
    """Arrays whose leading axis numbers the devices, each part on its own."""
    return jax.device_put(stacked, NamedSharding(mesh, PartitionSpec(AXIS)))


def divided(num_edges: Sequence[int] | np.ndarray, parts: int) -> list[list[int]]:
    """Positions of structures in `parts` groups of about equally many edges: the largest first, each to the smallest group."""
    loads, groups = [0] * parts, [[] for _ in range(parts)]
    for index in np.argsort(-np.asarray(num_edges), kind="stable").tolist():
        least = min(range(parts), key=lambda part: (loads[part], len(groups[part]), part))
        groups[least].append(index)
        loads[least] += int(num_edges[index]) + 1
    return [sorted(group) for group in groups]


def part_capacity(whole: Capacity, groups: Sequence[Sequence[Graph]]) -> Capacity:
    """What each part of a batch is padded to: its share of the whole and an eighth more, or more where a group needs it.

    In steps of an eighth of a power of two, so that few programs serve all batches.
    """
    needed = [tuple(sum(column) for column in zip(*(graph.capacity for graph in group))) for group in groups if group]
    parts = len(groups)
    sizes = []
    for share, counts in zip(whole, zip(*needed)):
        sizes.append(max(roomy(-(-share * 9 // (8 * parts))), roomy(max(counts))))
    return Capacity(*sizes)


def stacked_parts(graphs: Sequence[Graph], whole: Capacity, parts: int) -> Graph:
    """A batch as one graph whose arrays have a leading axis over its parts."""
    groups = [[graphs[i] for i in group] for group in divided([len(graph.senders) for graph in graphs], parts)]
    capacity = part_capacity(whole, groups)
    # A device without structures still needs arrays: one structure that does not count.
    batches = [batch(group, capacity) if group else _masked(batch(graphs[:1], capacity)) for group in groups]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def roomy(count: int) -> int:
    """A number that few batches exceed and that few compiled programs serve: up to the next eighth of a power of 2."""
    step = 1 << max(count.bit_length() - 4, 0)
    return -(-count // step) * step


def _masked(graph: Graph) -> Graph:
    hidden = {name: np.zeros_like(getattr(graph, name)) for name in ("atom_mask", "edge_mask", "graph_mask")}
    return graph.replace(**hidden)
