"""Is it worth starting from a trained model? A model of the package against training from nothing, from few frames of DFT.

    python -m benchmarks.fine_tuning --data ../shared/data --sets ethanol 3bpa --frames 10 30 100 --seeds 0 1 2
    python -m benchmarks.fine_tuning --data ../shared/data --sets 3bpa --frames 100 --ways tuned adapters replay readouts
    python -m benchmarks.fine_tuning --table --plot docs/figures/fine-tuning.png

The old data, for the second command's errors on them and for replay, are the released polymers (`datasets/polymers`).
Every run takes the same number of steps, has a fifth as many validation frames as training frames, and is tested on 250
frames. Settings that are not named are defaults. A seed is that of the weights and of the frames that are drawn. A repeated
command only makes the missing runs.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

from benchmarks.accuracy_sets import SETS, split
from benchmarks.many_runs import mean_and_spread, plot_forces

BASE = "organic-gfn2"
POLYMERS = Path(__file__).parent.parent / "datasets" / "polymers"
_REPLAY = (f"finetune.replay={POLYMERS / 'train.extxyz.gz'}", "finetune.replay_structures=100")
WAYS = {
    "defaults": "`train FILE model=tiny`",
    "tuned": f"`from={BASE}`",
    "adapters": f"`from={BASE} adapters=8`",
    "replay": f"`from={BASE} finetune.replay=OLD`",
    "readouts": f"`from={BASE} finetune.replay=OLD finetune.keep_head=true`",
}
"""How a model is trained, as the table shows it."""
TUNED = ("tuned", "adapters", "replay", "readouts")


def settings(way: str) -> list[str]:
    """The arguments of `equiform train` for one of `WAYS`."""
    extra = {"adapters": ["adapters=8"], "replay": [*_REPLAY], "readouts": [*_REPLAY, "finetune.keep_head=true"]}
    return [f"from={BASE}", *extra.get(way, [])] if way in TUNED else ["model=tiny"]


def drawn(files: Any, frames: int, seed: int, folder: Path) -> tuple[Path, Path]:
    """Files with so many training frames, drawn by `seed`, and with a fifth as many validation frames, at least two."""
    paths = []
    for path, count in ((files.train, frames), (files.validation, max(2, frames // 5))):
        every = ase.io.read(path, ":")
        chosen = np.random.default_rng(seed).permutation(len(every))[:count]
        paths.append(folder / path.name)
        ase.io.write(paths[-1], [every[index] for index in chosen], format="extxyz")
    return paths[0], paths[1]


def make(way: str, name: str, frames: int, seed: int, steps: int, folder: Path, data: Path | None, sets: Path) -> None:
    """One run; its errors on the test frames go to `folder`/result.json."""
    files = split(name, data, sets)
    folder.mkdir(parents=True, exist_ok=True)
    train, validation = drawn(files, frames, seed, folder)
    arguments = [str(train), f"data.validation={validation}", f"data.test={files.test}", f"run.folder={folder / 'run'}"]
    arguments += [f"finetune.old_test={POLYMERS / 'test.extxyz.gz'}"] if way in TUNED and frames >= OLD_FROM else []
    lengths = [f"training.max_steps={steps}", f"training.validate_every={max(1, steps // 10)}", f"training.seed={seed}"]
    began = time.perf_counter()
    with open(folder / "output.log", "w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "equiform", "train", *arguments, *settings(way), *lengths]
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: status {done.returncode}; see output.log")
    every = json.loads((folder / "run" / "errors.json").read_text(encoding="utf-8"))
    errors = every[files.test.stem]
    result = {
        "forces": 1e3 * errors["forces"]["mae"],
        "energy": 1e3 * errors["energy_per_atom"]["mae"],
        "seconds": time.perf_counter() - began,
    }
    old = {name: 1e3 * found["forces"]["mae"] for name, found in every.items() if name.startswith("old data")}
    result |= {"old": old.get("old data, old head", old["old data"]), "old_before": old["old data, before"]} if old else {}
    (folder / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


Found = dict[tuple[str, str, int], list[dict[str, float]]]
"""Results of all seeds by set, way and number of frames."""
OLD_FROM = 100
"""Errors on old data are evaluated in runs of so many frames or more."""


def collect(out: Path) -> Found:
    """What is there."""
    found: Found = {}
    for path in sorted(out.glob("*/*/*/*/result.json")):
        name, frames, way = path.parts[-5:-2]
        found.setdefault((name, way, int(frames)), []).append(json.loads(path.read_text(encoding="utf-8")))
    return found


def table(found: Found) -> Iterator[str]:
    """Markdown: a row for each set and way, a column for each number of frames; meV/Å, and meV/atom in brackets.

    The last column is the force error on old data after the runs that have it, meV/Å.
    """
    frames = sorted({key[2] for key in found})
    yield f"| set | training | seeds | {' | '.join(f'{count} frames' for count in frames)} | old data |"
    yield "|---|---|---:" + "|---:" * len(frames) + "|---:|"
    for name in dict.fromkeys(key[0] for key in found):
        for way, shown in WAYS.items():
            results = [found.get((name, way, count), []) for count in frames]
            if any(results):
                cells = " | ".join(_cell(each) if each else "–" for each in results)
                old = [result["old"] for each in results for result in each if "old" in result]
                forgotten = mean_and_spread(old, ".1f") if old else "–"
                yield f"| {name} | {shown} | {max(map(len, results))} | {cells} | {forgotten} |"


def _cell(results: Iterable[dict[str, float]]) -> str:
    forces, energies = zip(*((result["forces"], result["energy"]) for result in results))
    return f"{mean_and_spread(forces, '.1f')} ({mean_and_spread(energies, '.2f')})"


def plot(found: Found, path: Path) -> None:
    """Force error against the number of training frames, a panel for each set; bars: the seeds' standard deviation."""
    plot_forces(
        {key: [result["forces"] for result in results] for key, results in found.items()},
        {way: shown.replace("`", "") for way, shown in WAYS.items()},
        path,
        x_label="training frames",
        share_y=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/fine-tuning"))
    parser.add_argument("--data", type=Path, help="folder with the published data")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["ethanol", "3bpa"])
    parser.add_argument("--frames", nargs="+", type=int, default=[10, 30, 100])
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=[way for way in WAYS if way not in ("replay", "readouts")]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    wanted = (
        (way, name, frames, seed)
        for seed in options.seeds
        for name in options.sets
        for frames in options.frames
        for way in options.ways
    )
    for way, name, frames, seed in () if options.table else wanted:
        folder = (options.out / name / str(frames) / way / f"seed{seed}").absolute()
        if (folder / "result.json").is_file():
            continue
        if (folder / "run").exists():  # It was interrupted.
            (folder / "run").rename(folder / f"interrupted-{time.time_ns()}")
        print(f"{name}, {frames} frames, {way}, seed {seed}", flush=True)
        make(way, name, frames, seed, options.steps, folder, options.data, (options.out / "sets").absolute())
    found = collect(options.out)
    print("\n".join(table(found)))
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
