"""One of several training processes: `python -m tests.training.run_processes FOLDER PORT PROCESSES INDEX [--resume]`."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from equiform.errors import UserError
from equiform.persist.parameters import named, split
from equiform.training import parallel
from equiform.training.config import TrainingConfig
from equiform.training.fit import fit
from equiform.training.metrics import read_metrics
from equiform.training.run_folder import RunFolder
from equiform.training.session import Session
from tests.training.toys import learner, molecules, register

SETTINGS = {
    "batch_size": 7,
    "max_steps": 40,
    "learning_rate": 1e-2,
    "log_every": 10,
    "checkpoint_every": 5,
    "validate_every": 10,
    "dtype": "float64",
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("index", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    arguments = parser.parse_args()
    register()
    if arguments.processes > 1:
        parallel.start(arguments.processes, arguments.index, f"localhost:{arguments.port}")
    original = Session.advance

    def slowly(session: Session, batch: Any) -> Any:
        time.sleep(arguments.pause)
        return original(session, batch)

    Session.advance = slowly
    config = TrainingConfig.model_validate(SETTINGS)
    try:
        with parallel.own_folder(arguments.folder, resume=arguments.resume) as place:
            run = RunFolder.open(place) if arguments.resume else RunFolder.create(place, reference_energies={1: -13.6})
            data = molecules(31), molecules(8, seed=1)
            result = fit(learner(), *data, config, run, progress=False, resume=arguments.resume)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return getattr(error, "exit_code", 1)
    if parallel.is_first():
        record = [line for line in read_metrics(arguments.folder) if line["kind"] == "train"]
        weights = {name: np.asarray(leaf).ravel().tolist() for name, leaf in named(split(result.task)[0]).items()}
        print(json.dumps({"losses": [line["loss"] for line in record], "weights": weights}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
