"""Every stored reference array; and the stored long chain against our own samplers."""

import numpy as np
import pytest

from benchmarks.slmc_parity import LIMIT, chain_errors, fit_errors, load, oracle_errors, transformer, transformer_errors
from equiform.simulate.monte_carlo import estimates
from equiform.simulate.monte_carlo.analysis import series, summarize
from equiform.simulate.monte_carlo.simulation import Simulation, SimulationConfig
from tests.simulate.monte_carlo.conftest import DIMER_AVERAGES, dimer_average


@pytest.fixture(scope="module")
def folder(parity_folder):
    """Skips where the references are not."""
    if not (parity_folder / "slmc").is_dir():
        pytest.skip("the references of self-learning Monte Carlo (shared/parity/slmc) are not beside this clone")
    return parity_folder / "slmc"


def test_every_oracle_is_reproduced(folder):
    stored = load(folder, "slmc_oracles")
    errors = oracle_errors(stored)
    assert {name: error for name, error in errors.items() if not error <= LIMIT} == {}
    arrays = {name.partition(",")[0] for name in errors} | {"conf", "conf4", "conf46", "W", "Jn", "E0"}  # the inputs
    assert set(stored) - arrays == {f"dimer_T{temperature}" for temperature in DIMER_AVERAGES}
    for temperature, exact in DIMER_AVERAGES.items():
        assert abs(stored[f"dimer_T{temperature}"] - dimer_average(temperature)) < 1e-12
        assert abs(stored[f"dimer_T{temperature}"] - exact) < 1e-8


def test_a_wrong_weight_is_seen(folder):
    stored = load(folder, "slmc_oracles")
    stored["W"] = stored["W"] + 1e-6
    assert transformer_errors(stored)["Heff_L"] > LIMIT


def test_stored_chain_has_our_free_energies_and_observables(folder):
    errors = chain_errors(load(folder, "slmc_chain_T0.05"))
    assert errors["F"] <= LIMIT
    assert errors["trace_F_m_ms_E (float32)"] < 1e-7  # 60 in single precision


@pytest.mark.slow
def test_stored_fits_are_reproduced(folder):
    """A random 720 of 900 configurations was fitted: couplings agree to some percent, MSE of both parts together to one."""
    errors = fit_errors(load(folder, "slmc_fits"), load(folder, "slmc_chain_T0.05"))
    assert all(error < 0.06 for name, error in errors.items() if name.startswith("lin"))
    assert all(error < 0.02 for name, error in errors.items() if "mse" in name)


LOCAL = {
    0.05: {
        "accepted": (0.476, 0.003),
        "magnetization": (0.152, 0.003),
        "staggered": (0.534, 0.007),
        "energy": (-1.6959, 0.0006),
    },
    0.1: {
        "accepted": (0.837, 0.003),
        "magnetization": (0.166, 0.002),
        "staggered": (0.227, 0.005),
        "energy": (-1.6625, 0.0003),
    },
}
"""Spec, section 4: independent runs of 3000 and 2000 sweeps, with their errors."""


@pytest.mark.slow
@pytest.mark.parametrize("temperature", LOCAL)
def test_local_averages_are_the_published_ones(temperature):
    config = SimulationConfig(temperature=temperature, num_chains=8)
    simulation = Simulation(config)
    simulation.run(300)
    summary = summarize(config, simulation.trace, 0.15)
    found = {name: getattr(summary, name) for name in ("magnetization", "staggered", "energy")}
    found["accepted"] = estimates.mean(series(simulation.trace, "accepted", 0.15))
    for name, (value, error) in LOCAL[temperature].items():
        assert abs(found[name].value - value) < 3 * np.hypot(found[name].error, error), name


@pytest.mark.slow
def test_self_learning_averages_are_the_published_ones(folder):
    """With the stored transformer of three layers."""
    fits = load(folder, "slmc_fits")
    model = transformer(*(fits[f"L3.{name}"] for name in ("W", "J", "E0")))
    config = SimulationConfig(temperature=0.05, num_chains=16, effective_sweeps=5)
    starts = load(folder, "slmc_chain_T0.05")["S"][::56][:16]
    simulation = Simulation(config, model, spins=starts)
    simulation.run(200)
    summary = summarize(config, simulation.trace, 0.1)
    for name in ("magnetization", "staggered", "energy"):
        value, error = LOCAL[0.05][name]
        assert abs(getattr(summary, name).value - value) < 3 * np.hypot(getattr(summary, name).error, error), name
    assert 0.4 < summary.acceptance.value < 0.75
