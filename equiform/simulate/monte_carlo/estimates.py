"""Averages of correlated chains with their errors: blocking, autocorrelation times, agreement of chains.

A series is an array (chains, steps) of one observable, its burn-in already removed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

BLOCKS = 20
"""Maximum number of blocks per chain."""


class Estimate(NamedTuple):
    """An average and its standard error."""

    value: float
    error: float


def blocked(series: Float[np.ndarray, "chains steps"], blocks: int = BLOCKS) -> Float[np.ndarray, "blocks length"]:
    """Cut each chain into blocks of equal length; what is left over at the beginning is dropped.

    Args:
        series: Chains.
        blocks: Number of blocks per chain; fewer if chains are shorter.
    """
    chains, steps = series.shape
    blocks = max(min(blocks, steps), 1)
    length = steps // blocks
    return series[:, steps - blocks * length :].reshape(chains * blocks, length)


def long_blocks(series: Float[np.ndarray, "chains steps"]) -> int:
    """Number of blocks per chain that makes each ten autocorrelation times long; at least 1, or 2 of a single chain."""
    chains, steps = series.shape
    time = autocorrelation_time(series)
    count = BLOCKS if np.isnan(time) else int(min(BLOCKS, steps / (10 * time)))
    return max(count, 1 if chains > 1 else 2)


def mean(series: Float[np.ndarray, "chains steps"], blocks: int | None = None) -> Estimate:
    """The average, its error from the spread of blocks.

    Args:
        series: Chains.
        blocks: Number of blocks per chain; None: `long_blocks`.
    """
    return jackknife(lambda blocks_left: float(blocks_left.mean()), series, blocks=blocks)


def jackknife(
    function: Callable[..., float], *series: Float[np.ndarray, "chains steps"], blocks: int | None = None
) -> Estimate:
    """A function of averages, such as a specific heat; its error by leaving one block out at a time.

    Args:
        function: Called with each series as an array (blocks, steps of a block).
        series: Chains of the observables that it needs.
        blocks: Number of blocks per chain; None: `long_blocks` of the first series.
    """
    blocks = long_blocks(series[0]) if blocks is None else blocks
    cut = [blocked(one, blocks) for one in series]
    count = len(cut[0])
    if count < 2:
        return Estimate(function(*cut), float("nan"))
    without = np.array([function(*(np.delete(one, index, axis=0) for one in cut)) for index in range(count)])
    return Estimate(function(*cut), float(np.sqrt((count - 1) * np.mean((without - without.mean()) ** 2))))


def autocorrelation_time(series: Float[np.ndarray, "chains steps"], window: float = 5.0) -> float:
    """τ = 1 + 2 Σ_t ρ(t) in steps: a chain of n steps is worth n / τ independent ones.

    The sum ends at the first t ≥ `window` · τ (Madras and Sokal). Chains are taken relative to their common mean. NaN for an
    observable that never changed.

    Args:
        series: Chains.
        window: Length of the sum in units of τ.
    """
    steps = series.shape[1]
    centred = series - series.mean()
    power = np.abs(np.fft.rfft(centred, 2 * steps, axis=1)) ** 2
    covariance = np.fft.irfft(power, axis=1)[:, :steps].mean(axis=0) / (steps - np.arange(steps))
    if covariance[0] <= 0:
        return float("nan")
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    long_enough = np.arange(steps) >= window * times
    return float(max(times[np.argmax(long_enough) if long_enough.any() else -1], 1.0))


def split_r_hat(series: Float[np.ndarray, "chains steps"]) -> float:
    """R̂ of half chains: near 1 if all agree; above about 1.05 they have not mixed.

    Source: Gelman et al., Bayesian Data Analysis, 3rd edition, section 11.4.
    """
    halves = blocked(series, 2)
    length = halves.shape[1]
    if length < 2:
        return float("nan")
    within = halves.var(axis=1, ddof=1).mean()
    between = length * halves.mean(axis=1).var(ddof=1)
    return float(np.sqrt(((length - 1) * within + between) / (length * within))) if within > 0 else float("nan")


def acceptance(accepted: Float[np.ndarray, "chains steps"]) -> Estimate:
    """Fraction of accepted proposals and its binomial error, √(p (1 − p) / n)."""
    fraction = float(accepted.mean())
    return Estimate(fraction, float(np.sqrt(fraction * (1 - fraction) / accepted.size)))


def effective_fraction(log_weights: Float[np.ndarray, " samples"]) -> float:
    """(Σ w)² / (n Σ w²): what is left of n independent samples when they are reweighted.

    Args:
        log_weights: Up to a constant.
    """
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (len(weights) * np.sum(weights**2)))
