"""Evaluation of a task on a data set: mean absolute and root mean square errors, with units."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from equiform.data.pipeline.batching import EDGE_BUDGET, plan_epoch
from equiform.data.pipeline.dataset import Dataset
from equiform.graph import Capacity, Graph
from equiform.persist.parameters import split, with_dtype
from equiform.runtime.compilation import compiler_options
from equiform.tasks.api import Target, Task
from equiform.training.batches import BatchStream
from equiform.training.config import LossConfig
from equiform.training.loss import Mean, as_labelled, loss_terms, per_atom, target_errors

PER_ATOM = "_per_atom"
"""Suffix of the name of an error that is divided by the number of atoms of its structure."""


class Values(NamedTuple):
    """Predictions and labels of one target, one row per label, for parity plots.

    Attributes:
        predicted: The task's predictions.
        reference: The labels.
        structure: Index of the structure in the data set.
    """

    predicted: np.ndarray
    reference: np.ndarray
    structure: np.ndarray

    def median_mse(self) -> float:
        """Median over structures of the mean squared error of each: unlike the mean, not ruled by a few hard ones."""
        each = ((self.predicted - self.reference) ** 2).reshape(len(self.structure), -1).mean(axis=1)
        counts = np.bincount(self.structure)
        return float(np.median(np.bincount(self.structure, each)[counts > 0] / counts[counts > 0]))


class Evaluation(NamedTuple):
    """Errors of a task on a data set.

    Attributes:
        errors: `mae`, `rmse`, `unit` and `count` (numbers compared) by target; energies also per atom.
        values: Predictions and labels by target; energies are interaction energies per atom.
    """

    errors: dict[str, dict[str, Any]]
    values: dict[str, Values]


def evaluate(
    task: Task,
    dataset: Dataset,
    *,
    batch_size: int = 16,
    dtype: str = "float32",
    targets: Iterable[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Errors by target: `{"energy_per_atom": {"mae": ..., "rmse": ..., "unit": "eV/atom", "count": ...},
    ...}`.

    Args: see `evaluate_with_values`.
    """
    return evaluate_with_values(task, dataset, batch_size=batch_size, dtype=dtype, targets=targets, progress=progress).errors


def evaluate_with_values(
    task: Task,
    dataset: Dataset,
    *,
    batch_size: int = 16,
    dtype: str = "float32",
    targets: Iterable[str] | None = None,
    progress: Callable[[int], None] | None = None,
    program: "Program | None" = None,
    least: Capacity | None = None,
) -> Evaluation:
    """Errors by target, and the values behind them. Errors are summed in float64 against the float64 labels.

    Args:
        task: The task to evaluate; dropout is off.
        dataset: Host graphs with label fields; NaN marks a missing label.
        batch_size: Average number of structures per batch.
        dtype: Precision of the predictions.
        targets: Which of the task's targets to compare; None means all that have labels.
        progress: Progress callback `(done)`, the number of structures done.
        program: A program of the same task, to be used if it predicts all the targets.
        least: Capacity that batches are padded to where that is cheap.
    """
    names = labelled(dataset, [target.name for target in task.targets] if targets is None else targets)
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in names}
    per_atom = {target.name for target in task.targets if target.per_atom}
    with jax.enable_x64(dtype == "float64"):
        params, static = split(with_dtype(task, dtype))
        if program is None or not set(names) <= set(program.names):
            program = Program(static, names)
        done = 0
        with one_pass(dataset, batch_size, dtype, least) as stream:
            for batch in stream:
                outputs = jax.device_get(program(params, batch.graph).predictions)
                outputs = {name: value for name, value in outputs.items() if name in names}
                _collect(rows, outputs, dataset, batch.indices, per_atom)
                done += len(batch.indices)
                if progress is not None:
                    progress(done)
    errors, values = {}, {}
    for name, parts in rows.items():
        if parts:
            columns = Values(*(np.concatenate(column) for column in zip(*parts)))
            target = task.target(name)
            values[error_name(target)] = columns
            difference = columns.predicted - columns.reference
            errors[error_name(target)] = {**_statistics(difference), "unit": error_unit(target), "count": difference.size}
            if target.per_atom:
                whole = difference * np.asarray(dataset.num_atoms)[columns.structure]
                errors[name] = {**_statistics(whole), "unit": target.unit, "count": whole.size}
    return Evaluation(errors, values)


def labelled(dataset: Dataset, names: Iterable[str]) -> list[str]:
    """The names that have at least one label in the data set."""
    return [name for name in names if dataset.has_label(name)]


def error_name(target: Target) -> str:
    """The name of a target's error: `energy_per_atom`, `forces`, …"""
    return target.name + PER_ATOM if target.per_atom else target.name


def error_unit(target: Target) -> str:
    """The unit of a target's error; empty for a dimensionless one."""
    return f"{target.unit}/atom" if target.per_atom else target.unit


class Compared(NamedTuple):
    """What a program computes of a batch.

    Attributes:
        predictions: By target, on the axis of its labels.
        terms: The terms of the loss, as sums and counts.
        errors: Sums of absolute and squared errors, and the count, by target of the loss.
    """

    predictions: dict[str, Array]
    terms: dict[str, Mean]
    errors: dict[str, dict[str, Array]]


