"""TorchMD-NET's equivariant transformer as a worker of benchmarks/time_to_accuracy.py: `torchmd-train`, stopped in time.

Its arguments are TRAIN.xyz VALIDATION.xyz SEED FOLDER. When its validation loss improves, the model is kept in memory with
its time. The frames are handed over in memory, as none of its data sets reads extended XYZ; energies of atoms are a least-
squares fit, which its option `remove_ref_energy` subtracts.
"""

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import accuracy_worker  # first: the clock starts here
import ase.io
import numpy as np
import torch
from torch_geometric.data import Data
from torchmdnet.scripts import train as torchmd_train

SETTINGS = {
    # examples/ET-MD17.yaml of TorchMD-NET, with half of its channels and four of its six layers
    "model": "equivariant-transformer",
    "embedding_dimension": 64,
    "num_layers": 4,
    "num_heads": 8,
    "num_rbf": 32,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "attn_activation": "silu",
    "distance_influence": "both",
    "neighbor_embedding": True,
    "cutoff_lower": 0.0,
    "cutoff_upper": 5.0,
    "max_num_neighbors": 32,
    "output_model": "Scalar",
    "reduce_op": "add",
    "derivative": True,
    "precision": 32,
    "batch_size": 8,
    "inference_batch_size": 64,
    "lr": 1e-3,
    "lr_factor": 0.8,
    "lr_patience": 30,
    "lr_min": 1e-7,
    "lr_warmup_steps": 1000,
    "weight_decay": 0.0,
    "y_weight": 0.2,
    "neg_dy_weight": 0.8,
    "ema_alpha_y": 0.05,
    # of this comparison: the time ends a run, every epoch may be the best one, and one thread reads
    "num_epochs": 100000,
    "early_stopping_patience": 100000,
    "save_interval": 1,
    "num_workers": 0,
    "ngpus": 1,  # of its trainer: one processor
    "remove_ref_energy": True,
}


class Frames(list):
    """Frames as TorchMD-NET takes them, with the energies of atoms that fit those of training."""

    def __init__(self, train: list, validation: list):
        super().__init__(
            Data(
                z=torch.tensor(atoms.numbers, dtype=torch.long),
                pos=torch.tensor(atoms.positions, dtype=torch.float32),
                y=torch.tensor([[atoms.info["REF_energy"]]], dtype=torch.float64),  # in float32 only without those of atoms
                neg_dy=torch.tensor(atoms.arrays["REF_forces"], dtype=torch.float32),
            )
            for atoms in [*train, *validation]
        )
        counts = np.array([np.bincount(atoms.numbers, minlength=100) for atoms in train])
        energies = [atoms.info["REF_energy"] for atoms in train]
        self.atomref = torch.tensor(np.linalg.lstsq(counts, energies, rcond=None)[0])[:, None]

    def get_atomref(self) -> torch.Tensor:
        """Energies of atoms by atomic number."""
        return self.atomref


def predictor(model: torch.nn.Module) -> accuracy_worker.Predict:
    """The predictions of a model, with the energies of atoms."""
    model.eval()
    atomref = model.prior_model[-1].initial_atomref[:, 0]

    def predict(atoms: Any) -> tuple[float, Any]:
        numbers = torch.tensor(atoms.numbers, dtype=torch.long)
        energy, forces = model(numbers, torch.tensor(atoms.positions, dtype=torch.float32))
        return energy.item() + atomref[numbers].sum().item(), forces.detach().numpy()

    return predict


def main() -> None:
    budget = accuracy_worker.Budget(sys.argv[1:])
    train, validation, seed, folder = budget.arguments
    own = Path(folder) / "torchmd"
    own.mkdir(exist_ok=True)
    warnings.filterwarnings("ignore")

    class BestKept(torchmd_train.ModelCheckpoint):
        """Its callback that keeps the best model: keeps it in memory too, and stops in time."""

        best = None

        def on_train_batch_end(self, trainer, pl_module, *arguments):
            super().on_train_batch_end(trainer, pl_module, *arguments)
            budget.check()

        def _save_topk_checkpoint(self, trainer, monitor_candidates):
            super()._save_topk_checkpoint(trainer, monitor_candidates)
            if self.best_model_score is not None and (self.best is None or self.best_model_score < self.best):
                self.best = self.best_model_score.clone()
                budget.keep(lambda: copy.deepcopy(trainer.lightning_module.model))

    torchmd_train.ModelCheckpoint = BestKept
    parts = [list(ase.io.iread(path)) for path in (train, validation)]
    sizes = [len(part) for part in parts]
    frames = Frames(*parts)
    module = torchmd_train.DataModule
    torchmd_train.DataModule = lambda settings: module(settings, dataset=frames)
    held_out = np.arange(sizes[0], sum(sizes))
    np.savez(own / "frames.npz", idx_train=np.arange(sizes[0]), idx_val=held_out, idx_test=np.arange(0))
    settings = SETTINGS | {"seed": int(seed), "splits": str(own / "frames.npz"), "log_dir": str(own)}
    sys.argv[1:] = ["--conf", str(accuracy_worker.settings_file(own, settings))]
    with budget.until_over():
        torchmd_train.main()
    budget.write(lambda model: sum(weight.numel() for weight in model.parameters() if weight.requires_grad), predictor)


if __name__ == "__main__":
    main()
