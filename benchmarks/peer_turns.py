"""Codes that take turns in one run: what benchmarks/peers.py and benchmarks/reference.py share."""

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
"""Seconds before each run: the threads of the one before have gone to sleep."""


@dataclass(frozen=True)
class Code:
    """Something that is timed: a peer, or a model of ours.

    Attributes:
        name: Name, version and size.
        parameters: Numbers that it trains.
        edges: Edges that it uses.
        warm_up: Calls until it is as fast as it gets.
        programs: Those it has.
        run: Seconds of one run of a program.
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
        molecules: What it computes.
        forces: Whether its programs have forces.
        potential: The preset with certain weights; None draws some.
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
    """Seconds of every round by the code's name, after each has warmed up; a code that fails is left out, and that is said."""
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
    """What progress is said with: grey lines beside the table, which alone goes to the standard output."""
    console = Console(highlight=False, width=170, stderr=True)
    return lambda line: console.print(line, style="dim", markup=False, soft_wrap=True)


def check_rounds(rounds: int) -> None:
    """Refuse a measurement without rounds."""
    if rounds < 1:
        raise UserError(f"--rounds must be at least 1, not {rounds}; --warm measures nothing")


def set_up(cache: Path | None, say: Callable[[str], None]) -> None:
    """JAX on processors, keeping compiled programs in a folder if one is given; fewer cores than there are is said."""
    jax.config.update("jax_platforms", "cpu")
    cores = len(os.sched_getaffinity(0))  # programs are divided for these when they are compiled
    if cores < (os.cpu_count() or 1):
        say(f"this process and its peers may use {cores} of {os.cpu_count()} cores: they were pinned (taskset)")
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(cache / f"jax-{cores}-threads"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
