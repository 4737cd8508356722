"""An input script of LAMMPS with a model attached where the script makes its `fix external`.

The script stays a valid one: `fix NAME all external pf/callback 1 1` stands behind the lines that make the box and the
atoms, in front of the first `run` or `minimize`. What stands above it is run, the model is attached, the rest is run.
"""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equiform.deploy.lammps import FIX, attach, open_lammps
from equiform.deploy.predictor import Predictor
from equiform.errors import UserError

LINE = f"fix {FIX} all external pf/callback 1 1"
_FIX = re.compile(r"^\s*fix\s+(?P<name>\S+)\s+(?P<group>\S+)\s+external\s+pf/callback\s+(?P<every>\S+\s+\S+)\s*$")
_PATIENCE = 5.0  # seconds for the first rank to say what is wrong, before another one ends the job


def run_input(
    script: Path,
    load: Callable[[], Predictor],
    *,
    types: str | None = None,
    variables: Mapping[str, str] | None = None,
    log: str = "log.lammps",
) -> None:
    """Run an input script to its end; on several ranks if Python was started by `mpiexec`.

    A failure of the model ends the process at once, on all ranks, with status 1 and one line: the rest of the script is not
    run.

    Args:
        script: The input script.
        load: Gives the model; called on the first rank only.
        types: The element of each atom type, joined by commas; None: as the script's labelmap says.
        variables: Values of the script's variables.
        log: LAMMPS' log file.

    Raises:
        UserError: The script is missing, has no line that makes the fix, or LAMMPS stopped with an error; also as of `attach`.
    """
    given = [word for name, value in (variables or {}).items() for word in ("-var", name, *value.split())]
    lmp = open_lammps(["-log", log, *given])
    comm = lmp.get_mpi_comm() if lmp.extract_setting("world_size") > 1 else None
    rank = lmp.extract_setting("world_rank")

    def stop(reason: str) -> None:
        lmp.flush_buffers()
        _end(comm, rank, f"the model failed: {reason}")

    with _all_ranks_end(comm, rank), _interruptible():
        head, name, tail = split(_read(script), script) if rank == 0 else ("", "", "")
        if comm is not None:
            head, name, tail = comm.bcast((head, name, tail), root=0)
        predictor = load() if rank == 0 else None
        with tempfile.TemporaryDirectory() as folder:
            for part, text in (("head", head), ("tail", tail)):
                path = Path(folder) / f"{script.stem}.{part}"
                path.write_text(text, encoding="utf-8")
                _run(lmp, path)
                if part == "head":
                    if comm is not None:
                        comm.barrier()  # the first rank says what is wrong, and may still be loading the model
                    attach(lmp, predictor, types=types, fix=name, stop=stop)
        lmp.close()


def split(text: str, script: Path) -> tuple[str, str, str]:
    """The script up to and including the line that makes the fix, the name of the fix, and the rest.

    Raises:
        UserError: There is no such line, or the fix does not act on all atoms in each step.
    """
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        match = _FIX.match(line.partition("#")[0])
        if match is None:
            continue
        if match["group"] != "all" or match["every"].split() != ["1", "1"]:
            raise UserError(
                f"{script}, line {number + 1}: a model acts on all atoms in each step; write: fix {match['name']} all external "
                "pf/callback 1 1"
            )
        return "".join(lines[: number + 1]), match["name"], "".join(lines[number + 1 :])
    raise UserError(
        f"{script} does not say where the model is attached; behind the lines that make the box and the atoms, in front of the "
        f"first run, write: {LINE}"
    )


def _read(script: Path) -> str:
    if not script.is_file():
        raise UserError(f"there is no input script {script}")
    return script.read_text(encoding="utf-8")


def _run(lmp: Any, path: Path) -> None:
    try:
        lmp.file(str(path))
    except UserError:
        raise
    except Exception as error:  # LAMMPS' Python module has one class for all errors
        if type(error).__name__ == "MPIAbortException":
            raise _OneRank(str(error)) from error
        text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise UserError(f"LAMMPS stopped: {text.removeprefix('ERROR: ')}") from error


class _OneRank(Exception):
    """An error of LAMMPS on this rank that the others do not know of."""


@contextmanager
def _all_ranks_end(comm: Any, rank: int) -> Iterator[None]:
    """With several ranks, end all of them when one cannot go on; none is left waiting."""
    try:
        yield
    except BaseException as error:
        if comm is None:
            raise
        known = isinstance(error, UserError | _OneRank)
        _end(comm, 0 if isinstance(error, _OneRank) else rank, str(error) if known else f"{type(error).__name__}: {error}")


def _end(comm: Any, rank: int, reason: str) -> None:
    """End the process, or the job of several: the first rank says why."""
    if rank == 0:
        print(f"error: {reason}", file=sys.stderr, flush=True)
    else:
        time.sleep(_PATIENCE)
    if comm is not None:
        comm.Abort(1)
    os._exit(1)  # LAMMPS is below us on the stack, and an exception does not get through it


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once: Python sees a signal only between steps, and could lose it there."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
