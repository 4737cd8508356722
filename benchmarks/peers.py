"""Equiform beside other codes: the same molecules, the same precision, taking turns in one run.

    python -m benchmarks.peers --peer-python VENV/bin/python [--inputs FOLDER] [--rounds N] [--json FILE]

The peer is TorchMD-NET's equivariant transformer (pip install torch==2.13.0 torchmd-net, in an environment of its own; it
runs in a process of its own, benchmarks/peer_torchmd.py). Beside it run our implementation of the same model, with the same
numbers of parameters, and our Equiformer. Both sides use all cores. Rounds alternate: a machine that drifts drifts for both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from equiform.benchmark.cases import new_potential, training_step, with_labels
from equiform.benchmark.inputs import molecules_of
from equiform.graph import batch, to_device
from equiform.models.presets import ALL_PRESETS

OURS = {"qm9": ("torchmd-et-qm9", "qm9-l2-nonlinear"), "md17": ("torchmd-et-md17", "md17-l2")}
"""Presets that are measured beside the peer."""
WORKER = Path(__file__).with_name("peer_torchmd.py")


class Peer:
    """The other process; asked by lines of JSON, and idle between them."""

    def __init__(self, python: Path, form: str, arrays: Path):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [str(python), str(WORKER), form, str(arrays)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.about = self._read()

    def time(self, program: str) -> float:
        """Seconds of one call of "inference" or "step"."""
        assert self._process.stdin is not None
        self._process.stdin.write(program + "\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the peer's process ended with status {self._process.wait()}; its message is above")
        return json.loads(line)


@contextmanager
def running_peer(python: Path, form: str, molecules: list[Any]) -> Iterator[Peer]:
    """The peer, with the molecules loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.npz"
        index = np.repeat(np.arange(len(molecules)), [len(graph.species) for graph in molecules])
        positions = np.concatenate([graph.positions for graph in molecules])
        np.savez(path, pos=positions, z=np.concatenate([graph.species for graph in molecules]), batch=index)
        peer = Peer(python, form, path)
        try:
            yield peer
        finally:
            peer.close()


def our_programs(name: str, form: str, molecules: list[Any]) -> dict[str, Callable[[], float]]:
    """Our compiled programs by kind; each call gives its seconds."""
    import time

    forces = form == "md17"
    graph = to_device(with_labels(batch(molecules)))
    potential = new_potential(name, tuple(sorted(set(np.concatenate([g.species for g in molecules]).tolist()))))
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)
    step = training_step(potential, forces=forces)
    state = [step.initial_state()]
    numbers = np.asarray([1e-4, *(term.weight for term in step.terms.values())], np.float32)

    @jax.jit
    def evaluate(arrays: Any, graph: Any) -> Any:
        result = eqx.combine(arrays, static)(graph, forces=forces)
        return result["energy"], result.get("forces")

    program = step.compiled(state[0], graph, numbers)

    def train() -> float:
        start = time.perf_counter()
        state[0], loss = program(state[0], graph, numbers)
        jax.block_until_ready((state[0], loss))
        return time.perf_counter() - start

    def infer() -> float:
        start = time.perf_counter()
        jax.block_until_ready(evaluate(arrays, graph))
        return time.perf_counter() - start

    return {"inference": infer, "step": train}


def compare(form: str, python: Path, inputs: Path | None, rounds: int, console: Console) -> list[dict[str, Any]]:
    """Rows of one form: code, program, milliseconds, ratio to the peer."""
    molecules, source = molecules_of("qm9" if form == "qm9" else "aspirin", inputs)
    edges = sum(len(graph.senders) for graph in molecules)
    rows = []
    with running_peer(python, form, molecules) as peer:
        names = [name for name in OURS[form] if name in ALL_PRESETS]
        programs = {f"Equiform, {name}": our_programs(name, form, molecules) for name in names}
        for program in ("inference", "step"):
            runs: dict[str, Callable[[], float]] = {peer.about["name"]: lambda program=program: peer.time(program)}
            runs |= {name: ours[program] for name, ours in programs.items()}
            for name, run in runs.items():
                console.print(f"{form}, {program}: {name} ...", style="dim")
                for _ in range(3):  # TorchScript optimises during the first calls
                    run()
            seconds = {name: [] for name in runs}
            for _ in range(rounds):
                for name, run in runs.items():
                    seconds[name].append(run())
            reference = float(np.median(seconds[peer.about["name"]]))
            for name in runs:
                own = float(np.median(seconds[name]))
                what = ("energy + forces" if form == "md17" else "energy") + (" step" if program == "step" else "")
                rows.append(
                    {
                        "inputs": source,
                        "edges": edges,
                        "code": name,
                        "program": what,
                        "ms": 1e3 * own,
                        "times_faster_than_peer": reference / own,
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="python of the environment that has torch and torchmd-net")
    parser.add_argument("--form", nargs="+", choices=list(OURS), default=list(OURS))
    parser.add_argument("--inputs", type=Path, help="folder with the published inputs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(highlight=False, width=140)
    python = options.peer_python
    reason = None if python else "no --peer-python was given"
    if python and subprocess.run([str(python), "-c", "import torch, torchmdnet"], capture_output=True).returncode:
        reason = f"{python} cannot import torch and torchmdnet"
    if reason:
        console.print(
            f"skipped: {reason}. Make an environment: python -m venv PEER; PEER/bin/pip install torch==2.13.0 torchmd-net"
        )
        sys.exit(0)
    rows = []
    for form in options.form:
        rows += compare(form, python, options.inputs, options.rounds, console)
    table = Table("inputs", "edges", "code", "program", "ms", "× faster than the peer")
    for row in rows:
        numbers = (f"{row['ms']:,.1f}", f"{row['times_faster_than_peer']:.2f}")
        table.add_row(row["inputs"], f"{row['edges']:,}", row["code"], row["program"], *numbers)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
