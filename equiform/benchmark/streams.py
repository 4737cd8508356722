"""Cases that run the library's own loops: molecular dynamics, and training batches of a whole QM9 epoch."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from equiform.benchmark.inputs import CUTOFF, Inputs, make_molecules, qm9_like_sizes
from equiform.benchmark.machine import Roofs, measure_roofs
from equiform.benchmark.measure import Timing, fresh_cache, memory_of
from equiform.benchmark.programs import Settings, new_potential, training_step, with_labels
from equiform.benchmark.rows import Row, make_row
from equiform.data.pipeline.batching import capacities, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.persist.parameters import num_parameters
from equiform.training.batches import BatchStream

MD_SECONDS = 6.0
TRAINING_SIZE = 110_000
"""Number of molecules in a QM9 epoch."""
POOL = 2000
"""Number of distinct molecules that replace QM9 if it is not available."""


def dynamics(name: str, inputs: Inputs, settings: Settings) -> Row:
    """Steps per second of `equiform.simulate.md.dynamics` in NVE, neighbour lists included, nothing written."""
    from ase import Atoms

    from equiform.deploy.predictor import Predictor
    from equiform.simulate.md.dynamics import MDConfig, run_md

    settings.say(f"md: {name}")
    graph = inputs.graph
    atoms = Atoms(numbers=np.asarray(graph.species), positions=np.asarray(graph.positions))
    potential = new_potential(name, tuple(sorted(set(atoms.numbers.tolist()))))
    predictor = Predictor(potential)

    def run(steps: int) -> dict[str, Any]:
        # The weights are random: the run must continue whatever the molecule does.
        unlimited = {"max_force": 1e9, "max_temperature": 1e12, "stop_when_apart": False}
        return run_md(predictor, atoms, MDConfig(temperature=300, timestep=0.25, steps=steps, **unlimited)).summary

    with fresh_cache():
        start = time.perf_counter()
        compilations = run(1)["compilations"]
        first = time.perf_counter() - start
        start = time.perf_counter()
        compilations += run(33)["compilations"]
        per_step = (time.perf_counter() - start) / 33
    before = measure_roofs()
    summary = run(int(np.clip(MD_SECONDS / per_step, 64, 20_000)))
    after = measure_roofs()
    rate = summary["steps_per_second"]
    timing = Timing(first, None, (1 / rate,), None, compilations + summary["compilations"], _between(before, after))
    sizes = (len(atoms), len(graph.senders))
    note = f"{name}, {rate:,.0f} steps/s, {summary['neighbor_list_rebuilds']} neighbour lists in {summary['steps']:,} steps"
    model = potential.model
    return make_row("md", "energy + forces", timing, model.config, sizes, num_parameters(model), inputs.source, note)


def epoch(settings: Settings) -> Row:
    """Batches of QM9 through `BatchStream` into the training step; padding and capacities of the whole epoch."""
    batch_size = 32 if jax.default_backend() == "cpu" else 128
    dataset, source = qm9_dataset()
    settings.say(f"qm9-epoch: {len(dataset):,} molecules, {source}")
    potential = new_potential("qm9-l2-nonlinear", (1, 6, 7, 8, 9))
    step = training_step(potential, forces=False)
    state, weights = step.initial_state(), [term.weight for term in step.terms.values()]
    stream = BatchStream(dataset, batch_size=batch_size)
    plan = stream.plan(0)
    count = max(settings.repeats, 3)
    with fresh_cache(), stream:
        start = time.perf_counter()
        state, loss = step(state, next(stream), 1e-4, weights)
        jax.block_until_ready(loss)
        first = time.perf_counter() - start
        before = measure_roofs()
        seconds, molecules, num_atoms, num_edges, compiling = [], 0, 0, 0, step.compile_seconds
        for _ in range(count):
            start = time.perf_counter()
            batch = next(stream)
            state, loss = step(state, batch, 1e-4, weights)
            jax.block_until_ready(loss)
            # A new capacity is compiled once per run, not once per step.
            seconds.append(time.perf_counter() - start - (step.compile_seconds - compiling))
            compiling = step.compile_seconds
            molecules += len(batch.indices)
            num_atoms += batch.num_atoms
            num_edges += int(np.asarray(dataset.num_edges)[batch.indices].sum())
        after = measure_roofs()
    memory = max((memory_of(program) or 0 for program in step._compiled.values()), default=0) or None
    timing = Timing(first, None, tuple(seconds), memory, step.compilations, _between(before, after))
    sizes = (round(num_atoms / count), round(num_edges / count))
    note = f"{molecules / sum(seconds):,.1f} molecules/s in batches of {batch_size}; epoch of {len(dataset):,}: "
    note += f"{len(plan):,} batches, {100 * waste(plan):.1f} % padding, {len(capacities(plan))} capacities"
    model = potential.model
    return make_row("qm9-epoch", "energy step", timing, model.config, sizes, num_parameters(model), source, note)


def qm9_dataset() -> tuple[Dataset, str]:
    """The training set of QM9 if its store is prepared on this machine, else molecules of similar sizes; and the source."""
    from equiform.data.sets.catalogue import cache_folder
    from equiform.data.store.files import Store
    from equiform.data.store.graphs import StoredGraphs
    from equiform.data.store.neighborhood import Neighborhood

    stores: list[Path] = sorted(
        (cache_folder() / "stores").glob("qm9-[0-9a-f]*/store.json"), key=lambda path: path.stat().st_mtime
    )
    if stores:
        store = Store(stores[-1].parent)
        count = min(TRAINING_SIZE, len(store))
        rows = np.sort(np.random.default_rng(1).permutation(len(store))[:count])
        edges = store.edges(Neighborhood(CUTOFF))
        return Dataset(StoredGraphs(store, rows, edges, graph_labels={"energy": np.zeros(count)}), CUTOFF), "QM9"
    pool = [with_labels(graph) for graph in make_molecules(qm9_like_sizes(POOL).tolist())]
    chosen = np.random.default_rng(1).integers(POOL, size=TRAINING_SIZE)
    return Dataset([pool[k] for k in chosen], CUTOFF), "generated, sizes as in QM9"


def _between(before: Roofs, after: Roofs) -> Roofs:
    return Roofs(*(0.5 * (a + b) for a, b in zip(before, after)))
