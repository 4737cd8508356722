"""What the main job decides by itself."""

import pytest

from equiform.jobs import train as job
from equiform.training.budget import GPU_CORES
from equiform.training.config import TrainingConfig
from equiform.training.recommended import recommended


@pytest.mark.parametrize(
    ("atoms", "edges", "minutes", "cores", "preset"),
    [
        (500, 4_000, 60, 2, "tiny"),  # few data
        (5_400, 43_000, 60, 2, "small"),  # 600 ethanols
        (1_800, 14_400, 10, 1, "small"),  # 200 ethanols
        (1_800, 14_400, 2, 1, "tiny"),  # too short
        (13_500, 256_000, 20, 2, "tiny"),  # too slow for more on two cores
        (13_500, 256_000, 60, GPU_CORES, "small"),
        (60_000, 1_000_000, 600, GPU_CORES, "medium"),
        (10**6, 2 * 10**7, 24 * 60, GPU_CORES, "large"),
        (10**6, 2 * 10**7, 0.1, 2, "tiny"),  # never nothing
    ],
)
def test_the_preset_grows_with_data_and_time(monkeypatch, atoms, edges, minutes, cores, preset):
    monkeypatch.setattr(job, "compute_cores", lambda: float(cores))
    assert job.auto_preset(edges, atoms, float(minutes), None) == preset


def test_fewer_epochs_allow_a_larger_preset(monkeypatch):
    monkeypatch.setattr(job, "compute_cores", lambda: 2.0)
    assert job.auto_preset(43_000, 40_000, 60.0, 100) == "medium"
    assert job.auto_preset(43_000, 40_000, 20.0, 100) == "small"
    assert job.auto_preset(43_000, 40_000, 20.0, 10) == "medium"


def test_recommended_settings_fill_only_what_the_recipe_leaves_open():
    assert recommended(TrainingConfig(), "tiny") == {
        "optimizer": "muon",
        "batch_size": 5,
        "learning_rate": 1e-2,
        "learning_rate_steps": 3_000,
        "beta1": 0.95,
        "ema": 0.99,
    }
    assert recommended(TrainingConfig(learning_rate=1e-3), "tiny").keys() == {"optimizer", "batch_size", "beta1", "ema"}
    given = TrainingConfig(batch_size=16, ema=None, beta1=0.8)
    assert recommended(given, "small") == {"optimizer": "muon", "learning_rate": 7e-3, "learning_rate_steps": 3_000}
    # Rates are those of the optimizer that is used.
    assert recommended(TrainingConfig(optimizer="adam"), "tiny")["learning_rate"] == 3e-3
    assert recommended(TrainingConfig(adapters=4), "tiny")["learning_rate"] == 3e-3
    assert recommended(TrainingConfig(), "md17-l2") == {}  # the published protocols have their own
    assert recommended(TrainingConfig(), None) == {}
