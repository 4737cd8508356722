"""mace-torch as a worker of benchmarks/peers.py: MACE as `mace_run_train` builds it, 2 layers of 128 channels, L = 1, order 3.

Trained as there, eagerly, with its TorchScript blocks; evaluated in the TorchScript form that `mace_run_train` writes with
every model. `python peer_mace.py TASK.npz ANSWERS`.
"""

import copy
import os
import warnings

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # as in MACE's own commands, for the constants of e3nn

import mace
import numpy as np
import torch
from e3nn import o3
from e3nn.util import jit
from mace import data, modules, tools
from mace.tools.torch_geometric.batch import Batch
from peer_in_torch import Outputs, size, torch_programs
from peer_protocol import CUTOFF, Task, read_task, serve

CHANNELS, LAYERS, DEGREE, CORRELATION = 128, 2, 1, 3


def batch_of(task: Task) -> Batch:
    """The molecules with MACE's neighbour list."""
    table = tools.AtomicNumberTable(task.elements)
    graphs = []
    for numbers, positions in task.molecules:
        molecule = data.Configuration(
            atomic_numbers=numbers,
            positions=positions.astype(np.float64),
            properties={},
            property_weights={},
            pbc=(False, False, False),
            cell=np.zeros((3, 3)),
        )
        graphs.append(data.AtomicData.from_config(molecule, z_table=table, cutoff=CUTOFF))
    return Batch.from_data_list(graphs)


def build(elements: list[int], avg_num_neighbors: float) -> torch.nn.Module:
    """The model with the defaults of `mace_run_train` and the sizes above."""
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=LAYERS,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(" + ".join(f"{CHANNELS}x{l}{'eo'[l % 2]}" for l in range(DEGREE + 1))),
        MLP_irreps=o3.Irreps("16x0e"),
        radial_MLP=[64, 64, 64],
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=avg_num_neighbors,
        atomic_numbers=elements,
        correlation=CORRELATION,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def main() -> None:
    task = read_task()
    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    batch = batch_of(task)
    num_edges = batch.edge_index.shape[1]
    model = build(task.elements, num_edges / task.num_atoms)
    scripted = jit.compile(copy.deepcopy(model).requires_grad_(False).eval())

    def run(model: torch.nn.Module, training: bool) -> Outputs:
        result = model(batch.clone().to_dict(), training=training, compute_force=task.forces)
        return result["energy"], result["forces"] if task.forces else None

    about = {
        "code": f"mace-torch {mace.__version__} MACE {CHANNELS}×{LAYERS}, L = {DEGREE}",
        "parameters": size(model),
        "edges": num_edges,
        "threads": torch.get_num_threads(),
        "warm_up": 3,  # TorchScript optimises during the first calls
    }
    evaluate, train = (lambda: run(scripted, False)), (lambda: run(model.train(), True))
    serve(task, about, torch_programs(evaluate, train, model.parameters(), task.forces))


if __name__ == "__main__":
    main()
