"""mace-torch as a worker of benchmarks/time_to_accuracy.py: `mace_run_train`, stopped when the time is over.

`python accuracy_mace.py processor|wall RESULT.json TEST.xyz MINUTES[,MINUTES…] ARGUMENTS` of `mace_run_train`. The model that
MACE writes when its validation loss improves (with the EMA of the weights) is kept in memory with its time; for each number of
minutes the last one before it is evaluated on the test frames. Imports nothing of Equiform.
"""

import contextlib
import copy
import json
import os
import sys
import time

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # as in MACE's own commands, for the constants of e3nn

import ase.io
import numpy as np
import torch
from mace.calculators import MACECalculator
from mace.cli.run_train import run
from mace.tools import CheckpointHandler, build_default_arg_parser


class TimeIsOver(Exception):
    """The longest time was reached."""


def errors(model: torch.nn.Module, frames: list) -> dict[str, float]:
    """Mean absolute errors of force components (eV/Å) and energies per atom (eV)."""
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float32")
    forces, energies = [], []
    for atoms in frames:
        calculator.calculate(atoms)
        forces.append(np.abs(calculator.results["forces"] - atoms.arrays["REF_forces"]).ravel())
        energies.append(abs(calculator.results["energy"] - atoms.info["REF_energy"]) / len(atoms))
    return {"forces": float(np.mean(np.concatenate(forces))), "energy_per_atom": float(np.mean(energies))}


def main() -> None:
    clock, result, test, minutes = sys.argv[1:5]
    now = time.process_time if clock == "processor" else time.perf_counter
    started = 0.0 if clock == "processor" else now()
    limits = [float(value) for value in minutes.split(",")]
    kept: list[tuple[float, torch.nn.Module]] = []
    save = CheckpointHandler.save

    def keep(handler, state, epochs, keep_last=False):
        seconds = now() - started
        if seconds > 60 * max(limits):
            raise TimeIsOver
        kept.append((seconds, copy.deepcopy(state.model)))
        save(handler, state, epochs, keep_last)

    CheckpointHandler.save = keep
    evaluate = sys.modules["mace.tools.train"].evaluate  # the package has a function of the module's name

    def evaluate_in_time(*args, **kwargs):
        if now() - started > 60 * max(limits):
            raise TimeIsOver
        return evaluate(*args, **kwargs)

    sys.modules["mace.tools.train"].evaluate = evaluate_in_time
    with contextlib.suppress(TimeIsOver):
        run(build_default_arg_parser().parse_args(sys.argv[5:]))
    frames = ase.io.read(test, ":")
    parameters = sum(weight.numel() for weight in kept[0][1].parameters()) if kept else 0
    found = {"parameters": parameters}
    for limit in limits:
        before = [model for seconds, model in kept if seconds <= 60 * limit]
        found[f"{limit:g}"] = errors(before[-1], frames) if before else None
    with open(result, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
