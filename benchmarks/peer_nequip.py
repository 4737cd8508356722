"""nequip as a worker of benchmarks/peers.py: its preset M (4 layers, degree 2) for float32.

Trained eagerly, as its documentation asks for on processors (it advises against train-time compilation there); evaluated in the
form that `nequip-compile --mode aotinductor --target batch` makes, which needs a C++ compiler and some minutes the first time.
`python peer_nequip.py TASK.npz ANSWERS`.
"""

import copy
import tempfile
import warnings
from pathlib import Path

import ase
import nequip
import torch
from ase.data import chemical_symbols
from nequip.data import AtomicDataDict, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.model import PresetNequIPGNNModel
from nequip.nn.compile import DictInputOutputWrapper
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from peer_in_torch import Outputs, size, torch_programs
from peer_protocol import CUTOFF, Task, read_task, serve

PRESET = "M"
INPUTS = [
    AtomicDataDict.POSITIONS_KEY,
    AtomicDataDict.EDGE_INDEX_KEY,
    AtomicDataDict.ATOM_TYPE_KEY,
    AtomicDataDict.CELL_KEY,
    AtomicDataDict.EDGE_CELL_SHIFT_KEY,
    AtomicDataDict.BATCH_KEY,
    AtomicDataDict.NUM_NODES_KEY,
]
"""What a model compiled for batches reads."""


def batch_of(task: Task) -> AtomicDataDict.Type:
    """The molecules with NequIP's own neighbour list; positions are float64 there, the model is float32."""
    symbols = [chemical_symbols[number] for number in task.elements]
    frames = []
    for numbers, positions in task.molecules:
        frame = from_ase(ase.Atoms(numbers=numbers, positions=positions))
        for transform in (ChemicalSpeciesToAtomTypeMapper(symbols), NeighborListTransform(r_max=CUTOFF)):
            frame = transform(frame)
        frames.append(frame)
    return AtomicDataDict.batched_from_list(frames)


def compiled(model: torch.nn.Module, task: Task, batch: AtomicDataDict.Type, folder: Path) -> torch.nn.Module:
    """The model as `nequip-compile` makes it, or as the folder has it; NequIP compares its outputs with the model's."""
    outputs = [AtomicDataDict.TOTAL_ENERGY_KEY] + ([AtomicDataDict.FORCE_KEY] if task.forces else [])
    names = {"graph": "num_frames", "node": "num_nodes", "edge": "num_edges"}
    elements = "-".join(map(str, task.elements))
    threads = torch.get_num_threads()  # the compiled code is divided for these
    kind = f"{PRESET}-{elements}-{'forces' if task.forces else 'energy'}-{threads}-threads"
    path = folder / f"nequip-{nequip.__version__}-torch-{torch.__version__}-{kind}.nequip.pt2"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            made = aot_export_model(
                model=model,
                device="cpu",
                input_fields=INPUTS,
                output_fields=outputs,
                data=dict(batch),
                batch_map={kind: torch.export.Dim(name, min=2) for kind, name in names.items()},
                output_path=str(Path(unfinished) / path.name),
            )
            Path(made).rename(path)
    return DictInputOutputWrapper(torch._inductor.aoti_load_package(str(path)), INPUTS, outputs)


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
    with tempfile.TemporaryDirectory() as temporary:
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        inference = compiled(frozen, task, batch, task.cache or Path(temporary))

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
    serve(task, about, torch_programs(lambda: run(inference), lambda: run(model.train()), model.parameters(), task.forces))


if __name__ == "__main__":
    main()
