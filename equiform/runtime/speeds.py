"""The speeds that this machine has shown, kept beside the cache of compiled programs.

A program is known by a text (device, architecture, size). For one that has not run here yet, a default is scaled by how this
machine compares with the defaults of those that have. Without a cache nothing is kept, and the defaults stand.
"""

import contextlib
import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from equiform.runtime.files import write_atomically

FILE = "equiform-speeds.json"
MOST_PROGRAMS = 200
NEW_SHARE = 0.5
"""Weight of a new measurement against what was known: a busy hour is forgotten after a few runs."""


class Pace(NamedTuple):
    """How long a program takes.

    Attributes:
        compile_seconds: Time to compile it.
        seconds_per_edge: Time of one call, divided by the edges of its batch.
    """

    compile_seconds: float
    seconds_per_edge: float


def estimated(program: str, default: Pace) -> Pace:
    """What this machine is expected to take.

    Args:
        program: The program's name.
        default: For a machine that nothing is known of.
    """
    known = _read()
    own = known.get(program, {})
    result = {}
    for name, value in default._asdict().items():
        ratios = [entry[name] / entry[f"default_{name}"] for entry in known.values() if name in entry]
        result[name] = own.get(name, value * statistics.median(ratios) if ratios else value)
    return Pace(**result)


def remember(program: str, default: Pace, measured: Mapping[str, float]) -> None:
    """Keep what was measured, if there is a cache that can be written.

    Args:
        program: The program's name.
        default: What would have been expected of an unknown machine.
        measured: Fields of `Pace`; those that are missing stay as they were.
    """
    path, known = _path(), _read()
    if path is None:
        return
    entry = known.pop(program, {})  # moved to the end: the newest stay
    for name, value in measured.items():
        before = entry.get(name, value)
        entry[name] = NEW_SHARE * value + (1 - NEW_SHARE) * before
        entry[f"default_{name}"] = default._asdict()[name]
    known[program] = entry
    kept = dict(list(known.items())[-MOST_PROGRAMS:])
    with contextlib.suppress(OSError):  # an estimate is not worth an error
        write_atomically(path, json.dumps(kept, indent=1).encode())


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def device() -> str:
    """What programs run on, as it matters for their speed."""
    first = jax.devices()[0]
    return f"{first.device_kind} {cores()} cores" if first.platform == "cpu" else str(first.device_kind)


def _path() -> Path | None:
    config: Any = jax.config
    folder = config.jax_compilation_cache_dir
    if not folder or not config.jax_enable_compilation_cache or "://" in str(folder):
        return None
    return Path(folder) / FILE


def _read() -> dict[str, dict[str, float]]:
    path = _path()
    if path is None or not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {key: float(value) for key, value in entry.items()} for name, entry in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # damaged: it is written again
