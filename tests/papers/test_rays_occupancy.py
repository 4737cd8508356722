"""The study of occupancy: its metric and its threshold, on points whose answer is known."""

import numpy as np
import pytest

from equiform.data.sets.rays_scenes import make_sample
from equiform.models.ray_baselines import ViewMLP, ViewMLPConfig
from equiform.papers import rays_occupancy
from equiform.papers.rays_occupancy import example, measured, with_best_threshold
from equiform.tasks.occupancy import Occupancy
from tests.tasks.test_scenes import KEY


def examples(*inside):
    """Scenes of four points uniform in the cube and four near the surface."""
    scene = make_sample("test", 0, pixels=4, num_points=8)
    return [example(scene._replace(signed_distance=np.where(points, -1.0, 1.0))) for points in inside]


def test_intersection_over_union_is_of_the_uniform_points_and_accuracy_of_all():
    found = examples([1, 1, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0])
    said = [np.array([1, 0, 1, 0, 0, 0, 0, 0], bool), np.zeros(8, bool)]
    result = measured(lambda _, number: said[number], found)
    assert result["iou"] == pytest.approx(1 / 3) and result["accuracy"] == pytest.approx((2 / 8 + 1) / 2)


def test_the_threshold_is_the_one_with_the_best_intersection_on_uniform_points(monkeypatch):
    """Points near the surface, which would ask for a lower one, do not count."""
    out = np.array([0.95, 0.75, 0.65, -2, 0.3, 0.3, 0.3, 0.3])
    monkeypatch.setattr(rays_occupancy, "numbers", lambda task, rays: lambda found, number: out)
    task = Occupancy(ViewMLP(ViewMLPConfig(view_features=1), key=KEY))
    assert with_best_threshold(task, examples([1, 1, 0, 0, 1, 1, 1, 1]), 1).threshold == pytest.approx(0.7)
    assert with_best_threshold(task, examples([1, 1, 1, 0, 0, 0, 0, 0]), 1).threshold < 0.65
