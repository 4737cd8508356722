"""Paths between recorded frames."""

import numpy as np

from equiform.data.sets.nbody import Trajectories
from equiform.data.sets.nbody_samples import NBodySamples
from equiform.report.animation import true_path


def moving(**metadata):
    """Frames of x(t) = 1 − 2 t + 3 t² − t³ in steps of 0.5, from t = −0.5 on, each body twice as far as the one before."""
    t = (0.5 * np.arange(4) - 0.5)[None, :, None, None]
    far = np.array([1.0, 2.0])[:, None] * np.array([1.0, 0.0, -1.0])
    x, v = (1 - 2 * t + 3 * t**2 - t**3) * far, (-2 + 6 * t - 3 * t**2) * far
    return NBodySamples(Trajectories(x, v, np.ones((1, 2))), {"start": 1, "horizon": 2} | metadata), far


def test_between_frames_a_cubic_motion_is_followed_exactly():
    samples, far = moving(time_step=0.1, steps_per_frame=5, kind="charged")
    t = np.linspace(0, 1, 9)[:, None, None]
    np.testing.assert_allclose(true_path(samples, 0, 9), (1 - 2 * t + 3 * t**2 - t**3) * far, rtol=0, atol=1e-12)


def test_between_walls_and_without_a_time_lines_are_straight():
    for metadata in ({"time_step": 0.1, "steps_per_frame": 5, "kind": "walls"}, {}):
        samples, _ = moving(**metadata)
        x = samples.path(0)
        found = true_path(samples, 0, 5)
        np.testing.assert_allclose(found[::2], x, atol=1e-12)
        np.testing.assert_allclose(found[1], (x[0] + x[1]) / 2, atol=1e-12)
