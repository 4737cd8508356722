"""Many runs in one folder: missing recipe runs are executed one after the other; means, spreads and curves of many seeds."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
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


def plot_forces(
    found: Mapping[tuple[str, str, float], Sequence[float]],
    curves: Mapping[str, str],
    path: Path,
    *,
    x_label: str,
    share_y: bool,
) -> None:
    """Error of the forces on logarithmic axes, a panel for each set and a curve for each code; bars: the seeds' deviation.

    Args:
        found: Errors of all seeds by set, code and x, meV/Å.
        curves: Codes in the order of their colours, with what the legend calls them.
        path: File of the figure.
        x_label: What x is.
        share_y: The same range of errors in all panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(dict.fromkeys(key[0] for key in found))
    beside = max(map(len, curves.values())) <= 20  # The legend; below, if its labels are long.
    size = (3.4 * len(sets) + 2.2, 3.4) if beside else (3.4 * len(sets), 3.4 + 0.2 * len(curves))
    figure, axes = pyplot.subplots(1, len(sets), figsize=size, squeeze=False, sharey=share_y, layout="constrained")
    for axis, name in zip(axes[0], sets):
        for number, (code, label) in enumerate(curves.items()):
            points = sorted((key[2], errors) for key, errors in found.items() if key[:2] == (name, code))
            if points:
                spread = [np.std(errors, ddof=1) if len(errors) > 1 else 0 for _, errors in points]
                style = {"color": f"C{number}", "label": label, "markersize": 4, "capsize": 2}
                axis.errorbar([x for x, _ in points], [np.mean(errors) for _, errors in points], spread, fmt="o-", **style)
        axis.set(xscale="log", yscale="log", title=name, xlabel=x_label)
        every = sorted({key[2] for key in found})
        axis.set_xticks(every, [f"{x:g}" for x in every])
        axis.minorticks_off()
        low, high = axis.get_ylim()
        ticks = [tick for power in range(5) for tick in np.array([1, 1.5, 2, 3, 5, 7]) * 10**power if low <= tick <= high]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0][0].set_ylabel("MAE of force components, meV/Å")
    entries = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels())}
    labels = [label for label in curves.values() if label in entries]
    place = "outside right upper" if beside else "outside lower left"
    figure.legend([entries[label] for label in labels], labels, loc=place, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
