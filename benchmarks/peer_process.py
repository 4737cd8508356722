"""The peers of benchmarks/peers.py, and the separate process in which each is run."""

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiform.errors import UserError
from equiform.graph import Graph


@dataclass(frozen=True)
class PeerKind:
    """A package that can be measured.

    Attributes:
        worker: The file in this folder that runs it.
        install: Its environment: arguments of successive pip calls.
    """

    worker: str
    install: tuple[str, ...]

    def recipe(self) -> str:
        """The commands that create the environment."""
        return "; ".join(["python -m venv PEER", *(f"PEER/bin/pip install {packages}" for packages in self.install)])

    def interpreter(self, python: str) -> Path:
        """The Python given as `--peer`.

        Raises:
            UserError: There is no such file.
        """
        if not Path(python).is_file():
            raise UserError(f"--peer {python}: there is no such file. To create the environment: {self.recipe()}")
        return Path(python).absolute()


TORCH = "torch==2.13.0"
PEERS = {
    "torchmd": PeerKind("peer_torchmd.py", (f"{TORCH} torchmd-net==3.1.0",)),
    "mace": PeerKind("peer_mace.py", (f"{TORCH} mace-torch==0.3.16",)),
    "nequip": PeerKind("peer_nequip.py", (f"{TORCH} nequip==0.19.1",)),
    "mlip-visnet": PeerKind("peer_mlip.py", ("jax==0.10.1 mlip==0.2.5",)),
    "mlip-mace": PeerKind("peer_mlip.py", ("jax==0.10.1 mlip==0.2.5",)),
    "nequix": PeerKind(
        "peer_nequix.py",
        (
            "jax==0.10.1 e3nn-jax equinox jraph matscipy optax ase h5py pyyaml tqdm cloudpickle",
            "--no-deps nequix==0.4.5",  # it requires JAX with CUDA
        ),
    ),
}
"""Peers by their names on the command line."""


class PeerFailed(Exception):
    """A peer's process exited or returned a non-finite number; the message contains its last output."""


class Peer:
    """A peer's process, driven by lines on its standard input and idle in between."""

    def __init__(self, name: str, python: Path, *, worker: Path, task: Path, log: Path):
        """Start it.

        Args:
            name: Its name on the command line.
            python: Python of its environment.
            worker: The file to run.
            task: The molecules, see `write_task`.
            log: File for everything that it and its libraries print.
        """
        self.name, self._log = name, log
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        answers, pipe = os.pipe()
        with open(log, "w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [str(python), str(worker), str(task), str(pipe)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                pass_fds=[pipe],
                env=environment | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        os.close(pipe)
        self._answers = os.fdopen(answers)
        self._about: dict[str, Any] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """Its description of itself; the first call waits until it is ready.

        Raises:
            PeerFailed: It could not start.
        """
        if self._about is None:
            self._about = self._read()
        return self._about

    def time(self, program: str) -> float:
        """Time of one run of "inference" or "step", s.

        Raises:
            PeerFailed: It exited, or its result is not finite.
        """
        assert self.about and self._process.stdin is not None
        with suppress(BrokenPipeError):  # its last output is reported below
            self._process.stdin.write(program + "\n")
            self._process.stdin.flush()
        answer = self._read()
        if not answer["finite"]:
            raise PeerFailed(f"its {program} is not finite")
        return float(answer["seconds"])

    def close(self) -> None:
        """Close its input and wait; kill it if it does not exit."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        words = [words for words in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if words.strip()]
        raise PeerFailed(f"its process ended with status {status}" + (f": {words[-1].strip()[:200]}" if words else ""))


def write_task(path: Path, name: str, *, forces: bool, molecules: list[Graph], cache: Path | None) -> Path:
    """Write the task file of a worker (read by `benchmarks/peer_protocol.py`)."""
    index = np.repeat(np.arange(len(molecules)), [len(graph.species) for graph in molecules])
    np.savez(
        path,
        allow_pickle=False,
        pos=np.concatenate([graph.positions for graph in molecules]),
        z=np.concatenate([graph.species for graph in molecules]),
        batch=index,
        peer=name,
        forces=forces,
        cache="" if cache is None else str(cache.absolute()),
    )
    return path


def start(pythons: dict[str, Path], *, forces: bool, molecules: list[Graph], cache: Path | None, folder: Path) -> list[Peer]:
    """All peers that have an environment, starting concurrently."""
    peers = []
    for name, python in pythons.items():
        task = write_task(folder / f"{name}.npz", name, forces=forces, molecules=molecules, cache=cache)
        worker = Path(__file__).with_name(PEERS[name].worker)
        peers.append(Peer(name, python, worker=worker, task=task, log=folder / f"{name}.log"))
    return peers


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder for tasks and logs while the processes run."""
    return tempfile.TemporaryDirectory(prefix="equiform-peers-")
