"""What must not grow unnoticed, as counts: operations of the compiled programs, compilations, padding."""

import re
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.benchmark.inputs import CUTOFF, make_molecules, qm9_like_sizes
from equiform.benchmark.programs import new_potential, training_step, with_labels
from equiform.data.pipeline.batching import capacities, plan_epoch, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.graph import batch, to_device
from equiform.tasks.energy import Potential
from equiform.training.batches import BatchStream
from equiform.training.config import EnergyLoss, ForcesLoss, TrainingConfig
from equiform.training.step import TrainingStep
from tests.toy import ToyConfig, ToyModel


@pytest.fixture(scope="module")
def lowered():
    """The energy + force training step of the preset `tiny`, as it goes to the compiler."""
    step = training_step(new_potential("tiny", (1, 6, 7, 8)), forces=True)
    graph = to_device(with_labels(batch(make_molecules([9] * 8))))
    numbers = jnp.ones(1 + len(step.terms), jnp.float32)
    return step.lowered(step.initial_state(), graph, numbers)


def test_training_step_stays_small_before_compilation(lowered):
    """A fifth above what there is: more operations take longer to compile, and mostly to run."""
    counts = Counter(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))
    most = {"dot_general": 400, "scatter": 145, "gather": 350, "while": 8, "dynamic_update_slice": 32}
    assert {name: counts[name] for name in most if counts[name] > most[name]} == {}
    assert counts.total() < 18_500


@pytest.mark.slow
def test_training_step_stays_small_after_compilation(lowered):
    """A fifth above what there is; on a processor, each fusion is a kernel of its own."""
    text = lowered.compile().as_text()
    counts = {name: text.count(f" {name}(") for name in ("fusion", "dot", "while", "custom-call")}
    most = {"fusion": 2480, "dot": 385, "while": 6, "custom-call": 0}
    assert {name: count for name, count in counts.items() if count > most[name]} == {}
    assert counts["dot"] > 0  # else the text is not what it was


@pytest.fixture(scope="module")
def qm9_like():
    """Molecules whose sizes are spread like those of QM9, with the edges that they have."""
    return Dataset([with_labels(graph) for graph in make_molecules(qm9_like_sizes(600).tolist())], CUTOFF)


@pytest.mark.parametrize("batch_size", [8, 32, 128])
def test_batches_of_qm9_are_full_and_of_one_capacity(qm9_like, batch_size):
    # The waste of a few batches is that of the last, incomplete one.
    sizes = [np.tile(sizes, 8) for sizes in (qm9_like.num_atoms, qm9_like.num_edges)]
    plans = [plan_epoch(*sizes, batch_size=batch_size, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 5)]
    assert max(map(waste, plans)) < 0.15
    assert len({capacity for plan in plans for capacity in capacities(plan)}) == 1


def test_one_compilation_serves_every_epoch(qm9_like):
    potential = Potential(ToyModel(ToyConfig(cutoff=CUTOFF, elements=(1, 6, 7, 8))))
    terms = {"energy": EnergyLoss(), "forces": ForcesLoss()}
    step = TrainingStep(potential, TrainingConfig(dtype="float64"), terms, say=lambda line: None)
    state = step.initial_state()
    with BatchStream(qm9_like, batch_size=64, dtype="float64") as stream:
        wanted = {size for epoch in (0, 1) for size in capacities(stream.plan(epoch))}
        for _ in range(2 * len(stream.plan(0))):
            state, _ = step(state, next(stream), 1e-4, [1.0, 10.0])
    assert step.compilations == len(wanted) == 1
