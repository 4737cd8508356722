"""Error against minutes: Equiform and other codes train on the same frames for the same time.

    python -m benchmarks.time_to_accuracy --data ../shared/data --peer mace=PEER/bin/python --minutes 2 5 10
    python -m benchmarks.time_to_accuracy --sets ethanol --codes nequip --peer nequip=PEER/bin/python

Every code is started as its users start it, on one thread, and is charged for everything it does: start, reading, compilation,
validation. Equiform trains again for each number of minutes, as its learning rate decays over the run; a peer trains once for
the longest, and the model that it holds for best on the validation frames at each time is evaluated. The test frames are seen
by none. `--clock processor` counts processor time of one thread, which other work on the machine changes less; `wall` counts
wall time with the threads that `--threads` gives. Every run that ends is a line of the results, a file of JSON lines
(`--results`): a repeated command only makes the missing ones. Only runs of one machine (`--machine`) are compared, as a minute
is worth more on a faster one.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy_sets import SETS, Split, split
from benchmarks.many_runs import mean_and_spread, plot_forces
from benchmarks.peer_process import PEERS
from equiform.errors import UserError

OURS = {
    "defaults": (),
    "adam": ("training.optimizer=adam",),
    "tiny": ("model=tiny",),
    "small": ("model=small",),
    "medium": ("model=medium",),
    "torchmd-et": ("model=torchmd-et",),
    "tiny-0.1.0": ("model=tiny", "training.batch_size=16", "training.learning_rate=5e-4", "training.ema=0.999"),
}
"""Settings of Equiform by name; "defaults" are those of `equiform train FILE`, "tiny-0.1.0" those of version 0.1.0."""

MACE = (
    *("--name=mace-{seed}", "--seed={seed}", "--work_dir={folder}/mace"),
    *("--train_file={train}", "--valid_file={validation}"),
    *("--model=MACE", "--num_channels=32", "--max_L=1", "--r_max=5.0", "--batch_size=5", "--valid_batch_size=10"),
    *("--ema", "--ema_decay=0.99", "--amsgrad", "--E0s=average", "--default_dtype=float32", "--device=cpu"),
    *("--energy_key=REF_energy", "--forces_key=REF_forces", "--max_num_epochs=100000", "--error_table=PerAtomMAE"),
)
"""The settings of the README of MACE for a small model, with the batch of 5 and the EMA that it recommends."""


class Worker(NamedTuple):
    """How a peer is trained.

    Attributes:
        file: The script in this folder.
        arguments: What it gets after the arguments that all have; in braces what differs from run to run.
        periodic: Whether it can train on periodic cells.
    """

    file: str
    arguments: tuple[str, ...] = ("{train}", "{validation}", "{seed}", "{folder}")
    periodic: bool = True


WORKERS = {
    "mace": Worker("accuracy_mace.py", MACE),
    "nequip": Worker("accuracy_nequip.py"),
    # TorchMD-NET takes cells that are at least twice as wide as the cutoff; 31 of the 162 training cells of silicon are not.
    "torchmd": Worker("accuracy_torchmd.py", periodic=False),
    "nequix": Worker("accuracy_nequix.py"),
}
"""Peers by name; their environments are those of `PEERS`."""

LABELS = {
    **{code: f"Equiform, {code}" for code in OURS},
    "mace": "MACE",
    "nequip": "NequIP",
    "torchmd": "TorchMD-NET ET",
    "nequix": "Nequix",
}
"""What the table and the figure call them, in their order."""


class Run(NamedTuple):
    """One training."""

    set: str
    code: str
    seed: int
    minutes: tuple[float, ...]


class Machine(NamedTuple):
    """What a run may use."""

    clock: str
    threads: int

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") or key == "PYTHONPATH"}
        threads = str(self.threads)
        eigen = f"--xla_cpu_multi_thread_eigen={str(self.threads > 1).lower()}"
        return kept | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "XLA_FLAGS": eigen, "JAX_PLATFORMS": "cpu"}


def runs(sets: list[str], codes: list[str], seeds: list[int], minutes: list[float]) -> Iterator[Run]:
    """Every run, seed by seed, the codes alternating."""
    for seed in seeds:
        for name in sets:
            for code in codes:
                if code in OURS:
                    yield from (Run(name, code, seed, (limit,)) for limit in minutes)
                elif WORKERS[code].periodic or not SETS[name].periodic:
                    yield Run(name, code, seed, tuple(minutes))


Errors = dict[str, float]
"""Mean absolute errors by kind: `forces` (eV/Å) and `energy_per_atom` (eV)."""


def make(run: Run, files: Split, folder: Path, pythons: dict[str, Path], machine: Machine) -> dict[str, Errors]:
    """Train.

    Returns:
        The errors on the test frames by number of minutes; a number at which a peer had no model yet is missing.

    Raises:
        UserError: The training failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = (_ours if run.code in OURS else _peer)(run, files, folder.absolute(), pythons, machine)
    with open(folder / "output.log", "w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=machine.environment(), check=False)
    if done.returncode:
        raise UserError(f"{run.code} on {run.set} failed with status {done.returncode}; see {folder / 'output.log'}")
    if run.code in OURS:
        found = json.loads((folder / "run" / "errors.json").read_text(encoding="utf-8"))[f"{run.set}_test"]
        return {f"{run.minutes[0]:g}": {kind: found[kind]["mae"] for kind in ("forces", "energy_per_atom")}}
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return {minutes: errors for minutes, errors in found.items() if isinstance(errors, dict)}


def _ours(run: Run, files: Split, folder: Path, _: dict[str, Path], machine: Machine) -> list[str]:
    data = [f"data.validation={files.validation}", f"data.test={files.test}", f"run.folder={folder / 'run'}"]
    length = [f"training.max_minutes_in_all={run.minutes[0]:g}", f"training.seed={run.seed}"]
    start = [sys.executable, "-m", "benchmarks.accuracy_ours", machine.clock, "--no-cache", "train", str(files.train)]
    return [*start, *data, *length, *OURS[run.code]]


def _peer(run: Run, files: Split, folder: Path, pythons: dict[str, Path], machine: Machine) -> list[str]:
    worker = WORKERS[run.code]
    minutes = ",".join(f"{limit:g}" for limit in run.minutes)
    start = [str(pythons[run.code]), str(Path(__file__).with_name(worker.file)), machine.clock]
    names = {"train": files.train, "validation": files.validation, "seed": run.seed, "folder": folder}
    own = [argument.format(**names) for argument in worker.arguments]
    return [*start, str(folder / "result.json"), str(files.test), minutes, *own]


class Results:
    """The finished runs of one machine on one clock: lines of a file that others may share."""

    def __init__(self, path: Path, clock: str, machine: str):
        self.path, self._common = path, {"machine": machine, "clock": clock}

    def add(self, run: Run, errors: dict[str, Errors]) -> None:
        """Add a run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"date": time.strftime("%Y-%m-%d"), **self._common, **run._asdict(), "errors": errors}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read(self) -> dict[Run, dict[str, Errors]]:
        """The errors of each run by number of minutes."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        return {
            Run(entry["set"], entry["code"], entry["seed"], tuple(entry["minutes"])): entry["errors"]
            for entry in map(json.loads, lines)
            if self._common.items() <= entry.items()
        }


