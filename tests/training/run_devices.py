"""Train on one and on several virtual devices and print both results as JSON: `python -m tests.training.run_devices FOLDER`.

A process of its own, because the number of devices is fixed when JAX starts.
"""

import json
import sys
from pathlib import Path

import numpy as np

from equiform.persist.parameters import named, split
from equiform.training.config import TrainingConfig
from equiform.training.fit import fit
from equiform.training.metrics import read_metrics
from equiform.training.run_folder import RunFolder
from tests.training.toys import learner, molecules, register


def main() -> None:
    register()
    results = {}
    for devices in (1, 3):
        folder = Path(sys.argv[1]) / f"on-{devices}"
        run = RunFolder.create(folder, reference_energies={1: -13.6})
        settings = {
            "batch_size": 7,
            "max_steps": 24,
            "learning_rate": 1e-2,
            "log_every": 6,
            "dtype": "float64",
            "devices": devices,
        }
        config = TrainingConfig.model_validate(settings)
        result = fit(learner(), molecules(31), molecules(8, seed=1), config, run, progress=False)
        record = [line for line in read_metrics(folder) if line["kind"] == "train"]
        leaves = named(split(result.task)[0])
        results[devices] = {
            "losses": [line["loss"] for line in record],
            "gradient_norms": [line["gradient_norm"] for line in record],
            "weights": {name: np.asarray(leaf).ravel().tolist() for name, leaf in leaves.items()},
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
