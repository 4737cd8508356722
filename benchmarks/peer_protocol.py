"""What every worker of benchmarks/peers.py shares: its task, and the lines of JSON that it answers.

A worker is run as `python peer_NAME.py TASK.npz ANSWERS`, by the python that has the peer. TASK holds the molecules, ANSWERS is
the number of an open pipe: what libraries print goes elsewhere. The worker first says what it is, then for every line
"inference" or "step" on its input runs that program once and says how long it took. Needs numpy only; nothing of Equiform is
imported.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

CUTOFF = 5.0
"""Å, of every model."""
LEARNING_RATE, CLIP_NORM, FORCE_WEIGHT = 1e-4, 10.0, 10.0
"""Of every training step: AdamW, the gradient's norm clipped, loss mean |energy| + weight × mean |force|."""


@dataclass(frozen=True)
class Task:
    """What a worker is to run.

    Attributes:
        peer: The peer's name on the command line.
        forces: Whether the programs have forces; else energies only.
        molecules: Atomic numbers and positions (Å) of every molecule.
        cache: Folder for compiled programs, if they are to be kept.
        folder: Where the task's file lies, and others that belong to it.
        answers: Where answers go.
    """

    peer: str
    forces: bool
    molecules: list[tuple[np.ndarray, np.ndarray]]
    cache: Path | None
    folder: Path
    answers: TextIO

    @property
    def elements(self) -> list[int]:
        """Atomic numbers, each once, in order."""
        return sorted(set(np.concatenate([numbers for numbers, _ in self.molecules]).tolist()))

    @property
    def num_atoms(self) -> int:
        return sum(len(numbers) for numbers, _ in self.molecules)


def read_task() -> Task:
    """The task that the command line names."""
    path, descriptor = sys.argv[1:]
    with np.load(path) as arrays:
        numbers, positions, index = arrays["z"], arrays["pos"], arrays["batch"]
        peer, forces, cache = str(arrays["peer"]), bool(arrays["forces"]), str(arrays["cache"])
    molecules = [(numbers[index == graph], positions[index == graph]) for graph in range(index.max() + 1)]
    kept = Path(cache) if cache else None
    return Task(peer, forces, molecules, kept, Path(path).parent, os.fdopen(int(descriptor), "w"))


def serve(task: Task, about: dict[str, Any], programs: dict[str, Callable[[], Any]]) -> None:
    """Answer until the input ends.

    Args:
        task: The task.
        about: `code` (name, version, size), `parameters`, `edges` (that the model uses), `threads`, `warm_up` (calls until it
            is as fast as it gets), `left_out` (why a program is missing).
        programs: By name; each runs to its end and returns a number that depends on all that it computed.
    """
    _say(task, {"left_out": {}, **about, "programs": list(programs)})
    for line in sys.stdin:
        start = time.perf_counter()
        value = programs[line.strip()]()
        seconds = time.perf_counter() - start
        _say(task, {"seconds": seconds, "finite": math.isfinite(float(value))})


def _say(task: Task, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=task.answers, flush=True)
