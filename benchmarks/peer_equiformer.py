"""The published form of Equiformer as a worker of benchmarks/reference.py. `python peer_equiformer.py TASK.npz ANSWERS`.

The task's folder contains model.npz: the configuration, the precision, and all parameters under their published names. Edges
are computed once, here, and are not timed. A third program, "outputs", writes the energies and forces of the model with the
given parameters to outputs.npz in the same folder.
"""

import copy
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # before e3nn loads its own constants

import e3nn
import numpy as np
import torch
from peer_in_torch import Outputs, load, size, torch_programs
from peer_protocol import CUTOFF, Task, read_task, serve
from published_equiformer import PublishedEquiformer


def edges_of(molecules: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Senders and receivers: all ordered pairs of a molecule within the cutoff, sorted by receiver."""
    edges, start = [np.zeros((2, 0), np.int64)], 0
    for _, positions in molecules:
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        receivers, senders = np.nonzero(distances < CUTOFF)
        edges.append(np.stack([senders, receivers]) + start)
        start += len(positions)
    return np.concatenate(edges, axis=1)


def runner(task: Task, config: dict[str, Any], edges: np.ndarray) -> Callable[[PublishedEquiformer, bool], Outputs]:
    """Energies, and forces if requested, of a model on the task's molecules."""
    numbers, positions = (np.concatenate(arrays) for arrays in zip(*task.molecules, strict=True))
    of_element = {element: kind for kind, element in enumerate(config["elements"])}
    types = torch.tensor([of_element[int(number)] for number in numbers])
    places = torch.tensor(positions, dtype=torch.get_default_dtype())
    index = torch.repeat_interleave(torch.tensor([len(numbers) for numbers, _ in task.molecules]))  # molecule of every atom
    pairs = torch.tensor(edges)

    def run(model: PublishedEquiformer, forces: bool) -> Outputs:
        positions = places.clone().requires_grad_(forces)
        energy = model(types, positions, pairs, index, len(task.molecules))
        if not forces:
            return energy, None
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=model.training)  # differentiated again to train
        return energy, -gradient

    return run


def main() -> None:
    task = read_task()
    warnings.filterwarnings("ignore")
    folder: Path = task.folder
    with np.load(folder / "model.npz") as archive:
        state = {name: archive[name] for name in archive.files}
    config = json.loads(str(state.pop("config")))
    torch.set_default_dtype(getattr(torch, str(state.pop("dtype"))))  # e3nn's constants are created in it too
    torch.manual_seed(0)
    edges = edges_of(task.molecules)
    model = PublishedEquiformer(config)
    load(model, state)
    frozen = copy.deepcopy(model).requires_grad_(False).eval()
    run = runner(task, config, edges)

    def outputs() -> float:
        energy, forces = run(frozen, True)
        assert forces is not None
        np.savez(folder / "outputs.npz", energy=energy.detach().numpy(), forces=forces.numpy())
        return float(energy.sum() + forces.sum())

    about = {
        "code": f"published form, e3nn {e3nn.__version__}, PyTorch {torch.__version__.partition('+')[0]}",
        "parameters": size(model),
        "edges": edges.shape[1],
        "threads": torch.get_num_threads(),
        "warm_up": 3,  # TorchScript optimises during the first calls
    }
    programs = torch_programs(
        lambda: run(frozen, task.forces), lambda: run(model.train(), task.forces), model.parameters(), task.forces
    )
    serve(task, about, {**programs, "outputs": outputs})


if __name__ == "__main__":
    main()
