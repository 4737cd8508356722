"""Plots of simulated particles, drawn where the data are simulations."""

from types import SimpleNamespace

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.data.sets.nbody import Trajectories
from equiform.data.sets.nbody_samples import NBodySamples
from equiform.report import run_report, trajectories as plots
from equiform.training.evaluate import Evaluation, Values


def samples():
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(4, 3, 2, 3)), axis=1)
    return NBodySamples(Trajectories(x, x, np.ones((4, 2))), {"start": 0, "horizon": 2})


def test_predictions_are_drawn_with_their_own_simulation(tmp_path, monkeypatch):
    """Evaluation gives rows in the order of batches."""
    source = samples()
    true = np.stack([source.path(k)[-1] - source.path(k)[0] for k in range(4)])
    order = np.array([2, 0, 3, 1])
    values = Values(true[order].reshape(-1, 3), true[order].reshape(-1, 3), np.repeat(order, 2))
    drawn = {}
    monkeypatch.setattr(plots, "trajectories", lambda path, of, predicted: drawn.update(of=of, predicted=predicted) or path)
    data = SimpleNamespace(tests={"test": Dataset(source, 5.0)})
    assert run_report._trajectories(data, {"test": Evaluation({}, {"displacement": values})}, tmp_path / "a.png") is not None
    np.testing.assert_array_equal(drawn["predicted"], true)
    assert run_report._trajectories(SimpleNamespace(tests={"test": Dataset([], 5.0)}), {"test": None}, tmp_path) is None


def test_the_picture_is_written(tmp_path):
    path = plots.trajectories(tmp_path / "ways.png", samples(), np.zeros((4, 2, 3)))
    assert path.read_bytes()[:4] == b"\x89PNG"
