"""Data-parallel training step on several devices, in one or several processes: sums are reduced over devices.

The weights are replicated on all devices. A batch is the same set of structures whatever the number of devices, and errors
are summed and counted over all of them before the division, so loss and gradient are those of one device up to rounding.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from equiform.errors import UserError
from equiform.graph import Capacity, Graph, batch, roomy

AXIS = "devices"


def start(processes: int | None, index: int | None, coordinator: str | None) -> None:
    """Join the other processes of a run through JAX's distributed runtime; call it before JAX has computed anything.

    Args:
        processes: Number of processes; None: SLURM or Open MPI provides all three.
        index: Index of this process.
        coordinator: HOST:PORT of process 0, reachable from all.

    Raises:
        UserError: The processes do not connect.
    """
    settings = {"num_processes": processes, "process_id": index, "coordinator_address": coordinator}
    if processes is not None and (index is None or coordinator is None):
        missing = "--process" if index is None else "--coordinator"
        raise UserError(f"--processes {processes} needs {missing} too: the index of this process and HOST:PORT of process 0")
    try:
        # The first process evaluates and reports after the others are done: they wait for it.
        jax.distributed.initialize(**settings, shutdown_timeout_seconds=24 * 3600)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        advice = "give --processes, --process and --coordinator" if processes is None else "is HOST:PORT the same and free?"
        raise UserError(f"the processes of the run could not connect to each other ({reason}); {advice}") from error


def is_first() -> bool:
    """Whether this process is the one that writes files and prints messages."""
    return jax.process_index() == 0


@contextmanager
def own_folder(folder: Path, *, resume: bool = False) -> Iterator[Path]:
    """The run folder for the first process, a temporary one for each other process, so that all run the same code.

    Args:
        folder: The run folder, on a file system that all processes share.
        resume: Copy what a resumed run needs.
    """
    if is_first():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="equiform-") as place:
        mine = Path(place) / folder.name
        if resume:
            shutil.copytree(folder, mine, ignore=shutil.ignore_patterns("tensorboard", "*.lock", ".lock"))
        yield mine


def agreed(value: float) -> float:
    """The first process's value, broadcast to all."""
    if jax.process_count() == 1:
        return value
    bits = np.array([value], np.float64).view(np.uint32)  # 64 bits, whatever JAX's default precision
    return float(np.asarray(multihost_utils.broadcast_one_to_all(bits)).view(np.float64)[0])


def anywhere(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.asarray(flag))).any())


def mesh_of(requested: int | None, batch_size: int) -> Mesh:
    """The devices of a run: per process the requested number; by default all, but at most one per structure of a batch.

    Raises:
        UserError: There are fewer devices than requested.
    """
    local, processes = jax.local_devices(), jax.process_count()
    if requested is None:
        requested = max(min(len(local), batch_size // processes), 1)
    if requested > len(local):
        raise UserError(
            f"training.devices={requested}, but there {'is' if len(local) == 1 else 'are'} {len(local)} of kind "
            f"{local[0].device_kind!r} (CPU cores can act as devices: "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={requested})"
        )
    chosen = [[d for d in jax.devices() if d.process_index == process][:requested] for process in range(processes)]
    return Mesh(np.array([device for devices in chosen for device in devices]), (AXIS,))


def replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies of arrays on all devices of a mesh; untouched if there is only one."""
    return tree if mesh.size == 1 else _placed(tree, NamedSharding(mesh, PartitionSpec()))


def single(mesh: Mesh, tree: Any) -> Any:
    """Replicated arrays as arrays on the first device of this process."""
    return tree if mesh.size == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def scattered(mesh: Mesh, stacked: Any) -> Any:
    """Arrays sharded over their leading axis, one slice per device."""
    return _placed(stacked, NamedSharding(mesh, PartitionSpec(AXIS)))


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays that all processes hold, placed with each device holding its shard."""
    host = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index]), host)


def divided(num_edges: Sequence[int] | np.ndarray, parts: int) -> list[list[int]]:
    """Indices of structures in `parts` groups with balanced numbers of edges: largest first, each to the smallest group."""
    loads, groups = [0] * parts, [[] for _ in range(parts)]
    for index in np.argsort(-np.asarray(num_edges), kind="stable").tolist():
        least = min(range(parts), key=lambda part: (loads[part], len(groups[part]), part))
        groups[least].append(index)
        loads[least] += int(num_edges[index]) + 1
    return [sorted(group) for group in groups]


def part_capacity(whole: Capacity, groups: Sequence[Sequence[Graph]]) -> Capacity:
    """Capacity that each shard of a batch is padded to: its part of the whole plus an eighth, or more where a group needs it.

    Rounded up to eighths of a power of two, so that few programs serve all batches.
    """
    needed = [tuple(sum(column) for column in zip(*(graph.capacity for graph in group))) for group in groups if group]
    parts = len(groups)
    sizes = []
    for total, counts in zip(whole, zip(*needed)):
        sizes.append(max(roomy(-(-total * 9 // (8 * parts))), roomy(max(counts))))
    return Capacity(*sizes)


def stacked_parts(graphs: Sequence[Graph], whole: Capacity, parts: int) -> Graph:
    """A batch as one graph whose arrays have a leading axis over its shards."""
    groups = [[graphs[i] for i in group] for group in divided([len(graph.senders) for graph in graphs], parts)]
    capacity = part_capacity(whole, groups)
    # A device without structures still needs arrays: one masked structure.
    batches = [batch(group, capacity) if group else _masked(batch(graphs[:1], capacity)) for group in groups]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _masked(graph: Graph) -> Graph:
    hidden = {name: np.zeros_like(getattr(graph, name)) for name in ("atom_mask", "edge_mask", "graph_mask")}
    return graph.replace(**hidden)
