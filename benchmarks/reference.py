"""Equiform against the published form of Equiformer: the same function, weights and molecules, interleaved in one run.

    python -m benchmarks.reference --peer PEER/bin/python                      all cases
    python -m benchmarks.reference --peer PEER/bin/python --case qm9           some
    python -m benchmarks.reference --peer PEER/bin/python --check FOLDER       is it the published function?

The published form (benchmarks/published_equiformer.py, PyTorch and e3nn) runs in a separate process, by the Python of its
environment. Before anything is timed, its energies and forces must agree with ours. `--check` compares it, in float64, with
stored outputs of the authors' own code. Rounds alternate, so that machine drift affects both; only one process works at a time.
`--cache FOLDER` caches our compiled programs, and `--warm` only fills the cache.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from rich.console import Console

from benchmarks.official import FULL, config_of, relative_error, state_of
from benchmarks.peer_process import TORCH, Peer, PeerFailed, PeerKind, temporary_folder, write_task
from benchmarks.peer_turns import PROGRAMS, Code, check_rounds, our_code, random_potential, set_up, speaker, take_turns
from benchmarks.reference_table import Row, markdown_table, terminal_table
from equiform.__main__ import restart_with_large_pages
from equiform.benchmark.inputs import molecule_graph, molecules_of
from equiform.benchmark.machine import describe
from equiform.errors import UserError
from equiform.graph import Graph, batch, to_device
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.persist.official.names import official_state, with_official_state
from equiform.tasks.energy import Potential


class Case(NamedTuple):
    """A comparison: a batch of molecules (`equiform.benchmark.inputs.PUBLISHED`), a preset, and whether it has forces."""

    molecules: str
    preset: str
    forces: bool


CASES = {
    "qm9": Case("qm9", "qm9-l2-nonlinear", False),
    "md17-l2": Case("aspirin", "md17-l2", True),
    "md17-l3": Case("aspirin", "md17-l3", True),
}
CHECKED = ("qm9_small_nonlinear", "md17_small_l2", "md17_small_l3", *FULL)
"""Stored models of the kinds that this published form implements."""
AGREEMENT, EXACTNESS = 1e-4, 1e-9
"""Maximum relative output differences: between the two codes in float32, and from the stored outputs in float64."""
PUBLISHED = PeerKind("peer_equiformer.py", (f"{TORCH} e3nn==0.4.4",))


class Published(NamedTuple):
    """A running instance of the published form.

    Attributes:
        peer: Its process.
        folder: Folder of its files.
    """

    peer: Peer
    folder: Path

    def outputs(self) -> dict[str, np.ndarray]:
        """Energies of the molecules, and forces on all atoms."""
        self.peer.time("outputs")
        with np.load(self.folder / "outputs.npz") as arrays:
            return {name: arrays[name] for name in ("energy", "forces")}


@contextmanager
def published(
    python: Path, config: EquiformerConfig, state: dict[str, np.ndarray], molecules: list[Graph], dtype: str, *, forces: bool
) -> Iterator[Published]:
    """Start the published form with given weights.

    Args:
        python: Python of an environment that has PyTorch and e3nn.
        config: The model configuration.
        state: Its parameters under their published names.
        molecules: The input molecules.
        dtype: Its precision, "float32" or "float64".
        forces: Whether its programs compute forces; its outputs always include them.

    Raises:
        UserError: It did not start, or exited.
    """
    with temporary_folder() as name:
        folder = Path(name)
        arrays: dict[str, Any] = {"config": config.model_dump_json(), "dtype": dtype, **state}
        np.savez(folder / "model.npz", allow_pickle=False, **arrays)
        task = write_task(folder / "task.npz", "published", forces=forces, molecules=molecules, cache=None)
        peer = Peer("published", python, worker=Path(__file__).parent / PUBLISHED.worker, task=task, log=folder / "log")
        try:
            yield Published(peer, folder)
        except PeerFailed as error:
            raise UserError(f"the published form does not run: {error}. Its environment: {PUBLISHED.recipe()}") from error
        finally:
            peer.close()


def weights(model: Equiformer, seed: int = 0) -> dict[str, np.ndarray]:
    """The model's parameters by official name; those initialised to zeros or ones are perturbed, so that each has an effect."""
    rng = np.random.default_rng(seed)
    state = official_state(model)
    moved = {name: array + 0.1 * rng.standard_normal(array.shape) * (np.ptp(array) == 0) for name, array in state.items()}
    return {name: array.astype(np.float32) for name, array in moved.items()}


def our_outputs(potential: Potential, molecules: list[Graph]) -> dict[str, np.ndarray]:
    """Energies and forces, in the layout of the published form."""
    result = eqx.filter_jit(lambda potential, graph: potential(graph))(potential, to_device(batch(molecules)))
    return {name: np.asarray(result[name]) for name in ("energy", "forces")}


