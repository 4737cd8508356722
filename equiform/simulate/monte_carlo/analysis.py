"""Analysis of a run: averages with errors, specific heat, structure factor, autocorrelation times, agreement of its chains."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from equiform.errors import UserError
from equiform.lattice import SquareLattice
from equiform.simulate.monte_carlo import estimates
from equiform.simulate.monte_carlo.estimates import Estimate
from equiform.simulate.monte_carlo.observables import correlation_by_distance, structure_factor
from equiform.simulate.monte_carlo.simulation import TRACED, SimulationConfig, Trace


class Summary(NamedTuple):
    """Averages of a run after its burn-in.

    Attributes:
        temperature: T.
        chemical_potential: μ.
        steps: Steps that were averaged, per chain.
        acceptance: Fraction of accepted proposals; the error is binomial.
        energy: Σ E_n f(E_n) per site.
        specific_heat: ∂⟨E − μn⟩/∂T per site at fixed μ, from the fluctuation of E − μn and its own dependence on T.
        density: Electrons per site.
        magnetization: ⟨|m|⟩.
        staggered: ⟨|m_s|⟩.
        free_energy_spread: Standard deviation of F/T.
        times: Autocorrelation times τ = 1 + 2Σρ in steps, of F, |m| and |m_s|.
        r_hat: R̂ of F, |m| and |m_s|.
    """

    temperature: float
    chemical_potential: float
    steps: int
    acceptance: Estimate
    energy: Estimate
    specific_heat: Estimate
    density: Estimate
    magnetization: Estimate
    staggered: Estimate
    free_energy_spread: float
    times: tuple[float, float, float]
    r_hat: tuple[float, float, float]


class Correlations(NamedTuple):
    """Spin correlations of the kept configurations.

    Attributes:
        structure_factor: ⟨S(q)⟩ on all q.
        structure_factor_error: Their standard errors.
        distances: |r| of the shells, in lattice spacings.
        correlation: ⟨S_0 · S_r⟩ at these distances.
        correlation_error: Their standard errors.
    """

    structure_factor: Float[np.ndarray, "x y"]
    structure_factor_error: Float[np.ndarray, "x y"]
    distances: Float[np.ndarray, " shells"]
    correlation: Float[np.ndarray, " shells"]
    correlation_error: Float[np.ndarray, " shells"]


def series(trace: Trace, name: str, burn_in: float) -> Float[np.ndarray, "chains steps"]:
    """One observable of all chains without the burn-in.

    Args:
        trace: The run's steps.
        name: Of `TRACED`.
        burn_in: Fraction of the steps to leave out.

    Raises:
        UserError: Nothing would be left.
    """
    if not 0 <= burn_in < 1:
        raise UserError(f"the burn-in is the fraction of steps to leave out, at least 0 and less than 1; got {burn_in}")
    values = trace.values[int(burn_in * len(trace.values)) :, :, TRACED.index(name)]
    if len(values) < 2:
        raise UserError(f"a run of {len(trace.values)} steps is too short to analyse; make it longer")
    return values.T


def summarize(config: SimulationConfig, trace: Trace, burn_in: float = 0.1) -> Summary:
    """Averages of a run.

    Args:
        config: Its settings.
        trace: Its steps.
        burn_in: Fraction of the steps to leave out at the beginning.

    Raises:
        UserError: It is too short.
    """
    found = {name: series(trace, name, burn_in) for name in TRACED}
    temperature, sites = config.temperature, config.model.lattice.num_sites
    grand = found["energy"] - config.model.chemical_potential * found["electrons"]

    def heat(grand: np.ndarray, own: np.ndarray) -> float:
        return float((np.mean(grand**2) - np.mean(grand) ** 2 + np.mean(own)) / (temperature**2 * sites))

    correlated = [found[name] for name in ("free_energy", "magnetization", "staggered")]
    return Summary(
        temperature=temperature,
        chemical_potential=config.model.chemical_potential,
        steps=found["energy"].shape[1],
        acceptance=acceptance_of(config, found["accepted"]),
        energy=estimates.mean(found["energy"] / sites),
        specific_heat=estimates.jackknife(heat, grand - grand.mean(), found["heat"]),
        density=estimates.mean(found["electrons"] / sites),
        magnetization=estimates.mean(found["magnetization"]),
        staggered=estimates.mean(found["staggered"]),
        free_energy_spread=float(found["free_energy"].std() / temperature),
        times=tuple(estimates.autocorrelation_time(one) for one in correlated),  # type: ignore[arg-type]
        r_hat=tuple(estimates.split_r_hat(one) for one in correlated),  # type: ignore[arg-type]
    )


def acceptance_of(config: SimulationConfig, accepted: Float[np.ndarray, "chains steps"]) -> Estimate:
    """Acceptance and its binomial error, from all proposals: several a step where a step is a sweep."""
    found = estimates.acceptance(accepted)
    whole = bool(np.isin(accepted, (0, 1)).all())
    return found if whole else Estimate(found.value, found.error / np.sqrt(config.model.lattice.num_sites))


def correlations(lattice: SquareLattice, trace: Trace, burn_in: float = 0.1) -> Correlations:
    """Structure factor and correlation against distance.

    Args:
        lattice: The lattice.
        trace: The run's steps.
        burn_in: Fraction of the kept configurations to leave out.

    Raises:
        UserError: No configurations were kept.
    """
    kept = trace.kept[int(burn_in * len(trace.kept)) :]
    if len(kept) < 2:
        raise UserError(f"only {len(trace.kept)} configurations were kept; make the run longer, or keep more of them")
    factors = structure_factor(lattice, kept)  # kept chains x y
    by_distance = correlation_by_distance(lattice, factors)

    def averaged(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        columns = values.reshape(*values.shape[:2], -1)
        found: Sequence[Estimate] = [estimates.mean(columns[:, :, i].T) for i in range(columns.shape[2])]
        return tuple(np.array(part).reshape(values.shape[2:]) for part in zip(*found))  # type: ignore[return-value]

    factor, factor_error = averaged(factors)
    correlation, correlation_error = averaged(by_distance)
    distances = np.sqrt(np.array((0, *lattice.shells), float))
    return Correlations(factor, factor_error, distances, correlation, correlation_error)
