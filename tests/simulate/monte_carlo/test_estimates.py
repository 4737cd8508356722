"""Errors of correlated chains, on processes whose answers are known in closed form."""

import numpy as np
import pytest

from equiform.simulate.monte_carlo import estimates


def autoregressive(correlation: float, chains: int, steps: int, seed: int = 0) -> np.ndarray:
    """x_t = ρ x_{t−1} + √(1 − ρ²) noise: unit variance, τ = (1 + ρ) / (1 − ρ)."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - correlation**2) * rng.normal(size=(chains, steps))
    series = np.empty((chains, steps))
    series[:, 0] = rng.normal(size=chains)
    for t in range(1, steps):
        series[:, t] = correlation * series[:, t - 1] + noise[:, t]
    return series


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregressive_process(correlation):
    found = estimates.autocorrelation_time(autoregressive(correlation, 8, 20_000))
    assert abs(found / ((1 + correlation) / (1 - correlation)) - 1) < 0.1


def test_blocking_gives_the_error_of_correlated_samples():
    """√(τ / n), three times larger than the naive error for τ = 9."""
    found = estimates.mean(autoregressive(0.8, 10, 10_000))
    assert abs(found.value) < 4 * found.error
    assert abs(found.error / np.sqrt(9 / 100_000) - 1) < 0.15


def test_blocks_that_are_too_short_underestimate():
    """Why their number follows from the autocorrelation time."""
    series = autoregressive(0.95, 4, 2000)
    assert estimates.long_blocks(series) < 20
    assert estimates.mean(series, blocks=1000).error < 0.4 * np.sqrt(39 / 8000)


def test_jackknife_of_a_ratio():
    """⟨x²⟩ / ⟨x⟩ of independent samples, by propagation of errors."""
    x = 5 + np.random.default_rng(1).normal(size=(2, 20_000))
    found = estimates.jackknife(lambda a, b: float(b.mean() / a.mean()), x, x**2, blocks=100)
    ratio = (x**2).mean() / x.mean()
    propagated = np.std((x**2 - ratio * x) / x.mean()) / np.sqrt(x.size)
    assert abs(found.value - ratio) < 1e-12 and abs(found.error / propagated - 1) < 0.2


def test_r_hat_sees_chains_that_disagree():
    series = autoregressive(0.5, 4, 2000)
    assert estimates.split_r_hat(series) < 1.01
    series[0] += 1
    assert estimates.split_r_hat(series) > 1.05


def test_binomial_error():
    found = estimates.acceptance(np.array([[1.0, 0, 0, 0], [1.0, 1, 0, 0]]))
    assert found == (0.375, np.sqrt(0.375 * 0.625 / 8))


def test_reweighting_of_equal_weights_loses_nothing():
    assert estimates.effective_fraction(np.full(10, -1e3)) == pytest.approx(1)
    assert estimates.effective_fraction(np.array([0.0, -1e3, -1e3, -1e3])) == pytest.approx(0.25)


def test_a_chain_that_never_moved_has_no_autocorrelation_time():
    still = np.ones((2, 50))
    assert np.isnan(estimates.autocorrelation_time(still)) and np.isnan(estimates.split_r_hat(still))
    assert estimates.mean(still).error == 0
