"""What a GPU does with Equiform: times, kernels and memory of its programs, and what each precision costs and gives.

    python -m benchmarks.gpu --json gpu.json [--rehearse] [--minutes 6]

Called by benchmarks/gpu.sh. `--rehearse` runs the same code on a processor with small structures. Programs are measured in the
order of their importance, and none is started after `--minutes`.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_profile import Kernels, kernels
from equiform.benchmark.inputs import Inputs, molecules_of, silicon
from equiform.benchmark.machine import describe, measure_roofs
from equiform.benchmark.measure import compiling, memory_of
from equiform.benchmark.programs import new_potential, training_step, with_labels
from equiform.graph import batch, to_device
from equiform.persist.parameters import with_dtype

QUEUED = 20
"""Calls that are queued one after the other for one timing."""
PRECISIONS = {"default": None, "tensorfloat32": "tensorfloat32", "bfloat16": "bfloat16", "float32": "float32"}
"""Precision of matrix products, as `jax.default_matmul_precision` calls it."""


class Program(NamedTuple):
    """A program to measure.

    Attributes:
        name: What it is.
        items: Atoms or molecules per call.
        unit: Which of the two.
        build: Compiles it and returns a function that runs it once, and its memory in bytes.
    """

    name: str
    items: int
    unit: str
    build: Callable[[], tuple[Callable[[], Any], int | None]]


class Measured(NamedTuple):
    """A row of the table; times in ms, memory in MB."""

    name: str
    compile_s: float
    milliseconds: float
    pipelined: float
    per_item: float
    unit: str
    memory: float | None
    kernels: Kernels


def programs(rehearse: bool) -> Iterator[Program]:
    """The programs of the performance page, or smaller ones."""
    published, own = ("tiny", "tiny") if rehearse else ("md17-l2", "small")
    aspirins, silicon_sizes = (1, (64,)) if rehearse else (8, (10_000, 100_000))
    molecules = molecules_of("aspirin", None)[0]
    yield _step(f"{published} step, {aspirins} aspirins", published, molecules[:aspirins], forces=True)
    yield _energy(f"{published} E + F, 1 aspirin", published, Inputs(batch(molecules[:1]), ""), ("forces",))
    small = molecules_of("qm9", None)[0]
    many = small[:2] if rehearse else small * 4
    yield _step(f"qm9 step, {len(many)} molecules", "tiny" if rehearse else "qm9-l2-nonlinear", many, forces=False)
    for count in silicon_sizes:
        yield _energy(f"{own} E + F + stress, {count:,} Si", own, silicon(count), ("forces", "stress"))


def _step(name: str, preset: str, molecules: list[Any], *, forces: bool) -> Program:
    def build() -> tuple[Callable[[], Any], int | None]:
        step = training_step(new_potential(preset, (1, 6, 7, 8, 9)), forces=forces)
        graph = to_device(with_labels(batch(molecules)))
        numbers = jnp.asarray([1e-4, *(term.weight for term in step.terms.values())], jnp.float32)
        state = step.initial_state()
        compiled = step.compiled(state, graph, numbers)

        def call() -> Any:
            nonlocal state
            result = compiled(state, graph, numbers)
            state = result[0]
            return result[1]

        return call, memory_of(compiled)

    return Program(name, len(molecules), "molecules", build)


def _energy(name: str, preset: str, inputs: Inputs, outputs: tuple[str, ...]) -> Program:
    def build() -> tuple[Callable[[], Any], int | None]:
        elements = tuple(int(z) for z in np.unique(np.asarray(inputs.graph.species)))
        arrays, static = eqx.partition(new_potential(preset, elements), eqx.is_inexact_array)
        graph = to_device(inputs.graph)

        def evaluate(arrays: Any, graph: Any) -> dict[str, Any]:
            result = eqx.combine(arrays, static)(graph, **dict.fromkeys(outputs, True))
            return {key: result[key] for key in ("energy", *outputs)}

        compiled = compiling(jax.jit(evaluate))(arrays, graph)
        return lambda: compiled(arrays, graph), memory_of(compiled)

    return Program(name, int(inputs.graph.num_atoms), "atoms", build)


def measure(program: Program) -> Measured:
    """Compile, time single and queued calls, and count kernels."""
    start = time.perf_counter()
    call, memory = program.build()
    jax.block_until_ready(call())
    compiled = time.perf_counter() - start
    single = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(call())
        single.append(time.perf_counter() - start)
    queued = max(1, min(QUEUED, int(5 / np.median(single))))
    start = time.perf_counter()
    results = [call() for _ in range(queued)]
    jax.block_until_ready(results)
    pipelined = (time.perf_counter() - start) / queued
    found = kernels(call)
    milliseconds = 1e3 * float(np.median(single))
    megabytes = None if memory is None else memory / 1e6
    return Measured(
        program.name, compiled, milliseconds, 1e3 * pipelined, 1e6 * pipelined / program.items, program.unit, megabytes, found
    )


def precision_table(rehearse: bool) -> list[dict[str, Any]]:
    """Error of energy and forces against float64, and how far a rotation of the input changes them, per precision."""
    name = "tiny" if rehearse else "md17-l2"
    graph = batch(molecules_of("aspirin", None)[0][:1])
    rotation = _rotation(np.random.default_rng(0))
    turned = graph.replace(positions=np.asarray(graph.positions) @ rotation.T)
    potential = new_potential(name, (1, 6, 8))
    with jax.enable_x64(True):
        exact = _outputs(with_dtype(potential, np.dtype(np.float64)), to_device(graph, np.float64))
    rows = []
    for label, precision in PRECISIONS.items():
        with jax.default_matmul_precision(precision):
            energy, forces = _outputs(potential, to_device(graph))
            energy_turned, forces_turned = _outputs(potential, to_device(turned))
        scale, size = float(np.abs(exact[1]).max()), float(np.abs(exact[0]).max())
        rows.append(
            {
                "products": label,
                "energy error": float(np.abs(energy - exact[0]).max()) / size,
                "force error": float(np.abs(forces - exact[1]).max()) / scale,
                "energy under rotation": float(np.abs(energy_turned - energy).max()) / size,
                "forces under rotation": float(np.abs(forces_turned - forces @ rotation.T).max()) / scale,
            }
        )
    return rows


def _outputs(potential: Any, graph: Any) -> tuple[np.ndarray, np.ndarray]:
    result = eqx.filter_jit(lambda p, g: p(g, forces=True))(potential, graph)
    return np.asarray(result["energy"], np.float64), np.asarray(result["forces"], np.float64)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def report(console: Console, rows: list[Measured], precisions: list[dict[str, Any]]) -> None:
    """The tables, the longest kernels of each program first."""
    for row in rows:
        table = Table("kernel", "ms per call", "per call", title=f"{row.name}: longest kernels")
        for name, milliseconds, count in row.kernels.longest:
            table.add_row(name[:70], f"{milliseconds:.4f}", f"{count:.0f}")
        console.print(table)
    table = Table("program", "ms", "queued ms", "µs per item", "kernels", "kernel ms", "MB", "compile s")
    for row in rows:
        memory = "–" if row.memory is None else f"{row.memory:.0f}"
        per_item = f"{row.per_item:.2f} per {row.unit.rstrip('s')}"
        times = (f"{row.milliseconds:.2f}", f"{row.pipelined:.2f}", per_item)
        counts = (f"{row.kernels.per_call:.0f}", f"{row.kernels.milliseconds:.2f}")
        table.add_row(row.name, *times, *counts, memory, f"{row.compile_s:.0f}")
    console.print(table)
    if precisions:
        table = Table(*precisions[0], title="relative errors against float64, and under a rotation, by precision of products")
        for entry in precisions:
            table.add_row(*(value if isinstance(value, str) else f"{value:.1e}" for value in entry.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="small structures, on any device")
    parser.add_argument("--minutes", type=float, default=6.0, help="start nothing later than this")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    started = time.perf_counter()
    console = Console(width=150)

    def in_time() -> bool:
        return time.perf_counter() - started < 60 * options.minutes

    precisions = precision_table(options.rehearse)
    rows, left_out = [], []
    for program in programs(options.rehearse):
        if not in_time():
            left_out.append(program.name)
            continue
        rows.append(measure(program))
        console.print(f"{program.name}: {rows[-1].pipelined:.2f} ms")
        if options.json:  # After each program: a machine may be taken away.
            content = {"machine": describe(), "programs": [row._asdict() for row in rows], "precision": precisions}
            options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    report(console, rows, precisions)
    roofs = measure_roofs()
    console.print(f"products {roofs.matrix / 1e12:.1f} TFLOP/s, memory {roofs.memory / 1e9:.0f} GB/s")
    for name in left_out:
        console.print(f"not measured, the time was over: {name}")


if __name__ == "__main__":
    main()
