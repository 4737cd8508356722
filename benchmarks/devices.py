"""Data-parallel training step on several devices: time, speed-up, and a check that the loss is the same.

    python -m benchmarks.devices [--preset NAME] [--devices 1 2 8] [--batch 32] [--repeats N] [--markdown]

On a CPU, XLA creates the requested number of virtual devices, which may exceed the number of cores (on GPUs it uses that many
GPUs); each row is a separate process. On a CPU the first row has one device on one core; the others use all cores.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("devices", "cores", "ms per step", "molecules/s", "speed-up", "loss, relative difference")


def worker(preset: str, devices: int, molecules: int, repeats: int) -> dict[str, Any]:
    """Time the step on the given number of devices; the loss is that of the first step."""
    import jax
    import numpy as np

    from equiform.benchmark.inputs import make_molecules, qm9_like_sizes
    from equiform.benchmark.programs import new_potential, with_labels
    from equiform.data.pipeline.dataset import Dataset
    from equiform.training.batches import BatchStream
    from equiform.training.config import EnergyLoss, TrainingConfig
    from equiform.training.step import TrainingStep

    graphs = [with_labels(graph) for graph in make_molecules(qm9_like_sizes(molecules).tolist())]
    config = TrainingConfig(batch_size=molecules, devices=devices)
    step = TrainingStep(new_potential(preset, (1, 6, 7, 8)), config, {"energy": EnergyLoss()}, say=lambda line: None)
    stream = BatchStream(Dataset(graphs, 5.0), batch_size=molecules, mesh=step.mesh, shuffle=False)
    with stream:
        batch = next(stream)
    state, first = step(step.initial_state(), batch, 1e-4, [1.0])
    loss = float(np.asarray(first.addressable_data(0)))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        state, last = step(state, batch, 1e-4, [1.0])
        jax.block_until_ready((state, last))
        seconds.append(time.perf_counter() - start)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "devices": devices,
        "cores": cores,
        "seconds": float(np.median(seconds)),
        "loss": loss,
        "molecules": len(batch.indices),
    }


def run(options: argparse.Namespace, devices: int, *, one_core: bool) -> dict[str, Any]:
    """Run the worker in a separate process, as the number of devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.devices", "--preset", options.preset, "--batch", str(options.batch)]
    command += ["--repeats", str(options.repeats), "--worker", str(devices)] + (["--one-core"] if one_core else [])
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"error: the run on {devices} devices ended with status {done.returncode}; its message is above")
    return json.loads(done.stdout.splitlines()[-1])


def cells(row: dict[str, Any], first: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a table row."""
    difference = abs(row["loss"] / first["loss"] - 1)
    return (
        str(row["devices"]),
        str(row["cores"]),
        f"{1e3 * row['seconds']:,.0f}",
        f"{row['molecules'] / row['seconds']:,.1f}",
        f"{first['seconds'] / row['seconds']:.2f}",
        f"{difference:.0e}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 8])
    parser.add_argument("--batch", type=int, default=32, help="molecules per step, independent of the number of devices")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one-core", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before JAX creates its threads
    if options.worker:
        print(json.dumps(worker(options.preset, options.worker, options.batch, options.repeats)))
        return
    console, rows = Console(highlight=False, width=120), []
    for devices, one_core in ((1, True), *((count, False) for count in options.devices)):
        console.print(f"{devices} devices{', one core' if one_core else ''} ...", style="dim")
        rows.append(run(options, devices, one_core=one_core))
    lines = [cells(row, rows[0]) for row in rows]
    if options.markdown:
        for line in (COLUMNS, ["---:"] * len(COLUMNS), *lines):
            print(f"| {' | '.join(line)} |")
        return
    table = Table(*COLUMNS)
    for line in lines:
        table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
