"""Batches that suit the time, before anything is compiled."""

import jax
import numpy as np
import pytest

from equiform.data.pipeline.batching import plan_epoch
from equiform.data.pipeline.dataset import Dataset
from equiform.runtime import speeds
from equiform.runtime.speeds import Pace
from equiform.training.budget import Estimate, estimate, plan
from equiform.training.config import ForcesLoss, TrainingConfig
from equiform.training.duration import Duration, corrected
from tests.training.toys import learner


def sizes(num_atoms: np.ndarray, num_edges: np.ndarray) -> Dataset:
    """A data set of which only the sizes are looked at."""
    data = Dataset([], 5.0)
    data.__dict__.update(num_atoms=num_atoms, num_edges=num_edges)
    return data


def expected(compile_seconds: float = 40.0, per_edge: float = 75e-6) -> Estimate:
    pace = Pace(compile_seconds, per_edge)
    return Estimate("program", pace, pace, 86_000)


def water() -> Dataset:
    return sizes(np.full(500, 192), np.random.default_rng(0).normal(10_100, 50, 500).astype(int))


def test_large_structures_are_batched_by_their_edges_not_their_number() -> None:
    found = plan(expected(), TrainingConfig(max_minutes=3), water(), None, None, free=True)
    batches = plan_epoch(water().num_atoms, water().num_edges, batch_size=16, edge_budget=found.batching.edges)
    assert max(len(batch.indices) for batch in batches) == 1
    assert found.epochs == pytest.approx(180 / (500 * 10_300 * 75e-6), rel=0.05)


def test_small_molecules_and_given_batches_stay_as_they_are() -> None:
    ethanol = sizes(np.full(600, 9), np.full(600, 72))
    found = plan(expected(), TrainingConfig(max_minutes=3), ethanol, None, None, free=True)
    assert found.batching.edges is not None and found.batching.edges > 16 * 72
    given = plan(expected(), TrainingConfig(max_minutes=3, batch_size=16), water(), None, None, free=False)
    assert given.batching.edges is not None and given.batching.edges > 16 * 10_300
    assert plan(expected(), TrainingConfig(), water(), 25_000, 2, free=True).batching == (25_000, 2)


def test_a_short_run_compiles_one_capacity_and_a_long_one_may_compile_more() -> None:
    rng = np.random.default_rng(1)
    atoms = rng.choice([8, 40, 200], 400)
    mixed = sizes(atoms, 20 * atoms)
    short, long = (
        plan(expected(), TrainingConfig(max_minutes=minutes, batch_size=2), mixed, None, None, free=False).batching.groups
        for minutes in (1, 600)
    )
    assert short == 1 < long


def test_what_this_machine_has_shown_replaces_the_default(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "_path", lambda: tmp_path / "speeds.json")
    default = Pace(40.0, 1e-4)
    assert speeds.estimated("a", default) == default
    speeds.remember("a", default, {"compile_seconds": 80.0})
    assert speeds.estimated("a", default) == Pace(80.0, 1e-4)
    # Another program is expected to take twice its default as well.
    assert speeds.estimated("b", Pace(10.0, 1e-5)) == Pace(20.0, 1e-5)
    speeds.remember("a", default, {"compile_seconds": 40.0})
    assert speeds.estimated("a", default).compile_seconds == 60.0
    (tmp_path / "speeds.json").write_text("{damaged")
    assert speeds.estimated("a", default) == default


def test_forces_cost_more_than_energies_and_larger_models_more_than_small_ones() -> None:
    with_forces, energies = (
        estimate(learner(), TrainingConfig(), {name: ForcesLoss()}).pace.seconds_per_edge for name in ("forces", "energy")
    )
    larger = estimate(learner(width=64), TrainingConfig(), {"forces": ForcesLoss()}).pace.seconds_per_edge
    assert energies < with_forces < larger
    assert jax.default_backend() == "cpu"


def test_a_run_keeps_its_time_when_the_machine_becomes_slower_or_faster() -> None:
    planned, config = Duration(1000, 10, 10, 100.0), TrainingConfig()
    assert corrected(planned, config, 250, 25.5, 0.1) == planned
    assert corrected(planned, config, 250, 25.0, 0.2).total_steps == 250 + 75 / 0.2
    assert corrected(planned, config, 250, 25.0, 0.05).total_steps == 250 + 75 / 0.05
    assert corrected(planned, config, 250, 500.0, 2.0).total_steps == 251
    assert corrected(planned, TrainingConfig(epochs=100), 250, 25.0, 0.05).total_steps == 1000
    assert corrected(Duration(1000, 10, 10), config, 250, 500.0, 2.0).total_steps == 1000
