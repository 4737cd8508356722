"""Fitting an uncertainty to a model: the covariance of its features on training data, and factors on validation data."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.graph import Graph
from equiform.models.api import DescribingModel
from equiform.models.committee import Committee
from equiform.persist.parameters import with_dtype
from equiform.runtime.compilation import jit
from equiform.tasks.energy import Potential
from equiform.tasks.uncertainty import LastLayer, MemberSpread, Spread, structure_features
from equiform.training.evaluate import Values, evaluate_with_values, one_pass

_STRUCTURES = 200
"""Validation structures that are used: a thousand force components determine one factor well."""
_SHRINKAGES = 10.0 ** np.arange(-9, 0)
"""ς to choose from, in units of the largest eigenvalue of C; below, rounding errors of float32 would show."""
_LEAST = 5
"""Least number of errors to fit a factor to."""
_BINS = 10


class Estimates(NamedTuple):
    """Expected and observed errors of one quantity.

    Attributes:
        sigma: Predicted standard deviation.
        error: Prediction − label.
        unit: Of both.
    """

    sigma: Float[np.ndarray, " labels"]
    error: Float[np.ndarray, " labels"]
    unit: str


class Fitted(NamedTuple):
    """A calibrated uncertainty, and what it expects of the validation data."""

    spread: Spread
    estimates: dict[str, Estimates]


def fitted(task: Potential, train: Dataset, validation: Dataset, *, dtype: str, batch_size: int = 16) -> Fitted:
    """A calibrated uncertainty: of a committee the spread of its members, otherwise the last-layer one.

    ς is where the energies' negative log-likelihood Σ (ln σ² + error²/σ²) is smallest; each α makes the mean of error²/σ² one.

    Args:
        task: The model.
        train: The structures that it was trained on.
        validation: Labelled structures that it was not trained on.
        dtype: Precision of the model's computation; the covariance is in float64.
        batch_size: Average number of structures per batch.

    Raises:
        UserError: Too few validation labels, or a model without features.
    """
    validation = _some(validation)
    if not isinstance(task.model, DescribingModel):
        raise UserError(
            f"{type(task.model).__name__} models expose no features; make a committee of several (equiform committee)"
        )
    values = _values(task, validation, dtype, batch_size)
    if not values:
        raise UserError("the validation data have neither energies nor forces, so there is nothing to calibrate on")
    spread: Spread = MemberSpread()
    if not isinstance(task.model, Committee):
        spread = LastLayer(whitening=_whitening(task, train, validation, values, dtype, batch_size))
    raw = _estimated(task, spread, validation, values, dtype, batch_size)
    factors = {name: _factor(raw[name]) if name in raw else 1.0 for name in ("energy", "forces")}
    scaled = {name: one._replace(sigma=factors[name] * one.sigma) for name, one in raw.items()}
    return Fitted(spread.with_factors(factors["energy"], factors["forces"]), scaled)


def estimates(task: Potential, spread: Spread, dataset: Dataset, *, dtype: str, batch_size: int = 16) -> dict[str, Estimates]:
    """Expected and observed errors on labelled structures: `energy` (of a structure, eV) and `forces` (components, eV/Å)."""
    dataset = _some(dataset)
    return _estimated(task, spread, dataset, _values(task, dataset, dtype, batch_size), dtype, batch_size)


def _some(dataset: Dataset) -> Dataset:
    return dataset if len(dataset) <= _STRUCTURES else dataset[:_STRUCTURES]


def _values(task: Potential, dataset: Dataset, dtype: str, batch_size: int) -> dict[str, Values]:
    return evaluate_with_values(task, dataset, targets=("energy", "forces"), dtype=dtype, batch_size=batch_size).values


def _estimated(
    task: Potential, spread: Spread, dataset: Dataset, values: dict[str, Values], dtype: str, batch_size: int
) -> dict[str, Estimates]:
    energies, forces = np.zeros(len(dataset)), {}
    with jax.enable_x64(dtype == "float64"):
        # The factors are static: with others the program would be compiled again.
        cast_task, cast_spread = with_dtype(task, dtype), with_dtype(spread.with_factors(1.0, 1.0), dtype)
        with one_pass(dataset, batch_size, dtype, None) as stream:
            for batch in stream:
                energy, force = (np.asarray(part, np.float64) for part in _variances(cast_spread, cast_task, batch.graph))
                energies[batch.indices] = energy[: len(batch.indices)]
                ends = np.cumsum(np.asarray(dataset.num_atoms)[batch.indices])
                forces |= {int(i): force[end - dataset.num_atoms[i] : end] for i, end in zip(batch.indices, ends)}
    found = {}
    if "energy_per_atom" in values:
        rows = values["energy_per_atom"]
        sigma = spread.energy_factor * np.sqrt(energies[rows.structure])
        found["energy"] = Estimates(sigma, _energy_errors(rows, dataset), "eV")
    if "forces" in values:
        rows = values["forces"]
        variance = [_labelled(forces[int(i)], dataset[int(i)]) for i in dict.fromkeys(rows.structure)]
        sigma = spread.forces_factor * np.sqrt(np.concatenate(variance))
        found["forces"] = Estimates(sigma.ravel(), (rows.predicted - rows.reference).ravel(), "eV/Å")
    return {name: value for name, value in found.items() if value.error.size}


def _energy_errors(rows: Values, dataset: Dataset) -> Float[np.ndarray, " labels"]:
    return (rows.predicted - rows.reference).ravel() * np.asarray(dataset.num_atoms)[rows.structure]


def miscalibration(found: Estimates) -> float:
    """∫₀¹ |observed − expected| dp over the fraction p of errors expected below a quantile: 0 perfect, ½ the worst.

    Errors are expected to be normal with standard deviation σ.

    Source: V. Kuleshov, N. Fenner, S. Ermon, ICML 2018 (arXiv:1807.00263); the area as in Tran et al., arXiv:1912.10066.
    """
    scaled = np.abs(found.error) / np.maximum(found.sigma, np.finfo(float).tiny)
    expected = np.sort([math.erf(value / math.sqrt(2)) for value in scaled])
    observed = (np.arange(len(expected)) + 0.5) / len(expected)
    return float(np.abs(observed - expected).mean())


def binned(found: Estimates) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Expected and observed root mean square errors, in bins of equally many labels by the expected one."""
    groups = np.array_split(np.argsort(found.sigma, kind="stable"), min(_BINS, max(len(found.sigma) // 5, 1)))
    expected = [np.sqrt((found.sigma[group] ** 2).mean()) for group in groups]
    observed = [np.sqrt((found.error[group] ** 2).mean()) for group in groups]
    return np.array(expected), np.array(observed)


def rank_correlation(found: Estimates) -> float:
    """Spearman's correlation of expected error and |error|; NaN where all are expected to be equal."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (found.sigma, np.abs(found.error))]
    if len(found.sigma) < 2 or np.ptp(found.sigma) == 0:
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _whitening(
    task: Potential, train: Dataset, validation: Dataset, values: dict[str, Values], dtype: str, batch_size: int
) -> Array:
    """W with W Wᵀ = (C + ς)⁻¹, ς by the likelihood of the validation energies where there are enough."""
    features = _features(task, train, dtype, batch_size)
    eigenvalues, vectors = np.linalg.eigh(features.T @ features)
    largest = max(float(eigenvalues[-1]), np.finfo(float).tiny)
    # Rounding makes vanishing eigenvalues negative.
    eigenvalues = np.maximum(eigenvalues, 0)
    best, shrinkage = math.inf, 1e-6 * largest
    rows = values.get("energy_per_atom")
    if rows is not None and len(rows.structure) >= _LEAST:
        projected = (_features(task, validation, dtype, batch_size) @ vectors)[rows.structure]
        error = _energy_errors(rows, validation)
        for candidate in _SHRINKAGES * largest:
            variance = (projected**2 / (eigenvalues + candidate)).sum(axis=1)
            # The factor that fits best is put in: what is left of the likelihood does not depend on it.
            score = float(np.log(variance).mean() + np.log((error**2 / variance).mean()))
            if score < best:
                best, shrinkage = score, float(candidate)
    with jax.enable_x64(True):
        return jax.numpy.asarray(vectors / np.sqrt(eigenvalues + shrinkage))


def _features(task: Potential, dataset: Dataset, dtype: str, batch_size: int) -> Float[np.ndarray, "structures features"]:
    found: dict[int, np.ndarray] = {}
    with jax.enable_x64(dtype == "float64"):
        model = with_dtype(task.model, dtype)
        with one_pass(dataset, batch_size, dtype, None) as stream:
            for batch in stream:
                found |= zip(batch.indices.tolist(), np.asarray(_structure_features(model, batch.graph), np.float64))
    return np.stack([found[index] for index in range(len(dataset))])


def _labelled(values: Float[np.ndarray, "atoms 3"], graph: Graph) -> Float[np.ndarray, "labelled 3"]:
    """The rows of atoms whose forces are known."""
    return values[np.isfinite(np.asarray(graph.node_fields["forces"])).all(axis=1)]


def _factor(found: Estimates) -> float:
    if len(found.error) < _LEAST:
        raise UserError(
            f"{len(found.error)} validation labels are too few to calibrate an uncertainty; give at least {_LEAST} structures"
        )
    positive = found.sigma > 0
    if not positive.any():
        return 1.0
    return float(np.sqrt((found.error[positive] ** 2 / found.sigma[positive] ** 2).mean()))


@jit
def _structure_features(model: DescribingModel, graph: Graph) -> Array:
    return structure_features(model, graph)


@jit
def _variances(spread: Spread, task: Potential, graph: Graph) -> tuple[Array, Array]:
    return spread.variances(task, graph)
