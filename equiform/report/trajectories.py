"""Trajectories of simulated particles: true paths, true and predicted end points."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from equiform.data.sets.nbody_samples import NBodySamples
from equiform.report.plots import COLOURS, _figure, _label, _save
from equiform.training.evaluate import Evaluation

Vectors = dict[str, Float[np.ndarray, "simulations bodies 3"]]
"""Predictions by name."""

PANELS = 6
"""Number of simulations in one figure."""


def by_simulation(evaluation: Evaluation, samples: NBodySamples) -> Vectors:
    """Predicted vectors in the order of the simulations; an evaluation has them in the order of its batches."""
    return {
        name: values.predicted[np.argsort(values.structure, kind="stable")].reshape(len(samples), -1, 3)
        for name, values in evaluation.values.items()
    }


def mean_squared_errors(
    samples: NBodySamples, predicted: Float[np.ndarray, "samples bodies 3"]
) -> Float[np.ndarray, "samples"]:
    """Mean squared error of the predicted displacements, per simulation."""
    true = np.stack([samples.path(k)[-1] - samples.path(k)[0] for k in range(len(samples))])
    return ((predicted - true) ** 2).mean(axis=(1, 2))


def spread_over(errors: Float[np.ndarray, "samples"], count: int) -> list[int]:
    """Simulations spread over the quantiles of the error, the best first and the worst last."""
    order = np.argsort(errors)
    return [int(k) for k in order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]]


def plane_of(cloud: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "2 3"]:
    """The two principal axes along which the points spread most."""
    return np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[2][:2]


def trajectories(
    path: Path,
    samples: NBodySamples,
    predicted: Float[np.ndarray, "samples bodies 3"],
    chosen: Sequence[int] | None = None,
    *,
    title: str = "",
) -> Path:
    """Draw some simulations, each projected onto the plane in which its particles spread most.

    Args:
        path: PNG file to write.
        samples: The simulations.
        predicted: Predicted displacement of every particle of every simulation.
        chosen: Which simulations; None: spread over the quantiles of the error, the best first and the worst last.
        title: Title above the panels.

    Returns:
        The path of the PNG file.
    """
    error = mean_squared_errors(samples, predicted)
    chosen = spread_over(error, PANELS) if chosen is None else chosen
    lines = -(-len(chosen) // 3)
    figure = _figure(3, title, height=3.4 * lines)
    for panel, index in enumerate(chosen):
        axes = figure.add_subplot(lines, 3, panel + 1)
        steps = samples.path(index).astype(float)  # frames bodies 3
        end = steps[0] + predicted[index]
        plane = plane_of(np.concatenate([steps.reshape(-1, 3), end]))
        for body, charge in enumerate(samples.trajectories.charges[index]):
            colour = COLOURS[0] if charge > 0 else COLOURS[1]
            track, predicted_end = steps[:, body] @ plane.T, end[body] @ plane.T
            axes.plot(*track.T, color=colour, linewidth=1.2, zorder=1)
            axes.plot(*track[0], color=colour, marker=".", markersize=4, zorder=2)
            axes.plot(*track[-1], color=colour, marker="o", markersize=7, fillstyle="none", linestyle="none", zorder=2)
            axes.plot(*predicted_end, color=colour, marker="x", markersize=6, linestyle="none", zorder=3)
        axes.set_aspect("equal", adjustable="datalim")
        _label(axes, f"simulation {index}: mean squared error {error[index]:.2g}", "", "")
    return _save(figure, path)
