"""NequIP as a worker of benchmarks/time_to_accuracy.py: `nequip-train`, stopped when the time is over.

Its arguments are TRAIN.xyz VALIDATION.xyz SEED FOLDER. When its validation metric improves, the EMA of the weights is kept in
memory with its time.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import accuracy_worker  # first: the clock starts here
import ase.io
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

METRIC = "val0_epoch/weighted_sum"


def settings(train: str, validation: str, seed: int, symbols: list[str]) -> dict[str, Any]:
    """The tutorial of NequIP, configs/tutorial.yaml.

    Differs: one processor without compilation, as its documentation advises for training there; reading in the same process; no
    early stopping, since the time ends a run; no tests, no log.
    """
    cutoff, batch = 5.0, {"_target_": "torch.utils.data.DataLoader", "num_workers": 0}
    metrics = {"_target_": "nequip.train.EnergyForceMetrics", "coeffs": {"total_energy_mae": 1.0, "forces_mae": 1.0}}
    plateau = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "factor": 0.6, "patience": 5, "threshold": 0.2}
    statistics = "${training_data_stats:NAME}"
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": seed,
            "train_file_path": train,
            "val_file_path": validation,
            "key_mapping": {"REF_energy": "total_energy", "REF_forces": "forces"},
            "transforms": [
                {"_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper", "model_type_names": symbols},
                {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": cutoff},
            ],
            "train_dataloader": batch | {"batch_size": 5, "shuffle": True},
            "val_dataloader": batch | {"batch_size": 10},
            "stats_manager": {
                "_target_": "nequip.data.CommonDataStatisticsManager",
                "dataloader_kwargs": {"batch_size": 10},
                "type_names": symbols,
            },
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": 100000,
            "logger": False,
            "callbacks": [{"_target_": "__main__.BestKept", "monitor": METRIC, "dirpath": "${hydra:runtime.output_dir}"}],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.999,
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "per_atom_energy": True,
                "coeffs": {"total_energy": 1.0, "forces": 1.0},
            },
            "val_metrics": metrics,
            "train_metrics": metrics,
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "lr_scheduler": {"scheduler": plateau | {"min_lr": 1e-6}, "monitor": METRIC, "interval": "epoch", "frequency": 1},
            "model": {
                "_target_": "nequip.model.NequIPGNNModel",
                "compile_mode": "eager",
                "seed": seed,
                "model_dtype": "float32",
                "type_names": symbols,
                "r_max": cutoff,
                "num_bessels": 8,
                "polynomial_cutoff_p": 6,
                "num_layers": 4,
                "l_max": 1,
                "parity": True,
                "num_features": 32,
                "radial_mlp_depth": 2,
                "radial_mlp_width": 64,
                "avg_num_neighbors": statistics.replace("NAME", "num_neighbors_mean"),
                "per_type_energy_scales": statistics.replace("NAME", "per_type_forces_rms"),
                "per_type_energy_shifts": statistics.replace("NAME", "per_atom_energy_mean"),
                "pair_potential": {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": symbols},
            },
        },
        "global_options": {"seed": seed, "allow_tf32": False},
    }


class BestKept(ModelCheckpoint):
    """The callback that keeps the best model: keeps its weights in memory too, and stops in time."""

    budget: accuracy_worker.Budget
    model: torch.nn.Module
    best = None

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        super().on_train_batch_end(trainer, pl_module, *arguments)
        self.budget.check()

    def _save_topk_checkpoint(self, trainer, monitor_candidates):
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        if self.best_model_score is not None and (self.best is None or self.best_model_score < self.best):
            self.best, module = self.best_model_score.clone(), trainer.lightning_module
            (BestKept.model,) = module.model.values()
            # During validation its model has the average, and afterwards its store of averages has it again.
            average = module.ema.ema_weights if module.ema.is_holding_ema_weights else module.model.parameters()
            self.budget.keep(lambda: [weight.detach().clone() for weight in average])


def predictor(weights: list[torch.Tensor], symbols: list[str]) -> accuracy_worker.Predict:
    """The predictions with these weights, by NequIP's calculator."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator

    model = BestKept.model.eval()
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights):
            parameter.copy_(weight)
    transforms = [ChemicalSpeciesToAtomTypeMapper(symbols), NeighborListTransform(r_max=5.0)]
    calculator = NequIPCalculator(model, "cpu", transforms=transforms)

    def predict(atoms: Any) -> tuple[float, Any]:
        calculator.calculate(atoms)
        return float(calculator.results["energy"]), calculator.results["forces"]

    return predict


def main() -> None:
    BestKept.budget = budget = accuracy_worker.Budget(sys.argv[1:])
    train, validation, seed, folder = budget.arguments
    warnings.filterwarnings("ignore")
    own = Path(folder) / "nequip"
    symbols = sorted({symbol for atoms in ase.io.iread(train) for symbol in atoms.symbols})
    accuracy_worker.settings_file(own, settings(train, validation, int(seed), symbols))
    from nequip.scripts.train import main as nequip_train

    sys.argv[1:] = ["--config-path", str(own), "--config-name", "settings", f"hydra.run.dir={own / 'run'}"]
    with budget.until_over():
        nequip_train()
    budget.write(lambda weights: sum(weight.numel() for weight in weights), lambda weights: predictor(weights, symbols))


if __name__ == "__main__":
    main()
