"""Interleaved timing of several codes in one run, shared by benchmarks/peers.py and benchmarks/reference.py."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console

from benchmarks.peer_process import PeerFailed
from benchmarks.peer_table import OURS
from equiform.benchmark.programs import new_potential, training_step, with_labels
from equiform.errors import UserError
from equiform.graph import Graph, batch, to_device
from equiform.persist.parameters import num_parameters
from equiform.runtime.compilation import jit
from equiform.tasks.energy import Potential

PROGRAMS = ("inference", "step")
PAUSE = 0.2
"""Pause before each run, s: lets the threads of the previous one go to sleep."""


@dataclass(frozen=True)
class Code:
    """A timed code: a peer, or a model of ours.

    Attributes:
        name: Name, version and size.
        parameters: Number of trainable parameters.
        edges: Number of edges that it uses.
        warm_up: Number of calls until it reaches full speed.
        programs: Its programs.
        run: Runs a program once and returns the time in seconds.
    """

    name: str
    parameters: int
    edges: int
    warm_up: int
    programs: Sequence[str]
    run: Callable[[str], float]


def random_potential(name: str, molecules: list[Graph]) -> Potential:
    """One of our presets for the elements of these molecules."""
    return new_potential(name, tuple(sorted(set(np.concatenate([graph.species for graph in molecules]).tolist()))))


def our_code(name: str, molecules: list[Graph], *, forces: bool, potential: Potential | None = None) -> Code:
    """One of our presets, its programs compiled at their first call.

    Args:
        name: The preset.
        molecules: The inputs.
        forces: Whether its programs compute forces.
        potential: The preset with given weights; None: random ones.
    """
    graph = to_device(with_labels(batch(molecules)))
    potential = potential or random_potential(name, molecules)
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)
    step = training_step(potential, forces=forces)
    numbers = np.asarray([1e-4, *(term.weight for term in step.terms.values())], np.float32)
    training: dict[str, Any] = {}

    @jit
    def evaluate(arrays: Any, graph: Graph) -> Any:
        result = eqx.combine(arrays, static)(graph, forces=forces)
        return result["energy"], result.get("forces")

    def run(program: str) -> float:
        if program == "step" and not training:
            training["state"] = step.initial_state()
            training["program"] = step.compiled(training["state"], graph, numbers)
        start = time.perf_counter()
        if program == "step":
            training["state"], value = jax.block_until_ready(training["program"](training["state"], graph, numbers))
        else:
            value = jax.block_until_ready(evaluate(arrays, graph))
        seconds = time.perf_counter() - start
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value)):
            raise FloatingPointError(f"{name}: its {program} is not finite")
        return seconds

    edges = sum(len(graph.senders) for graph in molecules)
    return Code(f"{OURS}, {name}", num_parameters(potential.model), edges, 2, PROGRAMS, run)


def take_turns(codes: Sequence[Code], program: str, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Times of every round in seconds, by the code's name, after warm-up; a code that fails is dropped with a message."""
    seconds: dict[str, list[float]] = {code.name: [] for code in codes if program in code.programs}
    for number in range(-max(code.warm_up for code in codes), rounds):
        for code in codes:
            if code.name not in seconds or number < -code.warm_up:
                continue
            time.sleep(PAUSE)
            try:
                taken = code.run(program)
            except PeerFailed as error:
                say(f"{code.name} is left out: {error}")
                del seconds[code.name]
                continue
            if number >= 0:
                seconds[code.name].append(taken)
            elif number == -code.warm_up:
                say(f"{program}, first call after {taken:.1f} s: {code.name}")
    return seconds


def speaker() -> Callable[[str], None]:
    """Prints progress as grey lines on standard error; only the table goes to standard output."""
    console = Console(highlight=False, width=170, stderr=True)
    return lambda line: console.print(line, style="dim", markup=False, soft_wrap=True)


def check_rounds(rounds: int) -> None:
    """Reject a measurement without rounds."""
    if rounds < 1:
        raise UserError(f"--rounds must be at least 1, not {rounds}; --warm measures nothing")


def set_up(cache: Path | None, say: Callable[[str], None]) -> None:
    """Configure JAX for CPUs, with a compilation cache if a folder is given; notes if the process is pinned to fewer cores."""
    jax.config.update("jax_platforms", "cpu")
    cores = len(os.sched_getaffinity(0))  # programs are partitioned for these at compile time
    if cores < (os.cpu_count() or 1):
        say(f"this process and its peers may use {cores} of {os.cpu_count()} cores: they were pinned (taskset)")
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(cache / f"jax-{cores}-threads"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
