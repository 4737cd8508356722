"""Equiform beside other codes: the same molecules, the same precision, taking turns in one run on all cores of the processor.

    python -m benchmarks.peers --peer torchmd=PEER/bin/python --peer mace=PEER/bin/python ...

Each peer is the python of an environment that has it, run in a process of its own (benchmarks/peer_*.py); without one, or if
it does not start, it is left out, and how to make its environment is printed. Beside them run our Equiformer and our
implementation of TorchMD-NET's model. Rounds alternate, so a machine that drifts drifts for all; one process works at a time.
`--cache FOLDER` keeps compiled programs, and `--warm` only fills it: then a measurement does not wait for compilers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console

from benchmarks.peer_process import PEERS, Peer, PeerFailed, start, temporary_folder
from benchmarks.peer_table import OURS, PeerRow, markdown_table, plot, terminal_table
from equiform.benchmark.cases import new_potential, num_parameters, training_step, with_labels
from equiform.benchmark.inputs import molecules_of
from equiform.benchmark.machine import describe
from equiform.errors import UserError
from equiform.graph import Graph, batch, to_device

FORMS = {"qm9": ("qm9", "qm9-l2-nonlinear", "torchmd-et-qm9"), "md17": ("aspirin", "md17-l2", "torchmd-et-md17")}
"""Molecules, our Equiformer (to which all times are compared), and our other preset; qm9 has energies, md17 forces too."""
PROGRAMS = ("inference", "step")
EDGE_TOLERANCE = 0.005
"""A peer whose edges differ by more does other work; pairs at the very cutoff may fall on either side of it."""
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


def our_code(name: str, molecules: list[Graph], *, forces: bool) -> Code:
    """One of our presets, its programs compiled at their first call."""
    graph = to_device(with_labels(batch(molecules)))
    potential = new_potential(name, tuple(sorted(set(np.concatenate([g.species for g in molecules]).tolist()))))
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)
    step = training_step(potential, forces=forces)
    numbers = np.asarray([1e-4, *(term.weight for term in step.terms.values())], np.float32)
    training: dict[str, Any] = {}

    @jax.jit
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


def peer_codes(peers: Sequence[Peer], edges: int, say: Callable[[str], None]) -> list[Code]:
    """The peers that start and use our edges; why another one is left out is said."""
    codes = []
    for peer in peers:
        try:
            about = peer.about
        except PeerFailed as error:
            say(f"{peer.name} is left out: {error}. {PEERS[peer.name].recipe()}")
            continue
        if abs(about["edges"] - edges) > EDGE_TOLERANCE * edges:
            say(f"{peer.name} is left out: it uses {about['edges']:,} edges where the others use {edges:,}")
            continue
        say(f"{about['code']}: {about['parameters']:,} parameters, {about['edges']:,} edges, {about['threads']} threads")
        for program, reason in about["left_out"].items():
            say(f"{about['code']} has no {program}: {reason}")
        codes.append(Code(about["code"], about["parameters"], about["edges"], about["warm_up"], about["programs"], peer.time))
    return codes


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


def compare(
    form: str, pythons: dict[str, Path], inputs: Path | None, rounds: int, cache: Path | None, say: Callable[[str], None]
) -> list[PeerRow]:
    """Rows of one form, our Equiformer first; with no rounds, every program is run until it is warm."""
    kind, reference, other = FORMS[form]
    molecules, source = molecules_of(kind, inputs)
    forces = form == "md17"
    rows = []
    with temporary_folder() as folder:
        peers = start(pythons, forces=forces, molecules=molecules, cache=cache, folder=Path(folder))
        try:
            ours = [our_code(name, molecules, forces=forces) for name in (reference, other)]
            codes = ours + peer_codes(peers, ours[0].edges, say)
            for program in PROGRAMS:
                words = ("energy + forces" if forces else "energy") + (" step" if program == "step" else "")
                seconds = take_turns(codes, program, rounds, say)
                for code in codes:
                    if rounds and code.name in seconds:
                        times, ours_times = tuple(seconds[code.name]), tuple(seconds[ours[0].name])
                        rows.append(PeerRow(source, code.edges, code.name, code.parameters, words, times, ours_times))
        finally:
            for peer in peers:
                peer.close()
    return rows


def environments(given: Sequence[str], say: Callable[[str], None]) -> dict[str, Path]:
    """Pythons by peer from NAME=PYTHON; how to make the others' environments is said.

    Raises:
        UserError: A name is unknown, or there is no such file.
    """
    pythons = {}
    for entry in given:
        name, _, python = entry.partition("=")
        if name not in PEERS or not python:
            raise UserError(f"--peer {entry}: give NAME=PYTHON with a name of {', '.join(PEERS)}")
        if not Path(python).is_file():
            raise UserError(f"--peer {entry}: there is no file {python}; name the python of the peer's environment")
        pythons[name] = Path(python).absolute()
    for name, kind in PEERS.items():
        if name not in pythons:
            say(f"{name} is skipped, no --peer {name}=PEER/bin/python was given. {kind.recipe()}")
    return pythons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"a peer: {', '.join(PEERS)}")
    parser.add_argument("--form", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--inputs", type=Path, help="folder with the published inputs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep compiled programs there")
    parser.add_argument("--warm", action="store_true", help="only fill the cache")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    console = Console(highlight=False, width=170, stderr=True)

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, soft_wrap=True)

    try:
        if options.rounds < 1:
            raise UserError(f"--rounds must be at least 1, not {options.rounds}; --warm measures nothing")
        pythons = environments(options.peer, say)
        if not pythons:
            raise UserError("no --peer was given: there is nothing to compare with")
        jax.config.update("jax_platforms", "cpu")
        cores = len(os.sched_getaffinity(0))  # programs are divided for these when they are compiled
        if cores < (os.cpu_count() or 1):
            say(f"this process and its peers may use {cores} of {os.cpu_count()} cores: they were pinned (taskset)")
        if options.cache is not None:
            options.cache.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(options.cache / f"jax-{cores}-threads"))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        rounds = 0 if options.warm else options.rounds
        rows: list[PeerRow] = []
        for form in options.form:
            rows += compare(form, pythons, options.inputs, rounds, options.cache, say)
        if not rows:
            return
        print(markdown_table(rows)) if options.markdown else Console(highlight=False, width=170).print(terminal_table(rows))
        if options.json:
            content = {"machine": describe(), "rows": [row.to_json() for row in rows]}
            options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if options.plot:
            say(f"wrote {plot(rows, options.plot)}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
