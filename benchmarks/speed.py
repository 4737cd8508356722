"""Time Equiform's published sizes on this machine: compilation, forward pass, energy + forces, training step.

    python -m benchmarks.speed [--preset NAME ...] [--molecules N] [--repeats N]

Random compact molecules of 18 atoms; float32. Prints wall times, and the machine's own rate of single-precision
matrix products beside them. Ratios to other codes need those codes in the same run.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from equiform.graph import Graph, batch, make_graph, to_device
from equiform.models import build_model
from equiform.models.presets import PRESETS, preset
from equiform.neighbors import neighbor_list
from equiform.potential import Potential


def molecules(count: int, cutoff: float) -> Graph:
    """A batch of random compact molecules of 18 atoms, about the density of QM9's."""
    rng = np.random.default_rng(0)
    graphs = []
    for _ in range(count):
        positions: list[np.ndarray] = []
        while len(positions) < 18:
            trial = rng.uniform(-3.2, 3.2, 3)
            if all(np.linalg.norm(trial - other) > 1.0 for other in positions):
                positions.append(trial)
        where = np.array(positions)
        senders, receivers, shifts = neighbor_list(where, np.zeros((3, 3)), np.zeros(3, bool), cutoff)
        graphs.append(make_graph(where, rng.choice([1, 6, 7, 8], 18), senders, receivers, shifts=shifts))
    return to_device(batch(graphs))


def timed(function: Callable[..., Any], *arguments: Any, repeats: int) -> tuple[float, float]:
    """Seconds of the first call (compilation included), and the median of the later ones."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    first = time.perf_counter() - start
    later = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        later.append(time.perf_counter() - start)
    return first, float(np.median(later))


def matrix_rate(size: int = 1536) -> float:
    """Single-precision multiply-adds per second of a large matrix product."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    _, seconds = timed(jax.jit(lambda a: a @ a), a, repeats=5)
    return size**3 / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="time the published sizes on this machine")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["tiny"])
    parser.add_argument("--molecules", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    console = Console()
    console.print(f"{jax.devices()[0].device_kind}: {matrix_rate() / 1e9:.0f} G multiply-adds/s in a large matrix product")
    table = Table("preset", "edges", "case", "first call, s", "later, ms")
    for name in options.preset:
        config = preset(name, elements=None if "elements" in PRESETS[name] else (1, 6, 7, 8))
        graph = molecules(options.molecules, config.cutoff)
        arrays, static = eqx.partition(Potential(build_model(config, key=jax.random.key(0))), eqx.is_inexact_array)

        def energy(arrays: Any, graph: Graph, static: Any = static) -> Any:
            return eqx.combine(arrays, static)(graph, forces=False)["energy"]

        def forces(arrays: Any, graph: Graph, static: Any = static) -> Any:
            result = eqx.combine(arrays, static)(graph)
            return result["energy"], result["forces"]

        def loss(arrays: Any, graph: Graph, forces: Any = forces) -> Any:
            result = forces(arrays, graph)
            return (result[0] ** 2).sum() + (result[1] ** 2).sum()

        cases = {"energy": energy, "energy + forces": forces, "training step, E + F": jax.grad(loss)}
        for case, function in cases.items():
            first, later = timed(jax.jit(function), arrays, graph, repeats=options.repeats)
            table.add_row(name, str(graph.senders.shape[0]), case, f"{first:.1f}", f"{1e3 * later:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
