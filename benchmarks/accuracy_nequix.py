"""Nequix as a worker of benchmarks/time_to_accuracy.py: its function `train`, stopped when the time is over.

Its arguments are TRAIN.xyz VALIDATION.xyz SEED FOLDER. When its validation loss improves, the EMA of the weights is kept in
memory with its time.

Around `train`, which is not changed: its learning rate is a cosine over a number of epochs, and that number is chosen to fill
the longest time. Its pace comes from a trial of a few steps. The start with its compilation is charged once, in the trial.
Graphs in memory take the place of its database and of the sixteen processes that read it, since one thread is allowed;
nothing is sent to Weights & Biases; and `jax.device_put_replicated`, which it uses and JAX has dropped, is given back.
"""

import sys
import types
from pathlib import Path
from typing import Any

import accuracy_worker  # first: the clock starts here
import ase.io
import equinox as eqx
import jax
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

SETTINGS = {
    # configs/nequix-mp-1.yml of Nequix, with half of its scalars and vectors; degree 1 instead of 3 and cutoff 5 Å instead of
    # 6 Å are those of the small models of NequIP and MACE. Its step compiles for a minute at degree 1, for a minute and a
    # half at degree 2.
    "hidden_irreps": "64x0e + 32x1o",
    "lmax": 1,
    "cutoff": 5.0,
    "n_layers": 4,
    "radial_basis_size": 8,
    "radial_mlp_size": 64,
    "radial_mlp_layers": 2,
    "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0,
    "index_weights": False,
    "layer_norm": True,
    "kernel": False,  # its kernels need a GPU
    "optimizer": "muon",
    "learning_rate": 0.01,
    "warmup_epochs": 0.1,
    "warmup_factor": 0.2,
    "grad_clip_norm": 100.0,
    "weight_decay": 1e-3,
    "energy_weight": 20.0,
    "force_weight": 20.0,
    "stress_weight": 0.0,  # the frames have no stress
    "loss_type": "mae",
    "ema_decay": 0.999,
    "batch_size": 5,  # that of the other codes; 128 there, for a million and a half of frames
    "log_every": 1000,
}
TRIAL_STEPS, STARTED = 8, 2
"""Steps of the trial, and how many of them belong to the start, as they compile."""
VALIDATION_SHARE = 0.1
"""Time of the validation by that of the steps (a quarter of the frames, a third of the work), and of its compilation."""


class Logger(types.ModuleType):
    """Takes the place of the module `wandb`: a folder for the files of the run, and no log."""

    def __init__(self, folder: Path):
        super().__init__("wandb")
        self.run = types.SimpleNamespace(dir=str(folder), id=None, summary={})

    def init(self, **_: Any) -> None:
        """Start a run: there is nothing to do."""

    def log(self, *_: Any, **__: Any) -> None:
        """Log values: they are printed anyway."""


def read(path: str) -> list[Atoms]:
    """The frames with labels as Nequix takes them.

    Its loss needs a cell and a stress, even with weight zero: molecules get a cell of vacuum wider than the cutoff.
    """
    frames = list(ase.io.iread(path))
    for atoms in frames:
        if not atoms.pbc.any():
            atoms.center(vacuum=SETTINGS["cutoff"])
            atoms.pbc = True
        labels = {"energy": atoms.info["REF_energy"], "forces": atoms.arrays["REF_forces"], "stress": np.zeros(6)}
        atoms.calc = SinglePointCalculator(atoms, **labels)
    return frames


def main() -> None:
    budget = accuracy_worker.Budget(sys.argv[1:])
    train, validation, seed, folder = budget.arguments
    own = Path(folder) / "nequix"
    own.mkdir(exist_ok=True)
    sys.modules["wandb"] = Logger(own)
    sys.modules["wandb_osh"] = types.ModuleType("wandb_osh")
    sys.modules["wandb_osh.hooks"] = hooks = types.ModuleType("wandb_osh.hooks")
    vars(hooks)["TriggerWandbSyncHook"] = None  # called only where Weights & Biases is used without a network
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda leaf: leaf[None], tree)

    import nequix.calculator
    import nequix.data
    import nequix.train

    class Frames(nequix.data.Dataset):
        def __init__(self, file_path, atomic_numbers, cutoff, backend):
            super().__init__(backend=backend)
            self.atomic_indices = nequix.data.atomic_numbers_to_indices(atomic_numbers)
            self.graphs = [nequix.data.preprocess_graph(atoms, self.atomic_indices, cutoff, True) for atoms in read(file_path)]

        def __len__(self):
            return len(self.graphs)

        def _get_graph_dict(self, idx):
            return self.graphs[idx]

    class Loader(nequix.data.DataLoader):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings | {"seed": int(seed)})

        def _start_workers(self):
            pass

        def make_generator(self):
            for index in self.idxs:
                yield self.dataset[index]

    nequix.data.DataLoader = nequix.train.DataLoader = Loader
    nequix.train.AseDBDataset = Frames
    frames = read(train)
    elements = sorted({int(number) for atoms in frames for number in atoms.numbers})
    settings = SETTINGS | {"atomic_numbers": elements, "train_path": train, "valid_path": validation}
    Model, prefetch = nequix.train.Nequix, nequix.train.prefetch
    nequix.train.Nequix = lambda key, **sizes: Model(jax.random.key(int(seed)), **sizes)
    times: list[float] = []  # of the first steps of the trial, and then of the run

    def prefetch_in_trial(loader):
        for batch in prefetch(loader):
            jax.block_until_ready(jax.live_arrays())
            times.append(budget.seconds())
            if len(times) > TRIAL_STEPS:
                raise accuracy_worker.TimeIsOver
            yield batch

    def prefetch_in_time(loader):
        for batch in prefetch(loader):
            if len(times) <= STARTED:
                jax.block_until_ready(jax.live_arrays())
                times.append(budget.seconds())
                if len(times) > STARTED:
                    budget.give_back(times[-1] - began)
            else:
                budget.check()
            yield batch

    def run(epochs: int) -> None:
        path = accuracy_worker.settings_file(own, settings | {"n_epochs": epochs})
        with budget.until_over():
            nequix.train.train(str(path))

    def keep(path, model, config):
        budget.keep(lambda: model)  # its arrays never change
        save(path, model, config)

    nequix.train.prefetch = prefetch_in_trial
    run(1)
    step = (times[-1] - times[STARTED]) / (len(times) - 1 - STARTED)
    epoch = step * len(frames) / SETTINGS["batch_size"] * (1 + VALIDATION_SHARE)
    epochs = max(1, int((60 * max(budget.limits) - times[-1] * (1 + VALIDATION_SHARE)) / epoch))
    print(f"{step:.3g} s a step, {times[-1]:.3g} s until now: {epochs} epochs", flush=True)
    times.clear()
    began = budget.seconds()
    nequix.train.prefetch = prefetch_in_time
    save, nequix.train.save_model = nequix.train.save_model, keep
    run(epochs)

    def predictor(model: Any) -> accuracy_worker.Predict:
        nequix.calculator.from_pretrained = lambda *_: (model, settings)
        calculator = nequix.calculator.NequixCalculator(use_kernel=False)

        def predict(atoms: Atoms) -> tuple[float, Any]:
            calculator.calculate(atoms)
            return calculator.results["energy"], calculator.results["forces"]

        return predict

    budget.write(lambda model: sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))), predictor)


if __name__ == "__main__":
    main()
