"""Scaling laws from curves of loss over compute, with bootstrap intervals over training runs.

    frontier     L*(C) = least loss of any size for compute C;    power law  L*(C) = a C^−b
    parametric   L(N, D) = E + A N^−α + B D^−β;   with C ∝ N D, the best N grows as C^(β / (α + β))

A bootstrap sample draws runs with replacement and, for the error of the test set, a normal deviate for each tested loss.

Source: Kaplan et al. (arXiv:2001.08361), Hoffmann et al. (arXiv:2203.15556).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from scipy.optimize import least_squares

Numbers = Float[np.ndarray, " points"]
FRAMES = 12
"""Frames of a trajectory that are inputs; there is one more."""
SAMPLES = 400
_GRID = 40


class ScalingPoint(BaseModel):
    """Loss of a model during training.

    Attributes:
        model: Which model.
        size: Width and number of blocks.
        trajectories: Training trajectories.
        limited: Whether they are fewer than the study has.
        seed: Seed of weights and order.
        parameters: Number of parameters.
        step: Steps done.
        frames: Frames seen, repetitions counted.
        flops: Nominal floating-point operations spent.
        loss: Squared error of test frames in units of uniform motion's.
        standard_error: Of the loss, from the spread of test trajectories.
        rotated: The loss after a random rotation of every test frame.
        train: Mean loss of the last training steps.
        seconds: Processor time spent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    size: tuple[int, int]
    trajectories: int
    limited: bool
    seed: int
    parameters: int
    step: int
    frames: int
    flops: float
    loss: float
    standard_error: float
    rotated: float
    train: float
    seconds: float


class Curve(NamedTuple):
    """A run on fresh data.

    Attributes:
        parameters: Number of parameters.
        frames: Frames seen.
        cost: Compute, in any unit.
        loss: Test losses.
        error: Their standard errors.
    """

    parameters: int
    frames: Numbers
    cost: Numbers
    loss: Numbers
    error: Numbers


class Interval(NamedTuple):
    """An estimate, and the middle 95 % of its bootstrap samples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def curves(points: Sequence[ScalingPoint], model: str, cost: str = "flops") -> list[Curve]:
    """The runs of a model on fresh data.

    Args:
        points: All results.
        model: Which model.
        cost: "flops" or "seconds".
    """
    groups: dict[tuple, list[ScalingPoint]] = {}
    for point in points:
        if point.model == model and not point.limited:
            groups.setdefault((point.size, point.seed), []).append(point)
    found = []
    for group in groups.values():
        group = sorted(group, key=lambda point: point.step)
        columns = [[getattr(point, name) for point in group] for name in ("frames", cost, "loss", "standard_error")]
        found.append(Curve(group[0].parameters, *(np.array(column, float) for column in columns)))
    return found


def common_costs(models: Sequence[Sequence[Curve]]) -> Numbers:
    """Costs that every model's runs reach, evenly spaced in the logarithm; empty if there are none."""
    low = max(min(curve.cost[0] for curve in runs) for runs in models)
    high = min(max(curve.cost[-1] for curve in runs) for runs in models)
    return np.geomspace(low, high, _GRID) if high > low else np.zeros(0)


def frontier(runs: Sequence[Curve], costs: Numbers) -> Numbers:
    """The least loss of any run at each cost or below, interpolated in logarithms; NaN below the first test of all runs."""
    grid, best = np.log(costs), np.full(len(costs), np.inf)
    for run in runs:
        x = np.log(run.cost)
        begun = grid >= x[0] - 1e-9  # after its end a run keeps its last loss
        best = np.where(begun, np.minimum(best, np.exp(np.interp(grid, x, np.log(run.loss)))), best)
    best = np.minimum.accumulate(best)
    return np.where(np.isfinite(best), best, np.nan)


def power_law(costs: Numbers, losses: Numbers) -> tuple[float, float, float]:
    """Factor and exponent of a C^−b, and the fraction of the variance of log L that it explains."""
    known = np.isfinite(losses)
    if known.sum() < 2:
        return np.nan, np.nan, np.nan
    x, y = np.log(costs[known]), np.log(losses[known])
    slope, offset = np.polyfit(x, y, 1)
    left = y - slope * x - offset
    return float(np.exp(offset)), float(-slope), float(1 - left.var() / y.var()) if y.var() else np.nan


def loss_of_size_and_frames(runs: Sequence[Curve]) -> Float[np.ndarray, "5"]:
    """E, A, α, B, β of the parametric law, by robust least squares in log L from several starts.

    N and D count in units of their geometric means.
    """
    n = np.concatenate([np.full(len(run.frames), run.parameters) for run in runs])
    d = np.concatenate([run.frames for run in runs])
    y = np.log(np.concatenate([run.loss for run in runs]))
    n, d = n / np.exp(np.log(n).mean()), d / np.exp(np.log(d).mean())

    def residuals(p: np.ndarray) -> np.ndarray:
        return np.log(np.exp(p[0]) + np.exp(p[1]) * n ** -p[2] + np.exp(p[3]) * d ** -p[4]) - y

    middle = y.mean()
    bounds = ([middle - 12, middle - 12, 0, middle - 12, 0], [middle + 3, middle + 5, 3, middle + 5, 3])
    starts = [(middle - e, middle - 1, a, middle - 1, b) for e in (1, 4) for a in (0.2, 0.8) for b in (0.2, 0.8)]
    fits = [least_squares(residuals, start, bounds=bounds, loss="soft_l1", f_scale=0.05) for start in starts]
    best = min(fits, key=lambda fit: fit.cost).x
    return np.array([np.exp(best[0]), np.exp(best[1]), best[2], np.exp(best[3]), best[4]])


def size_exponent(runs: Sequence[Curve]) -> float:
    """Exponent of compute in the best number of parameters; NaN for fewer than two sizes."""
    if len({run.parameters for run in runs}) < 2:
        return np.nan
    _, _, alpha, _, beta = loss_of_size_and_frames(runs)
    return float(beta / (alpha + beta)) if alpha + beta > 0 else np.nan


def bootstrap(
    groups: Sequence[Sequence[Curve]], estimate: Callable[[Sequence[Sequence[Curve]]], np.ndarray], samples: int = SAMPLES
) -> Float[np.ndarray, "samples ..."]:
    """Estimates from resampled runs; the same draw of runs never serves two groups.

    Args:
        groups: Runs of each model.
        estimate: A number or an array, from runs of each model.
        samples: How many.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(samples):
        drawn = []
        for runs in groups:
            chosen = [runs[i] for i in rng.integers(len(runs), size=len(runs))]
            drawn.append([run._replace(loss=_shaken(run, rng)) for run in chosen])
        found.append(estimate(drawn))
    return np.array(found)


def interval(value: float, samples: Float[np.ndarray, " samples"]) -> Interval:
    """The middle 95 % of the samples that are numbers."""
    known = samples[np.isfinite(samples)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def _shaken(run: Curve, rng: np.random.Generator) -> Numbers:
    # One deviate for the whole run: its losses are of the same test frames.
    return run.loss * np.exp(run.error / run.loss * rng.normal())
