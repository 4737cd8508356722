"""Many recipe runs in one folder: the missing ones are executed one after the other."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np


def finished(folder: Path) -> bool:
    """Whether a run has its result."""
    return (folder / "benchmark.json").is_file()


def make_missing(runs: Iterable[tuple[Sequence[str], Path]], minutes: float, *, compiled_before: bool = False) -> None:
    """Execute the runs that have no result, and resume interrupted ones.

    Args:
        runs: For each run, the arguments of `equiform recipe run` (without `-o`), and its folder.
        minutes: Start no run later than this.
        compiled_before: First run one step of each run elsewhere, so that its programs are in the cache: for runs whose
            length is a wall time.
    """
    start, failed = time.monotonic(), []
    for settings, folder in runs:
        if finished(folder):
            continue
        if time.monotonic() - start > 60 * minutes:
            break
        try:
            _make(settings, folder, compiled_before)
        except subprocess.CalledProcessError as error:
            failed.append(f"{folder} (status {error.returncode})")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _make(settings: Sequence[str], folder: Path, compiled_before: bool) -> None:
    if (folder / "run.json").is_file():
        _equiform("recipe", "run", "--resume", str(folder))
        return
    if compiled_before:
        with tempfile.TemporaryDirectory() as elsewhere:
            few = ["training.max_steps=1", "data.test_size=1"]
            _equiform("recipe", "run", *settings, *few, "-o", str(Path(elsewhere) / "run"))
    _equiform("recipe", "run", *settings, "-o", str(folder))


def _equiform(*arguments: str) -> None:
    print("equiform", *arguments, flush=True)
    subprocess.run(
        [sys.executable, "-c", "from equiform.__main__ import main; main()", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean over seeds, and the standard deviation if there are several."""
    spread = f" ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"
