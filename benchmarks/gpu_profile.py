"""Kernels of a program from a profile: how many per call, their time, and the longest."""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

CALLS = 3
LONGEST = 10


class Kernels(NamedTuple):
    """What ran on the device.

    Attributes:
        per_call: Number of kernels per call.
        milliseconds: Their summed time per call.
        longest: Name, time per call (ms) and number per call of the kernels that took most time in all.
    """

    per_call: float
    milliseconds: float
    longest: list[tuple[str, float, float]]


def kernels(call: Callable[[], Any]) -> Kernels:
    """Profile some calls of a compiled program.

    On a GPU the events of its streams are counted, on a CPU the instructions that XLA's run time reports.

    Args:
        call: Runs the program once and returns its results.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(call())
        events = _events(Path(folder))
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for name, microseconds in events:
        times[name] += microseconds
        counts[name] += 1
    longest = [(name, time / CALLS / 1e3, counts[name] / CALLS) for name, time in times.most_common(LONGEST)]
    return Kernels(sum(counts.values()) / CALLS, sum(times.values()) / CALLS / 1e3, longest)


def _events(folder: Path) -> list[tuple[str, float]]:
    found = []
    for path in folder.rglob("*.trace.json.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
        processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
        threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
        on_gpu = any("/device:GPU" in name for name in processes.values())
        for event in events:
            if event.get("ph") != "X":
                continue
            if on_gpu:
                thread = threads.get((event["pid"], event["tid"]), "")
                chosen = "/device:GPU" in processes.get(event["pid"], "") and thread.startswith("Stream")
            else:
                chosen = "hlo_op" in event.get("args", {})
            if chosen:
                found.append((event["name"], float(event.get("dur", 0))))
    return found