class Program:
    """`compared = program(params, graph)`: predictions and, with terms of a loss, sums of errors; compiled once per capacity.

    Args:
        static: The non-trainable part of the task.
        names: The targets to predict.
        terms: The terms of a loss, which are targets too.
    """

    def __init__(self, static: Any, names: Iterable[str], terms: Mapping[str, LossConfig] | None = None):
        self._static, self._terms = static, dict(terms or {})
        self.names = tuple(dict.fromkeys([*names, *self._terms]))
        self._compute = jax.jit(self._compared, compiler_options=compiler_options())

    def __call__(self, params: Any, graph: Graph) -> Compared:
        return self._compute(params, graph)

    def _compared(self, params: Any, graph: Graph) -> Compared:
        outputs = eqx.combine(params, self._static).predict(graph, self.names)
        predictions = {name: as_labelled(outputs[name], name, graph) for name in self.names if name in outputs}
        zero = jnp.zeros((), graph.positions.dtype)
        errors = {name: {"absolute": zero, "squared": zero, "count": zero} for name in self._terms}
        for name in self._terms:
            found = target_errors(name, outputs, graph)
            if found is not None:
                found = per_atom(found, graph) if self._static.target(name).per_atom else found
                difference, rows = found.difference, found.valid.sum()
                errors[name] = {
                    "absolute": jnp.abs(difference).sum(),
                    "squared": (difference**2).sum(),
                    "count": (rows * difference[0].size).astype(difference.dtype),
                }
        return Compared(predictions, loss_terms(outputs, graph, self._terms), errors)


class Validator:
    """Loss and errors of the current weights on a data set; compiled once per capacity.

    Attributes:
        program: What is computed of a batch; evaluation may use it too.

    Args:
        static: The non-trainable part of the task.
        dataset: Host graphs with label fields.
        terms: The terms of the loss.
        batch_size: Average number of structures per batch.
        dtype: Precision.
        least: Capacity that batches are padded to where that is cheap.
    """

    def __init__(
        self,
        static: Any,
        dataset: Dataset,
        terms: Mapping[str, LossConfig],
        batch_size: int,
        dtype: str,
        least: Capacity | None = None,
    ):
        self._static, self._dataset, self._terms = static, dataset, dict(terms)
        self.program = Program(static, terms, terms)
        self._batch_size, self._dtype, self._least = batch_size, dtype, least
        self._signatures: set[Any] = set()

    @property
    def compilations(self) -> int:
        """Number of programs compiled so far."""
        return len(self._signatures)

    def compile(self, params: Any) -> None:
        """Compile the program of the first batch; for another thread, while something else is compiled."""
        # Whether numbers have 64 bits is a setting of a thread.
        with (
            jax.enable_x64(self._dtype == "float64"),
            one_pass(self._dataset, self._batch_size, self._dtype, self._least) as stream,
        ):
            first = next(iter(stream))
            jax.block_until_ready(self.program(params, first.graph))
        self._signatures.add(first.signature)

    def __call__(self, params: Any) -> tuple[float, dict[str, dict[str, Any]]]:
        """The loss with its term weights as of the first step, and the errors by target."""
        parts = []
        with one_pass(self._dataset, self._batch_size, self._dtype, self._least) as stream:
            for batch in stream:
                self._signatures.add(batch.signature)
                found = self.program(params, batch.graph)
                parts.append({"terms": found.terms, "errors": found.errors})
        total = jax.tree.map(lambda *leaves: float(np.sum(leaves, dtype=np.float64)), *jax.device_get(parts))
        loss = 0.0
        for name, config in self._terms.items():
            value: Mean = total["terms"][name]
            loss += config.weight * float(value.total) / max(float(value.count), 1.0)
        errors = {}
        for name, sums in total["errors"].items():
            count = max(sums["count"], 1.0)
            target = self._static.target(name)
            errors[error_name(target)] = {
                "mae": sums["absolute"] / count if sums["count"] else None,
                "rmse": float(np.sqrt(sums["squared"] / count)) if sums["count"] else None,
                "unit": error_unit(target),
            }
        return loss, errors


def shared_capacity(datasets: Iterable[Dataset], batch_size: int) -> Capacity | None:
    """A capacity that evaluation batches of all data sets fit into; None without any structures."""
    found = []
    for dataset in datasets:
        largest = int(np.max(dataset.num_edges, initial=1))
        budget = {"batch_size": batch_size, "edge_budget": max(EDGE_BUDGET, largest)}
        plan = plan_epoch(dataset.num_atoms, dataset.num_edges, **budget, shuffle=False)
        found += [planned.capacity for planned in plan]
    return Capacity(*(max(size) for size in zip(*found))) if found else None


def one_pass(dataset: Dataset, batch_size: int, dtype: str, least: Capacity | None) -> BatchStream:
    return BatchStream(dataset, batch_size=batch_size, edge_budget=EDGE_BUDGET, least=least, shuffle=False, dtype=dtype)


def _collect(
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]],
    outputs: dict[str, np.ndarray],
    dataset: Dataset,
    indices: np.ndarray,
    per_atom: Collection[str],
) -> None:
    """Split the predictions of a batch by structure and pair them with the float64 labels."""
    first_atom = 0
    for slot, index in enumerate(indices):
        graph = dataset[int(index)]
        atoms = len(graph.species)
        for name, values in outputs.items():
            if name in graph.graph_fields:
                label, predicted = np.asarray(graph.graph_fields[name]), values[slot : slot + 1]
            elif name in graph.node_fields:
                label, predicted = (
                    np.asarray(graph.node_fields[name]),
                    values[first_atom : first_atom + atoms],
                )
            else:
                continue
            given = np.isfinite(label.reshape(len(label), -1)).all(axis=1)
            divisor = max(atoms, 1) if name in per_atom else 1
            predicted = predicted.astype(np.float64)[given] / divisor
            rows[name].append((predicted, label[given] / divisor, np.full(int(given.sum()), index)))
        first_atom += atoms


def _statistics(difference: np.ndarray) -> dict[str, float | None]:
    if not difference.size:
        return {"mae": None, "rmse": None}
    return {"mae": float(np.abs(difference).mean()), "rmse": float(np.sqrt((difference**2).mean()))}
