"""TorchMD-NET's equivariant transformer as a worker of benchmarks/peers.py: the sizes of its examples ET-QM9 and ET-MD17.

Its neighbour list is part of the model and so of the measured time. `python peer_torchmd.py TASK.npz ANSWERS`.
"""

import copy
import warnings

import numpy as np
import torch
import torchmdnet
from peer_in_torch import Outputs, size, torch_programs
from peer_protocol import CUTOFF, read_task, serve
from torchmdnet.models.model import create_model

SIZES = {
    False: {"embedding_dimension": 256, "num_layers": 8, "num_rbf": 64},
    True: {"embedding_dimension": 128, "num_layers": 6, "num_rbf": 32},
}
"""Sizes of the published examples: for energies only, and with forces."""
COMMON = {
    "model": "equivariant-transformer",
    "num_heads": 8,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "attn_activation": "silu",
    "distance_influence": "both",
    "neighbor_embedding": True,
    "cutoff_lower": 0.0,
    "cutoff_upper": CUTOFF,
    "max_z": 100,
    "max_num_neighbors": 64,
    "precision": 32,
    "output_model": "Scalar",
    "reduce_op": "add",
    "atom_filter": -1,
    "prior_model": None,
}


def main() -> None:
    task = read_task()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    sizes = SIZES[task.forces]
    model = create_model({**COMMON, **sizes, "derivative": task.forces})
    frozen = copy.deepcopy(model).requires_grad_(False).eval()
    z = torch.tensor(np.concatenate([numbers for numbers, _ in task.molecules]), dtype=torch.long)
    positions = torch.tensor(np.concatenate([positions for _, positions in task.molecules]), dtype=torch.float32)
    index = torch.repeat_interleave(torch.tensor([len(numbers) for numbers, _ in task.molecules]))  # molecule of every atom

    def run(model: torch.nn.Module) -> Outputs:
        energy, force = model(z, positions.clone(), index)
        return energy, force if task.forces else None

    pairs, _, _ = model.representation_model.distance(positions, index, None)  # includes self-loops, and rows of −1 as padding
    about = {
        "code": f"TorchMD-NET {torchmdnet.__version__} ET {sizes['embedding_dimension']}×{sizes['num_layers']}",
        "parameters": size(model),
        "edges": int((pairs[0] != pairs[1]).sum()),
        "threads": torch.get_num_threads(),
        "warm_up": 3,  # TorchScript optimises during the first calls
    }
    serve(task, about, torch_programs(lambda: run(frozen), lambda: run(model.train()), model.parameters(), task.forces))


if __name__ == "__main__":
    main()
