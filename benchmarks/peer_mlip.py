"""mlip as a worker of benchmarks/peers.py: its ViSNet with the defaults, or its MACE with 2 layers of 128 channels, L = 1.

Both programs are jitted as a whole, as in its training and simulation. `python peer_mlip.py TASK.npz ANSWERS`; the name of the
peer in the task, mlip-visnet or mlip-mace, selects the model.
"""

from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mlip.data import ChemicalSystem, DatasetInfo
from mlip.graph import Graph
from mlip.graph.batching_helpers import batch_graphs, pad_with_graphs
from mlip.models import ForceField, Mace, Visnet
from mlip.typing.properties import Properties
from peer_in_jax import jax_programs, keep_programs, size, threads
from peer_protocol import CUTOFF, Task, read_task, serve

NETWORKS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "mlip-visnet": (Visnet, {}, "ViSNet 256×4, L = 2"),
    "mlip-mace": (Mace, {"num_channels": 128, "num_layers": 2, "node_symmetry": 1}, "MACE 128×2, L = 1"),
}
"""Network, non-default options, and a description of the size."""


def batch_of(task: Task) -> tuple[Graph, int]:
    """The molecules with mlip's neighbour list and its minimum padding (one atom, one graph), and the number of edges."""
    graphs = []
    for numbers, positions in task.molecules:
        molecule = ChemicalSystem(atomic_numbers=numbers, positions=positions.astype(np.float64))
        graphs.append(Graph.from_chemical_system(molecule, CUTOFF))
    batch = batch_graphs(graphs)
    num_edges = int(batch.n_edge.sum())
    batch = pad_with_graphs(batch, task.num_atoms + 1, num_edges, len(graphs) + 1)
    return jax.tree.map(jnp.asarray, batch), num_edges  # float32: JAX's double precision is off


def main() -> None:
    task = read_task()
    keep_programs(task.cache)
    batch, num_edges = batch_of(task)
    network, options, words = NETWORKS[task.peer]
    info = DatasetInfo(
        atomic_energies_map=dict.fromkeys(task.elements, 0.0),
        graph_cutoff_angstrom=CUTOFF,
        avg_num_neighbors=num_edges / task.num_atoms,
        avg_r_min_angstrom=1.0,
    )
    network = network(network.Config(**options), info)
    field = ForceField.from_mlip_network(network, Properties(energy=True, forces=task.forces), seed=0)

    def predict(parameters: Any, graph: Graph) -> tuple[jax.Array, jax.Array | None]:
        result = field.predictor.apply(parameters, graph)
        energies = result.globals.energy[: len(task.molecules)]
        return energies, result.nodes.forces[: task.num_atoms] if task.forces else None

    about = {
        "code": f"mlip {version('mlip')} {words}",
        "parameters": size(field.params),
        "edges": num_edges,
        "threads": threads(),
        "warm_up": 2,
    }
    serve(task, about, jax_programs(predict, field.params, batch))


if __name__ == "__main__":
    main()
