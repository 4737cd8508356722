"""nequix as a worker of benchmarks/peers.py: the sizes of its published model nequix-mp-1, at degree 2.

Both programs are jitted as a whole, as in its calculator and its training. `python peer_nequix.py TASK.npz ANSWERS`.
"""

from importlib.metadata import version
from typing import Any

import ase
import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import Nequix, node_graph_idx
from peer_in_jax import jax_programs, keep_programs, size, threads
from peer_protocol import CUTOFF, Task, read_task, serve

LAYERS, IRREPS = 4, "128x0e + 64x1o + 32x2e"


def batch_of(task: Task) -> jraph.GraphsTuple:
    """The molecules with nequix's neighbour list; no padding is needed for a single batch."""
    indices = atomic_numbers_to_indices(task.elements)
    molecules = [ase.Atoms(numbers=numbers, positions=positions) for numbers, positions in task.molecules]
    return jraph.batch_np([dict_to_graphstuple(preprocess_graph(atoms, indices, CUTOFF, False)) for atoms in molecules])


def main() -> None:
    task = read_task()
    keep_programs(task.cache)
    batch = batch_of(task)
    num_edges = int(batch.n_edge.sum())
    model = Nequix(
        jax.random.key(0),
        len(task.elements),
        lmax=2,
        cutoff=CUTOFF,
        hidden_irreps=IRREPS,
        n_layers=LAYERS,
        radial_basis_size=8,
        radial_mlp_size=64,
        radial_mlp_layers=2,
        radial_polynomial_p=6.0,
        layer_norm=True,
        avg_n_neighbors=num_edges / task.num_atoms,
    )
    parameters, static = eqx.partition(model, eqx.is_inexact_array)

    def predict(parameters: Any, graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array | None]:
        model = eqx.combine(parameters, static)
        if task.forces:
            energies, forces, _ = model(graph)
            return energies, forces
        positions, senders, receivers = graph.nodes["positions"], graph.senders, graph.receivers
        energies = model.node_energies(positions[senders] - positions[receivers], graph.nodes["species"], senders, receivers)
        return jax.ops.segment_sum(energies[:, 0], node_graph_idx(graph), len(task.molecules)), None

    about = {
        "code": f"nequix {version('nequix')} {LAYERS} layers of {IRREPS.replace(' ', '')}",
        "parameters": size(parameters),
        "edges": num_edges,
        "threads": threads(),
        "warm_up": 2,
    }
    serve(task, about, jax_programs(predict, parameters, jax.tree.map(jnp.asarray, batch)))


if __name__ == "__main__":
    main()
