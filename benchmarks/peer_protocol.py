"""The protocol of the workers of benchmarks/peers.py: the task, and the replies as lines of JSON.

A worker is run as `python peer_NAME.py TASK.npz ANSWERS`, by the Python of the peer's environment. TASK contains the molecules,
ANSWERS is the number of an open pipe, separate from what libraries print. The worker first describes itself; then for each line
"inference" or "step" on its input it runs that program once and replies with the time. Needs only numpy and imports nothing of
Equiform.
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
"""Cutoff of every model, Å."""
LEARNING_RATE, CLIP_NORM, FORCE_WEIGHT = 1e-4, 10.0, 10.0
"""Settings of every training step: AdamW, gradient norm clipping, loss = mean |energy| + weight × mean |force|."""


@dataclass(frozen=True)
class Task:
    """The task of a worker.

    Attributes:
        peer: The peer's name on the command line.
        forces: Whether the programs compute forces, or only energies.
        molecules: Atomic numbers and positions (Å) of every molecule.
        cache: Folder for compiled programs; None: no cache.
        folder: Folder of the task file and its companions.
        answers: Stream for the replies.
    """

    peer: str
    forces: bool
    molecules: list[tuple[np.ndarray, np.ndarray]]
    cache: Path | None
    folder: Path
    answers: TextIO

    @property
    def elements(self) -> list[int]:
        """The distinct atomic numbers, ascending."""
        return sorted(set(np.concatenate([numbers for numbers, _ in self.molecules]).tolist()))

    @property
    def num_atoms(self) -> int:
        return sum(len(numbers) for numbers, _ in self.molecules)


def read_task() -> Task:
    """The task given on the command line."""
    path, descriptor = sys.argv[1:]
    with np.load(path) as arrays:
        numbers, positions, index = arrays["z"], arrays["pos"], arrays["batch"]
        peer, forces, cache = str(arrays["peer"]), bool(arrays["forces"]), str(arrays["cache"])
    molecules = [(numbers[index == graph], positions[index == graph]) for graph in range(index.max() + 1)]
    kept = Path(cache) if cache else None
    return Task(peer, forces, molecules, kept, Path(path).parent, os.fdopen(int(descriptor), "w"))


def serve(task: Task, about: dict[str, Any], programs: dict[str, Callable[[], Any]]) -> None:
    """Reply to requests until the input ends.

    Args:
        task: The task.
        about: `code` (name, version, size), `parameters`, `edges` (used by the model), `threads`, `warm_up` (calls until it
            reaches full speed), `left_out` (why a program is missing).
        programs: Programs by name; each runs to completion and returns a number that depends on everything it computed.
    """
    _say(task, {"left_out": {}, **about, "programs": list(programs)})
    for line in sys.stdin:
        start = time.perf_counter()
        value = programs[line.strip()]()
        seconds = time.perf_counter() - start
        _say(task, {"seconds": seconds, "finite": math.isfinite(float(value))})


def _say(task: Task, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=task.answers, flush=True)