def machines(path: Path) -> list[str]:
    """The machines of a file of results, in their order in it."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return list(dict.fromkeys(json.loads(line)["machine"] for line in lines))


def _place(name: str, code: str) -> tuple[int, int]:
    return list(SETS).index(name), list(LABELS).index(code)


def by_seed(done: dict[Run, dict[str, Errors]]) -> dict[tuple[str, str, float], dict[int, Errors]]:
    """The errors of each seed by set, code and minutes; sets and codes in the order in which this file has them.

    If a seed was run to several lengths, the last line of the results counts.
    """
    found: dict[tuple[str, str, float], dict[int, Errors]] = {}
    for run in sorted(done, key=lambda run: (*_place(run.set, run.code), run.seed)):
        for minutes, errors in done[run].items():
            found.setdefault((run.set, run.code, float(minutes)), {})[run.seed] = errors
    return found


def collect(done: dict[Run, dict[str, Errors]]) -> dict[tuple[str, str, float], list[Errors]]:
    """The errors of all seeds by set, code and minutes, as `by_seed`."""
    return {key: list(seeds.values()) for key, seeds in by_seed(done).items()}


def table(found: dict[tuple[str, str, float], list[Errors]]) -> list[str]:
    """Markdown: a row per set and code, a column per number of minutes: meV/Å, and meV per atom in brackets.

    The lowest force error of a set and a time is bold. A value without a spread is of one seed.
    """
    minutes = sorted({key[2] for key in found})
    lines = [f"| set | code | seeds | {' | '.join(f'{limit:g} min' for limit in minutes)} |", "|---" * (len(minutes) + 3) + "|"]
    means = {key: float(np.mean([error["forces"] for error in errors])) for key, errors in found.items()}
    for name, code in dict.fromkeys(key[:2] for key in found):
        cells, seeds = [], 0
        for limit in minutes:
            errors = found.get((name, code, limit), [])
            seeds = max(seeds, len(errors))
            forces, energies = ([1e3 * error[kind] for error in errors] for kind in ("forces", "energy_per_atom"))
            if not errors:
                cells.append("–")
                continue
            lowest = min(mean for key, mean in means.items() if key[::2] == (name, limit))
            mark = "**" if means[name, code, limit] == lowest else ""
            cells.append(f"{mark}{mean_and_spread(forces, '.1f')}{mark} ({np.mean(energies):.2f})")
        lines.append(f"| {name} | {LABELS[code]} | {seeds} | {' | '.join(cells)} |")
    return lines


def ratio_table(path: Path, clock: str, peer: str) -> list[str]:
    """Markdown: force errors divided by those of `peer` with the same seed on the same machine, over all machines.

    A row per set and code, a column per number of minutes: the geometric mean, and the lowest and highest in brackets if there
    are several.
    """
    found: dict[tuple[str, str, float], list[float]] = {}
    for machine in machines(path):
        errors = by_seed(Results(path, clock, machine).read())
        for (name, code, limit), seeds in errors.items():
            other = errors.get((name, peer, limit), {})
            pairs = [seeds[seed]["forces"] / other[seed]["forces"] for seed in seeds.keys() & other.keys()]
            if code != peer and pairs:
                found.setdefault((name, code, limit), []).extend(pairs)
    minutes = sorted({key[2] for key in found})
    lines = [f"| set | code | pairs | {' | '.join(f'{limit:g} min' for limit in minutes)} |", "|---" * (len(minutes) + 3) + "|"]
    for name, code in sorted({key[:2] for key in found}, key=lambda row: _place(*row)):
        columns = [found.get((name, code, limit), []) for limit in minutes]
        cells = [f"{np.exp(np.mean(np.log(ratios))):.2f}{_range(ratios)}" if ratios else "–" for ratios in columns]
        lines.append(f"| {name} | {LABELS[code]} | {max(map(len, columns))} | {' | '.join(cells)} |")
    return lines


def _range(ratios: list[float]) -> str:
    return f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 else ""


def plot(found: dict[tuple[str, str, float], list[Errors]], path: Path, clock: str) -> None:
    """Error of the forces against minutes, a panel for each set; bars: the seeds' standard deviation."""
    shown = {key[1] for key in found}
    plot_forces(
        {key: [1e3 * error["forces"] for error in errors] for key, errors in found.items()},
        {code: label for code, label in LABELS.items() if code in shown},
        path,
        x_label=f"minutes ({clock} time)",
        share_y=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/time-to-accuracy"))
    parser.add_argument("--results", type=Path, metavar="FILE.jsonl", help="default: results.jsonl in --out")
    parser.add_argument("--machine", default=platform.node(), metavar="NAME", help="in the results; default: %(default)s")
    parser.add_argument("--data", type=Path, help="folder with the published data")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["ethanol", "3bpa", "salicylic-acid", "silicon"])
    parser.add_argument("--codes", nargs="+", choices=[*OURS, *WORKERS], default=["defaults", "small", "torchmd-et", "mace"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="the Python of a peer's environment")
    parser.add_argument("--minutes", nargs="+", type=float, default=[2.0, 5.0, 10.0, 30.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--clock", choices=["processor", "wall"], default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stop-after", type=float, metavar="MINUTES", help="start no run later than this")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the results")
    parser.add_argument(
        "--ratio", choices=list(WORKERS), metavar="PEER", help="also print force errors divided by those of this peer"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    pythons = {name: Path(path).absolute() for name, _, path in (entry.partition("=") for entry in options.peer)}
    codes = [code for code in options.codes if code in OURS or code in pythons]
    for code in set() if options.table else set(options.codes) - set(codes):
        print(f"{code} is left out, no --peer {code}=PEER/bin/python was given. {PEERS[code].recipe()}")
    for code, name in () if options.table else itertools.product(codes, options.sets):
        if code in WORKERS and SETS[name].periodic and not WORKERS[code].periodic:
            print(f"{code} cannot train on the periodic cells of {name} and is left out there")
    results = Results(options.results or options.out / "results.jsonl", options.clock, options.machine)
    done = results.read()
    started, failed = time.monotonic(), []
    for run in () if options.table else runs(options.sets, codes, options.seeds, sorted(options.minutes)):
        minutes = "-".join(f"{limit:g}" for limit in run.minutes)
        folder = options.out / options.clock / run.set / run.code / f"seed{run.seed}-{minutes}min"
        if run in done:
            continue
        if options.stop_after and time.monotonic() - started > 60 * options.stop_after:
            break
        print(f"{run.set}, {run.code}, seed {run.seed}, {minutes} minutes", flush=True)
        if (folder / "run").exists():  # It was interrupted: a time budget cannot be continued elsewhere.
            (folder / "run").rename(folder / f"interrupted-{time.time_ns()}")
        try:
            files = split(run.set, options.data, (options.out / "frames").absolute())
            results.add(run, make(run, files, folder, pythons, Machine(options.clock, options.threads)))
        except UserError as error:
            failed.append(str(error))
            print(f"failed: {error}", flush=True)
    found = collect(results.read())
    print("\n".join(table(found)))
    if options.ratio:
        print("\n".join(["", *ratio_table(results.path, options.clock, options.ratio)]))
    if options.plot:
        plot(found, options.plot, options.clock)
        print(f"wrote {options.plot}")
    if failed:
        sys.exit(f"{len(failed)} runs failed")


if __name__ == "__main__":
    main()
