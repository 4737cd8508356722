"""What the workers of benchmarks/time_to_accuracy.py have in common: the clock, the models kept on the way, and their errors.

A worker is started as `python accuracy_PEER.py processor|wall RESULT.json TEST.xyz MINUTES[,MINUTES…] ARGUMENTS`, in the peer's
environment. It imports this module before anything heavy, since wall time starts here. It imports nothing of Equiform.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_START = time.perf_counter()

Predict = Callable[[Any], tuple[float, Any]]
"""Energy (eV) and forces (eV/Å) of an `ase.Atoms`."""


class TimeIsOver(BaseException):
    """The longest time was reached. Not an `Exception`, which a trainer may catch and report."""


class Budget:
    """The minutes of a run, and the models that the peer holds for best on the way.

    Attributes:
        arguments: What the command line has for the peer.
        limits: The numbers of minutes, of which the longest ends the training.
        best: Seconds and model, each better on the validation frames than the one before.
    """

    def __init__(self, argv: list[str]) -> None:
        """Read a worker's command line, without the name of the program."""
        clock, self.result, self.test, minutes, *self.arguments = argv
        self.limits = [float(value) for value in minutes.split(",")]
        self.best: list[tuple[float, Any]] = []
        self._processor, self._free = clock == "processor", 0.0

    def seconds(self) -> float:
        """Time since the start of the process, without what was given back."""
        return (time.process_time() if self._processor else time.perf_counter() - _START) - self._free

    def give_back(self, seconds: float) -> None:
        """Do not charge this time."""
        self._free += seconds

    def check(self) -> None:
        """Stop the training if the longest time is over.

        Raises:
            TimeIsOver: It is; `until_over` catches it.
        """
        if self.seconds() > 60 * max(self.limits):
            raise TimeIsOver

    def keep(self, copy: Callable[[], Any]) -> None:
        """Keep a copy of the model that is now the best, if there is time left."""
        self.check()
        seconds = self.seconds()
        self.best.append((seconds, copy()))

    @contextlib.contextmanager
    def until_over(self) -> Iterator[None]:
        """Ends without an error when the time is over."""
        with contextlib.suppress(TimeIsOver):
            yield

    def write(self, parameters: Callable[[Any], int], predictor: Callable[[Any], Predict]) -> None:
        """Evaluate, for each number of minutes, the last model before it, and write the file of results.

        Args:
            parameters: Number of parameters of a model.
            predictor: From a kept model to its predictions.
        """
        import ase.io

        frames = ase.io.read(self.test, ":")
        found: dict[str, Any] = {"parameters": parameters(self.best[0][1]) if self.best else 0}
        for limit in self.limits:
            before = [model for seconds, model in self.best if seconds <= 60 * limit]
            found[f"{limit:g}"] = errors(predictor(before[-1]), frames) if before else None
        with open(self.result, "w", encoding="utf-8") as file:
            json.dump(found, file)


def settings_file(folder: Path, settings: dict[str, Any]) -> Path:
    """A peer's settings as a YAML file in its own folder, which is made if it is not there.

    Not as JSON: Python writes 1e-07 there, which YAML 1.1 reads as a string.
    """
    import yaml

    folder.mkdir(exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def errors(predict: Predict, frames: Any) -> dict[str, float]:
    """Mean absolute errors of force components (eV/Å) and energies per atom (eV)."""
    import numpy as np

    forces, energies = [], []
    for atoms in frames:
        energy, force = predict(atoms)
        forces.append(np.abs(force - atoms.arrays["REF_forces"]).ravel())
        energies.append(abs(energy - atoms.info["REF_energy"]) / len(atoms))
    return {"forces": float(np.mean(np.concatenate(forces))), "energy_per_atom": float(np.mean(energies))}
