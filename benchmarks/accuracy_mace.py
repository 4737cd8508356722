"""mace-torch as a worker of benchmarks/time_to_accuracy.py: `mace_run_train`, stopped when the time is over.

Its arguments are those of `mace_run_train`. The model that MACE writes when its validation loss improves (with the EMA of the
weights) is kept in memory with its time.
"""

import copy
import os
import sys
from typing import Any

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # as in MACE's own commands, for the constants of e3nn

import accuracy_worker  # first: the clock starts here
import torch
from mace.calculators import MACECalculator
from mace.cli.run_train import run
from mace.tools import CheckpointHandler, build_default_arg_parser


def predictor(model: torch.nn.Module) -> accuracy_worker.Predict:
    """The predictions of a model, by MACE's calculator."""
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float32")

    def predict(atoms: Any) -> tuple[float, Any]:
        calculator.calculate(atoms)
        return calculator.results["energy"], calculator.results["forces"]

    return predict


def main() -> None:
    budget = accuracy_worker.Budget(sys.argv[1:])
    save = CheckpointHandler.save

    def keep(handler, state, epochs, keep_last=False):
        budget.keep(lambda: copy.deepcopy(state.model))
        save(handler, state, epochs, keep_last)

    CheckpointHandler.save = keep
    evaluate = sys.modules["mace.tools.train"].evaluate  # the package has a function of the module's name

    def evaluate_in_time(*args, **kwargs):
        budget.check()
        return evaluate(*args, **kwargs)

    sys.modules["mace.tools.train"].evaluate = evaluate_in_time
    with budget.until_over():
        run(build_default_arg_parser().parse_args(budget.arguments))
    budget.write(lambda model: sum(weight.numel() for weight in model.parameters()), predictor)


if __name__ == "__main__":
    main()