def agreement(theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray], names: Sequence[str]) -> float:
    """Maximum relative difference of the outputs.

    Raises:
        UserError: It is too large for two codes that compute the same in float32.
    """
    errors = {name: relative_error(ours[name], theirs[name]) for name in names}
    for name, error in errors.items():
        if not error <= AGREEMENT:
            raise UserError(f"{name}: Equiform differs from the published form by {error:.1e} (limit {AGREEMENT:.0e})")
    return max(errors.values())


def compare(name: str, python: Path, inputs: Path | None, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Rows of one case; with zero rounds, our programs are only compiled."""
    kind, preset, forces = CASES[name]
    molecules, source = molecules_of(kind, inputs)
    potential = random_potential(preset, molecules)
    model = potential.model
    assert isinstance(model, Equiformer)
    state = weights(model)
    potential = eqx.tree_at(lambda p: p.model, potential, with_official_state(model, state, np.float32))
    ours = our_code(preset, molecules, forces=forces, potential=potential)
    if not rounds:
        our_outputs(potential, molecules)
        for program in PROGRAMS:
            take_turns([ours], program, 0, say)
        return []
    rows = []
    with published(python, model.config, state, molecules, "float32", forces=forces) as running:
        theirs = their_code(name, running.peer, ours, say)
        difference = agreement(running.outputs(), our_outputs(potential, molecules), ("energy", "forces"))
        say(f"{name}: energies and forces differ by {difference:.1e} at most")
        for program in PROGRAMS:
            words = ("energy + forces" if forces else "energy") + (" step" if program == "step" else "")
            seconds = take_turns([theirs, ours], program, rounds, say)
            if len(seconds) == 2:
                times = (tuple(seconds[theirs.name]), tuple(seconds[ours.name]))
                rows.append(Row(name, source, ours.edges, ours.parameters, words, *times, difference))
    return rows


def their_code(name: str, peer: Peer, ours: Code, say: Callable[[str], None]) -> Code:
    """The published form, once it is ready.

    Raises:
        UserError: Its number of parameters or edges differs from ours.
        PeerFailed: It could not start.
    """
    about = peer.about
    for what, number in (("parameters", ours.parameters), ("edges", ours.edges)):
        if about[what] != number:
            raise UserError(f"{name}: the published form has {about[what]:,} {what}, Equiform has {number:,}")
    say(f"{name}: {about['code']}, {ours.parameters:,} parameters, {ours.edges:,} edges, {about['threads']} threads")
    return Code(about["code"], ours.parameters, ours.edges, about["warm_up"], about["programs"], peer.time)


def check(python: Path, root: Path, say: Callable[[str], None]) -> float:
    """Maximum relative error of the published form, in float64, against the stored outputs of the authors' code.

    Raises:
        UserError: Nothing is stored there, or the error is too large.
    """
    folders = [root / name for name in CHECKED if (root / name).is_dir()]
    if not folders:
        raise UserError(f"{root} has none of {', '.join(CHECKED)}")
    worst = 0.0
    for folder in folders:
        for suffix in ("",) if folder.name in FULL else ("_main", "_edge"):
            with np.load(folder / f"inputs{suffix}.npz") as arrays:
                index, positions, numbers = arrays["batch"], arrays["pos"], arrays["z"]
            where = [np.flatnonzero(index == k) for k in range(int(index.max()) + 1)]
            molecules = [molecule_graph(positions[rows], numbers[rows]) for rows in where]
            with published(python, config_of(folder), state_of(folder), molecules, "float64", forces=True) as running:
                peer_edges, got = running.peer.about["edges"], running.outputs()
            with np.load(folder / f"outputs_f64{suffix}.npz") as stored:
                expected = {"energy": stored["out.energy"][:, 0], "forces": stored["out.forces"]}
            errors = {name: relative_error(got[name], expected[name]) for name in expected}
            words = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
            say(f"{folder.name}{suffix.replace('_', ' ')}, {peer_edges} edges: {words}")
            worst = max(worst, *errors.values())
    if not worst <= EXACTNESS:
        raise UserError(f"the published form is not exact: largest error {worst:.1e} (limit {EXACTNESS:.0e})")
    return worst


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="Python of the environment with PyTorch and e3nn")
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--inputs", type=Path, help="folder with the published inputs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="folder for our compiled programs")
    parser.add_argument("--warm", action="store_true", help="only fill the cache")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="compare with stored outputs in this folder; no timing")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    options = arguments().parse_args(given)
    say = speaker()
    try:
        check_rounds(options.rounds)
        python = PUBLISHED.interpreter(options.peer)
        if options.check is not None:
            print(f"largest relative error: {check(python, options.check, say):.1e} (limit {EXACTNESS:.0e})")
            return
        set_up(options.cache, say)
        rows: list[Row] = []
        for name in options.case:
            rows += compare(name, python, options.inputs, 0 if options.warm else options.rounds, say)
        if options.warm:
            return
        if not rows:
            raise UserError("nothing was measured")
        print(markdown_table(rows)) if options.markdown else Console(highlight=False, width=170).print(terminal_table(rows))
        if options.json:
            content = {"machine": describe(), "rows": [row.to_json() for row in rows]}
            options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    restart_with_large_pages()
    main()
