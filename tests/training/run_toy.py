"""A training process of its own, to be killed: `python -m tests.training.run_toy FOLDER [--resume]`."""

import argparse
import sys
import time
from typing import Any

from equiform.errors import UserError
from equiform.training.config import TrainingConfig
from equiform.training.fit import fit
from equiform.training.run_folder import RunFolder
from equiform.training.session import Session
from tests.training.toys import learner, molecules, register

CONFIG = {
    "batch_size": 7,
    "epochs": 30,
    "learning_rate": 1e-2,
    "weight_decay": 0.01,
    "log_every": 7,
    "validate_every": 11,
    "checkpoint_every": 5,
    "early_stopping": 1000,
    "losses": {"energy": {"weight": 3, "final_weight": 1}},
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--file-limit", type=int, help="files that grow beyond so many bytes fail, as on a full disk")
    arguments = parser.parse_args()
    if arguments.file_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_limit, resource.RLIM_INFINITY))
    register()
    original = Session.advance

    def slow(session: Session, batch: Any) -> Any:
        time.sleep(arguments.pause)
        return original(session, batch)

    Session.advance = slow
    run = RunFolder.open(arguments.folder) if arguments.resume else RunFolder.create(arguments.folder)
    config = TrainingConfig.model_validate(CONFIG)
    try:
        fit(
            learner(dropout=0.2),
            molecules(24),
            molecules(6, seed=1),
            config,
            run,
            progress=False,
            resume=arguments.resume,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
