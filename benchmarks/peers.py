"""Equiform against other codes: the same molecules, the same precision, interleaved in one run on all CPU cores.

    python -m benchmarks.peers --peer torchmd=PEER/bin/python --peer mace=PEER/bin/python ...

Each peer is given by the Python of an environment that has it, and runs in a separate process (benchmarks/peer_*.py); without
one, or if it does not start, it is skipped, and the commands that create its environment are printed. Our Equiformer and our
implementation of TorchMD-NET's model run alongside. Rounds alternate, so that machine drift affects all; only one process works
at a time. `--cache FOLDER` caches compiled programs, and `--warm` only fills it: then no measurement waits for compilers.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peer_process import PEERS, Peer, PeerFailed, start, temporary_folder
from benchmarks.peer_table import PeerRow, markdown_table, plot, terminal_table
from benchmarks.peer_turns import PROGRAMS, Code, check_rounds, our_code, set_up, speaker, take_turns
from equiform.__main__ import restart_with_large_pages
from equiform.benchmark.inputs import molecules_of
from equiform.benchmark.machine import describe
from equiform.errors import UserError

FORMS = {"qm9": ("qm9", "qm9-l2-nonlinear", "torchmd-et-qm9"), "md17": ("aspirin", "md17-l2", "torchmd-et-md17")}
"""Molecules, our Equiformer (the reference of all times), and our other preset; qm9 has energies, md17 also forces."""
EDGE_TOLERANCE = 0.005
"""A peer whose number of edges differs by more does different work; pairs at the cutoff may fall on either side of it."""


def peer_codes(peers: Sequence[Peer], edges: int, say: Callable[[str], None]) -> list[Code]:
    """The peers that start and use our edges; prints why any other is skipped."""
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


def compare(
    form: str, pythons: dict[str, Path], inputs: Path | None, rounds: int, cache: Path | None, say: Callable[[str], None]
) -> list[PeerRow]:
    """Rows of one form, our Equiformer first; with zero rounds, every program is only warmed up."""
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
    """Python interpreters by peer from NAME=PYTHON; prints how to create the environments of the others.

    Raises:
        UserError: A name is unknown, or there is no such file.
    """
    pythons = {}
    for entry in given:
        name, _, python = entry.partition("=")
        if name not in PEERS or not python:
            raise UserError(f"--peer {entry}: give NAME=PYTHON with a name of {', '.join(PEERS)}")
        if not Path(python).is_file():
            raise UserError(f"--peer {entry}: there is no file {python}; give the Python of the peer's environment")
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
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="folder for compiled programs")
    parser.add_argument("--warm", action="store_true", help="only fill the cache")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    say = speaker()
    try:
        check_rounds(options.rounds)
        pythons = environments(options.peer, say)
        if not pythons:
            raise UserError("no --peer was given: there is nothing to compare with")
        set_up(options.cache, say)
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
    restart_with_large_pages()
    main()
