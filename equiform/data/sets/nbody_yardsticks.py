"""What rules without learning score on gravity samples: mean and median squared error, the scale of a model's errors.

The target is the map of 100 Euler steps, not converged physics, and means are ruled by a few close encounters.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from equiform.data.sets import nbody
from equiform.data.sets.nbody_samples import NBodySamples

Positions = Float[np.ndarray, "simulations bodies 3"]


def yardsticks(samples: NBodySamples) -> dict[str, tuple[float, float]]:
    """Mean and median over simulations of the mean squared error of the final position, by rule.

    Args:
        samples: Gravity samples.

    Returns:
        "x"; "x + t v", t the time to the target; "star only", the generator's integrator with the star's gravity alone;
        "same integrator", from the stored single-precision inputs: what no model of these inputs can be expected to beat.
    """
    rows = np.arange(len(samples))
    starts = np.array([samples.start(int(k)) for k in rows], np.int64)
    x, v = (array[rows, starts].astype(float) for array in samples.trajectories[:2])
    truth = samples.trajectories.positions[rows, starts + samples.horizon].astype(float)
    masses = samples.trajectories.charges.astype(float)
    steps = samples.horizon * int(samples.metadata["steps_per_frame"])
    star_alone = np.where(masses == masses.max(axis=1, keepdims=True), masses, 0)
    time = steps * nbody.TIME_STEP
    rules: dict[str, Callable[[], Positions]] = {
        "x": lambda: x,
        f"x + {time:g} v": lambda: x + time * v,
        "star only": lambda: _integrated(nbody.State(x, v, star_alone), steps),
        "same integrator": lambda: _integrated(nbody.State(x, v, masses), steps),
    }
    errors = {name: ((rule() - truth) ** 2).mean(axis=(1, 2)) for name, rule in rules.items()}
    return {name: (float(each.mean()), float(np.median(each))) for name, each in errors.items()}


def yardstick_lines(name: str, samples: NBodySamples) -> list[str]:
    """The yardsticks of a set as text."""
    found = ", ".join(f"{rule} {mean:.2g} (median {median:.2g})" for rule, (mean, median) in yardsticks(samples).items())
    return [f"mean squared error on {name}: {found}"]


def _integrated(state: nbody.State, steps: int) -> Positions:
    """Positions after steps of the generator."""
    parts = nbody.simulate(state, nbody.gravity_coupling(state.charges), frames=range(1, 2), steps_per_frame=steps)
    return np.concatenate([part.positions[:, 0] for part in parts])
