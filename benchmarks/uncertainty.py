"""Does an uncertainty know where a model is wrong? LLPR and a committee on frames like those of training, and on hotter ones.

    python -m benchmarks.uncertainty --data ../shared/data --seeds 0 1
    python -m benchmarks.uncertainty --table

200 frames of 3BPA at 300 K train, 50 calibrate. *300 K* are 100 further frames; *300 to 1200 K* are 100 of the mixed set that
are not in the 300 K set. Settings that are not named are defaults. A repeated command only makes the missing runs.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from benchmarks.accuracy_sets import SETS, Split, split
from benchmarks.many_runs import mean_and_spread

WAYS = {"LLPR": 1, "committee of 4": 4}
"""Number of members by name."""
COLD, HOT = "300 K", "300 to 1200 K"
MIXED = "molecules/train_mixedT.xyz"
EVALUATED = 100
"""Frames of each kind; expected errors of forces cost a backward pass for each feature."""


def evaluated(data: Path, test: Path, folder: Path) -> dict[str, Path]:
    """The frames to evaluate by name, written on first use: `EVALUATED` of each, drawn with a fixed seed."""
    paths = {COLD: folder / "3bpa_300K.xyz", HOT: folder / "3bpa_mixed.xyz"}
    if all(path.is_file() for path in paths.values()):
        return paths
    known = {_key(atoms) for atoms in ase.io.iread(data / SETS["3bpa"].file)}
    sources: dict[str, list[Any]] = {
        COLD: ase.io.read(test, ":"),
        HOT: [atoms for atoms in ase.io.iread(data / MIXED, index=":") if _key(atoms) not in known],
    }
    for name, frames in sources.items():
        chosen = np.random.default_rng(0).permutation(len(frames))[:EVALUATED]
        ase.io.write(paths[name], [frames[index] for index in chosen], format="extxyz")
    return paths


def _key(atoms: Any) -> bytes:
    return np.round(atoms.positions, 4).tobytes()


def make(members: int, seed: int, steps: int, folder: Path, files: Split, tests: dict[str, Path]) -> None:
    """Train, calibrate and evaluate; what `equiform evaluate --json` says of both sets goes to `folder`/result.json."""
    run = folder / "run"
    data = [str(files.train), f"data.validation={files.validation}", f"training.max_steps={steps}", f"training.seed={seed}"]
    own = ["model=tiny", *([f"training.members={members}"] if members > 1 else [])]
    if (run / "run.json").is_file():
        _equiform("train", "--resume", str(run))
    else:
        _equiform("train", *data, *own, "-o", str(run))
    _equiform("uncertainty", str(run))
    found = {}
    for name, path in tests.items():
        plot = folder / f"{path.stem}.png"
        found[name] = json.loads(_equiform("evaluate", str(run), str(path), "--json", "--plot", str(plot)))
    (folder / "result.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def _equiform(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-m", "equiform", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


def table(out: Path) -> Iterator[str]:
    """Markdown: a row for each way, set and quantity; mean and standard deviation of the seeds."""
    yield "| uncertainty | seeds | frames | quantity | RMSE | expected RMSE | miscalibration | rank correlation |"
    yield "|---|---:|---|---|---:|---:|---:|---:|"
    for way in WAYS:
        seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / way).glob("seed*/result.json"))]
        for frames in (COLD, HOT) if seeds else ():
            for quantity, first in seeds[0][frames]["uncertainty"].items():
                each = [found[frames]["uncertainty"][quantity] for found in seeds]
                cells = [
                    mean_and_spread([scale * one[name] for one in each], form)
                    for name, scale, form in (
                        ("rmse", 1e3, ".1f"),
                        ("expected", 1e3, ".1f"),
                        ("miscalibration", 1.0, ".3f"),
                        ("rank_correlation", 1.0, ".2f"),
                    )
                ]
                yield f"| {way} | {len(seeds)} | {frames} | {quantity}, m{first['unit']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/uncertainty"))
    parser.add_argument("--data", type=Path, help="folder with the published data")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    options = parser.parse_args()
    for seed in () if options.table else options.seeds:
        files = split("3bpa", options.data, (options.out / "frames").absolute())
        tests = evaluated(options.data, files.test, options.out / "frames")
        for way, members in WAYS.items():
            folder = options.out / way / f"seed{seed}"
            if not (folder / "result.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                make(members, seed, options.steps, folder, files, tests)
    print("\n".join(table(options.out)))


if __name__ == "__main__":
    main()
