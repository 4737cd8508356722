"""Is a time budget kept? `equiform train FILE training.max_minutes=…` on several sets: steps, epochs, errors, wall time.

    python -m benchmarks.time_budget --data ../shared/data --minutes 1 3 10 --machine idle
    python -m benchmarks.time_budget --table

Everything but the budget is a default, so this is what somebody with such data gets. `training.max_minutes` is the time of
training and validation; compilation comes on top, and its cache is off. `--machine` is a word for the table, such as "busy"
beside other work. A repeated command only makes the missing runs.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.accuracy_sets import SETS, split

_FINISHED = re.compile(r"finished after (\d+) steps: ([\d.]+) minutes of training, ([\d.]+) of compilation")
_UNTRAINED = "this model is not trained"
HEAD = "machine | set | budget | training | compilation | in all | steps | epochs | forces, meV/Å | energy, meV/atom | said"


def make(name: str, minutes: float, folder: Path, data: Path | None, frames: Path) -> dict[str, Any]:
    """One run, from an empty folder and without compiled programs; what is known of it afterwards."""
    files = split(name, data, frames)
    run = folder / "run"
    arguments = [str(files.train), f"data.validation={files.validation}", f"data.test={files.test}", f"run.folder={run}"]
    command = ["--no-cache", "train", *arguments, f"training.max_minutes={minutes:g}"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "equiform", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    wall = (time.perf_counter() - began) / 60
    (folder / "output.log").write_text(done.stdout, encoding="utf-8")
    found = _FINISHED.search(done.stdout)
    if done.returncode or found is None:
        raise SystemExit(f"{name}, {minutes:g} minutes: status {done.returncode}; see {folder / 'output.log'}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    errors = json.loads((run / "errors.json").read_text(encoding="utf-8"))[files.test.stem]
    return {
        "steps": int(found[1]),
        "epochs": records[-1]["epoch"],
        "training": float(found[2]),
        "compilation": float(found[3]),
        "wall": wall,
        "forces": 1e3 * errors["forces"]["mae"],
        "energy": 1e3 * errors["energy_per_atom"]["mae"],
        "untrained": _UNTRAINED in done.stdout,
    }


def table(files: Iterable[Path]) -> list[str]:
    """Markdown, a row for each run; times in minutes."""
    lines = [f"| {HEAD} |", "|---|---" + "|---:" * 8 + "|---|"]
    rows = []
    for file in files:
        machine, name, budget = file.parts[-4:-1]
        minutes, row = float(budget.removesuffix("min")), json.loads(file.read_text(encoding="utf-8"))
        times = f"{minutes:g} | {row['training']:.2f} | {row['compilation']:.2f} | {row['wall']:.2f}"
        size = f"{row['steps']:,} | {row['epochs']:.1f} | {row['forces']:.1f} | {row['energy']:.2f}"
        rows.append(((machine, name, minutes), f"{times} | {size} | {'not trained' if row['untrained'] else ''}"))
    return lines + [f"| {machine} | {name} | {text} |" for (machine, name, _), text in sorted(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/time-budget"))
    parser.add_argument("--data", type=Path, help="folder with the published data")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["ethanol", "salicylic-acid", "3bpa", "silicon"])
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 3.0, 10.0])
    parser.add_argument("--machine", default="idle", help="what else the machine does, in a word")
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    options = parser.parse_args()
    for minutes in () if options.table else sorted(options.minutes):
        for name in options.sets:
            folder = options.out / options.machine / name / f"{minutes:g}min"
            if (folder / "result.json").is_file():
                continue
            if (folder / "run").exists():  # It was interrupted.
                (folder / "run").rename(folder / f"interrupted-{time.time_ns()}")
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{options.machine}, {name}, {minutes:g} minutes", flush=True)
            result = make(name, minutes, folder.absolute(), options.data, (options.out / "frames").absolute())
            (folder / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    print("\n".join(table(options.out.glob("*/*/*/result.json"))))


if __name__ == "__main__":
    main()
