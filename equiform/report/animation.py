"""Animation of simulated particles: true paths and predicted end points."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from equiform.data.sets.nbody_samples import NBodySamples
from equiform.report.plots import COLOURS, _figure, _label
from equiform.report.trajectories import PANELS, mean_squared_errors, plane_of, spread_over
from equiform.runtime.files import explained

MOVING = 40
"""Approximate number of pictures from the input to the target."""
STANDING = 1500
"""Time for which the prediction is shown, ms."""


def true_path(samples: NBodySamples, index: int, pictures: int) -> Float[np.ndarray, "pictures bodies 3"]:
    """Positions of a simulation from the input to the target frame, at equal time intervals.

    Between recorded frames the path is a cubic Hermite spline through the recorded positions and velocities. Between walls,
    where velocities flip, and where the time between frames is not recorded, it is piecewise linear.

    Args:
        samples: The simulations.
        index: Index of the simulation.
        pictures: Number of positions, both ends included.
    """
    first, frames = samples.start(index), samples.horizon
    x = samples.trajectories.positions[index, first : first + frames + 1].astype(float)
    v = samples.trajectories.velocities[index, first : first + frames + 1].astype(float)
    metadata = samples.metadata
    time = np.linspace(0, frames, pictures)
    k = np.minimum(time.astype(int), frames - 1)
    s = (time - k)[:, None, None]
    if metadata.get("kind") == "walls" or not {"time_step", "steps_per_frame"} <= set(metadata):
        return (1 - s) * x[k] + s * x[k + 1]
    interval = float(metadata["time_step"]) * float(metadata["steps_per_frame"])
    ends = (1 + 2 * s) * (1 - s) ** 2 * x[k] + s**2 * (3 - 2 * s) * x[k + 1]
    return ends + interval * s * (1 - s) * ((1 - s) * v[k] - s * v[k + 1])


def animate(
    path: Path,
    samples: NBodySamples,
    predicted: Float[np.ndarray, "samples bodies 3"],
    chosen: Sequence[int] | None = None,
    *,
    title: str = "",
    frames_per_second: int = 15,
) -> Path:
    """Write a GIF: particles move along their true paths, and at the target frame the prediction is shown next to the truth.

    Each simulation is projected onto the plane of its two largest principal axes.

    Args:
        path: GIF file to write.
        samples: The simulations.
        predicted: Predicted displacement of every particle of every simulation.
        chosen: Which simulations; None: spread over the quantiles of the error, the best first and the worst last.
        title: Title above the panels.
        frames_per_second: Frame rate.

    Returns:
        The path of the GIF file.

    Raises:
        UserError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    errors = mean_squared_errors(samples, predicted)
    chosen = list(spread_over(errors, PANELS) if chosen is None else chosen)
    per_frame = max(1, -(-MOVING // samples.horizon))
    pictures = per_frame * samples.horizon + 1  # every recorded frame is one of them
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = _figure(columns, title, height=3.6 * lines)
    figure.set_dpi(80)
    panels = []
    for panel, index in enumerate(chosen):
        axes = figure.add_subplot(lines, columns, panel + 1)
        panels.append(_Panel(axes, samples, index, predicted[index], pictures))
        _label(axes, f"simulation {index}: mean squared error {errors[index]:.2g}", "", "")
    about = figure.supxlabel("frame", fontsize=9, animated=True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # The static background is drawn once.
    background = canvas.copy_from_bbox(figure.bbox)  # pyright: ignore[reportAttributeAccessIssue]
    images = []
    for number in [*range(pictures), None]:
        canvas.restore_region(background)  # pyright: ignore[reportAttributeAccessIssue]
        for panel in panels:
            panel.draw(number)
        now = f"frame {samples.horizon}: dots are true, crosses predicted"
        about.set_text(now if number is None else f"frame {number / per_frame:.1f} of {samples.horizon}")
        figure.draw_artist(about)
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB"))
    durations = [1000 // frames_per_second] * pictures + [STANDING]
    with explained(f"cannot write {path}", "free some space or choose another place"):
        images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)
    return path


class _Panel:
    """One simulation in its axes."""

    def __init__(self, axes: Any, samples: NBodySamples, index: int, predicted: np.ndarray, pictures: int):
        track = true_path(samples, index, pictures)
        end = samples.path(index)[0].astype(float) + predicted
        plane = plane_of(np.concatenate([track.reshape(-1, 3), end]))
        self.track, end = track @ plane.T, end @ plane.T
        self.trails, self.dots, self.ends = [], [], []
        self.axes = axes
        for body, charge in enumerate(samples.trajectories.charges[index]):
            colour = COLOURS[0] if charge > 0 else COLOURS[1]
            axes.plot(*self.track[0, body], color=colour, marker="o", markersize=3, fillstyle="none", linestyle="none")
            moving = {"color": colour, "animated": True}
            self.trails += axes.plot([], [], linewidth=1.2, **moving)
            self.dots += axes.plot([], [], marker="o", markersize=6, linestyle="none", **moving)
            off = np.stack([self.track[-1, body], end[body]])
            self.ends += axes.plot(*off.T, color="0.4", linewidth=0.8, linestyle=":", animated=True)
            self.ends += axes.plot(*end[body], color="black", marker="x", markersize=7, linestyle="none", animated=True)
        everything = np.concatenate([self.track.reshape(-1, 2), end])
        middle, reach = (everything.max(axis=0) + everything.min(axis=0)) / 2, 0.55 * np.ptp(everything, axis=0).max() + 1e-9
        axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal")

    def draw(self, number: int | None) -> None:
        """Draw the true particles and their path up to picture `number`; None: the end of the path, with the prediction."""
        last = len(self.track) - 1 if number is None else number
        for body, (trail, dot) in enumerate(zip(self.trails, self.dots)):
            trail.set_data(*self.track[: last + 1, body].T)
            dot.set_data(*self.track[last : last + 1, body].T)
        for artist in [*self.trails, *self.dots, *(self.ends if number is None else ())]:
            self.axes.draw_artist(artist)
