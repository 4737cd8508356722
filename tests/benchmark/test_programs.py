"""What must not grow unnoticed, as counts: operations of the compiled programs, compilations, padding."""

import numpy as np
import pytest

from equiform.benchmark.inputs import CUTOFF, make_molecules, qm9_like_sizes, silicon
from equiform.benchmark.lowered import Counts, count_operations
from equiform.benchmark.programs import lowered_evaluation, lowered_step, new_potential, with_labels
from equiform.data.pipeline.batching import capacities, plan_epoch, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.graph import batch
from equiform.tasks.energy import Potential
from equiform.training.batches import BatchStream
from equiform.training.config import EnergyLoss, ForcesLoss, TrainingConfig
from equiform.training.step import TrainingStep
from tests.toy import ToyConfig, ToyModel


@pytest.fixture(scope="module")
def lowered():
    """The energy + force training step of the preset `tiny`, as it goes to the compiler."""
    return lowered_step(new_potential("tiny", (1, 6, 7, 8)), batch(make_molecules([9] * 8)), forces=True)


def above(counts: Counts, most: dict[str, int]) -> dict[str, int]:
    """The counts that exceed their limits."""
    found = counts.operations | {"loop copies": counts.loop_copies, "crowded": counts.crowded, "all": counts.total}
    found["scatter in any order"] = counts.unordered
    return {name: found[name] for name, limit in most.items() if found[name] > limit}


# The present counts, with 1 % of slack where compilers merge operations; one more operation in every layer exceeds it.


def test_training_step_stays_small_before_compilation(lowered):
    most = {"scatter": 68, "scatter in any order": 19, "crowded": 0, "pad": 11, "loop copies": 232}
    most |= {"dot_general": 590, "reduce": 775, "gather": 114, "concatenate": 337, "slice": 1512, "all": 20_080}
    assert above(count_operations(lowered), most) == {}


def test_stress_of_a_crystal_stays_small_before_compilation():
    potential = new_potential("tiny", (14,))
    counts = count_operations(lowered_evaluation(potential, silicon(64).graph, forces=True, stress=True))
    most = {"scatter": 25, "scatter in any order": 7, "crowded": 0, "pad": 2, "loop copies": 80}
    most |= {"dot_general": 159, "reduce": 252, "gather": 41, "concatenate": 107, "slice": 545, "all": 6_060}
    assert above(counts, most) == {}


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
