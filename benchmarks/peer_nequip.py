"""nequip as a worker of benchmarks/peers.py: its preset M (4 layers, degree 2) for float32, run eagerly.

This follows its documentation for CPUs, which advises against compiling the model for training and warns about compiling it
for inference. `python peer_nequip.py TASK.npz ANSWERS`.
"""

import copy
import warnings

import ase
import nequip
import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import PresetNequIPGNNModel
from nequip.utils.global_state import set_global_state
from peer_in_torch import Outputs, size, torch_programs
from peer_protocol import CUTOFF, Task, read_task, serve

PRESET = "M"


def batch_of(task: Task) -> AtomicDataDict.Type:
    """The molecules with NequIP's neighbour list; its positions are float64, the model is float32."""
    symbols = [chemical_symbols[number] for number in task.elements]
    frames = []
    for numbers, positions in task.molecules:
        frame = from_ase(ase.Atoms(numbers=numbers, positions=positions))
        for transform in (ChemicalSpeciesToAtomTypeMapper(symbols), NeighborListTransform(r_max=CUTOFF)):
            frame = transform(frame)
        frames.append(frame)
    return AtomicDataDict.batched_from_list(frames)


def main() -> None:
    task = read_task()
    warnings.filterwarnings("ignore")
    set_global_state()
    batch = batch_of(task)
    num_edges = batch[AtomicDataDict.EDGE_INDEX_KEY].shape[1]
    model = PresetNequIPGNNModel(
        preset=PRESET,
        seed=0,
        model_dtype="float32",
        type_names=[chemical_symbols[number] for number in task.elements],
        r_max=CUTOFF,
        avg_num_neighbors=num_edges / task.num_atoms,
        do_derivatives=task.forces,
    )
    frozen = copy.deepcopy(model).requires_grad_(False).eval()

    def run(model: torch.nn.Module) -> Outputs:
        result = model(dict(batch))
        force = result[AtomicDataDict.FORCE_KEY] if task.forces else None
        return result[AtomicDataDict.TOTAL_ENERGY_KEY], force

    about = {
        "code": f"nequip {nequip.__version__} NequIP preset {PRESET}",
        "parameters": size(model),
        "edges": num_edges,
        "threads": torch.get_num_threads(),
        "warm_up": 2,
    }
    serve(task, about, torch_programs(lambda: run(frozen), lambda: run(model.train()), model.parameters(), task.forces))


if __name__ == "__main__":
    main()
