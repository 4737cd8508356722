"""Loss = Σ_target weight · (mean error over the entries that have a label).

A missing label is NaN and counts neither in the sum nor in the number of entries; the same holds for padding.
Sums and counts stay separate until the end, so that a whole data set is averaged over entries, not over
batches.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from equiform.graph import AnyArray, Graph
from equiform.training.config import EnergyLoss, LossConfig


class Errors(NamedTuple):
    """Errors of one target.

    Attributes:
        difference: Prediction − label; zero where there is no label.
        valid: Whether a row (an atom or a graph) is real and has a label.
    """

    difference: Float[Array, "rows ..."]
    valid: Bool[Array, "rows"]


class Mean(NamedTuple):
    """A mean before the division."""

    total: Float[AnyArray, ""]
    count: Float[AnyArray, ""]


def target_errors(name: str, outputs: Mapping[str, Array], graph: Graph) -> Errors | None:
    """Errors of a target where the graph has labels of that name; None if there is no such field.

    A readout per atom whose label is per graph (a dipole) is summed over the atoms of each graph.

    Raises:
        ValueError: There are labels, but the model has no such readout, or its shape differs.
    """
    if name in graph.graph_fields:
        label, mask = graph.graph_fields[name], graph.graph_mask
    elif name in graph.node_fields:
        label, mask = graph.node_fields[name], graph.atom_mask
    else:
        return None
    if name not in outputs:
        raise ValueError(f"the loss has a term {name!r}, but the model's outputs are {', '.join(sorted(outputs))}")
    prediction, label = as_labelled(outputs[name], name, graph), jnp.asarray(label)
    if prediction.shape != label.shape:
        raise ValueError(f"{name!r}: the prediction has shape {prediction.shape}, the labels {label.shape}")
    valid = mask & ~jnp.isnan(label).any(axis=tuple(range(1, label.ndim)))
    valid = jnp.asarray(valid)
    chosen = _rows(valid, label.ndim)
    # The label is replaced before the subtraction: NaN times zero is NaN in the gradient.
    difference = jnp.where(chosen, prediction - jnp.where(chosen, label, 0), 0)
    return Errors(difference, valid)


def as_labelled(prediction: Array, name: str, graph: Graph) -> Array:
    """A prediction on the axis of its labels: per-atom values are summed where the labels are per graph (a dipole)."""
    if name in graph.graph_fields and prediction.shape[0] != graph.graph_mask.shape[0]:
        return graph.sum_over_atoms(prediction)
    return prediction


def per_atom(errors: Errors, graph: Graph) -> Errors:
    """Errors of a target per graph, divided by the number of atoms."""
    atoms = graph.sum_over_atoms(jnp.ones_like(graph.positions[:, 0]))
    divisor = jnp.maximum(atoms, 1).astype(errors.difference.dtype)
    return Errors(errors.difference / _rows(divisor, errors.difference.ndim), errors.valid)


def term(errors: Errors, config: LossConfig, weights: Float[Array, "rows"] | None = None) -> Mean:
    """One term of the loss, without the weight of the term.

    Args:
        errors: Of the target.
        config: The kind of error.
        weights: By how much each row counts. The mean stays one over the number of entries, so that a weight of 2 for all is
            twice the loss.
    """
    difference, rows = errors.difference, errors.valid.sum()
    components = difference[0].size
    if config.kind == "l2norm":
        squared = (difference**2).reshape(difference.shape[0], -1).sum(axis=1)
        # Where the error is exactly zero the derivative of the square root is infinite; the gradient is set to 0.
        length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
        length = length if weights is None else length * weights
        return Mean(length.sum(), rows.astype(difference.dtype))
    size = jnp.abs(difference)
    if config.kind == "mse":
        size = difference**2
    elif config.kind == "huber":
        size = jnp.where(size < config.delta, 0.5 * size**2, config.delta * (size - 0.5 * config.delta))
    size = size if weights is None else size * _rows(weights, size.ndim)
    return Mean(size.sum(), (rows * components).astype(difference.dtype))


def loss_terms(outputs: Mapping[str, Array], graph: Graph, terms: Mapping[str, LossConfig]) -> dict[str, Mean]:
    """All terms of the loss of a batch; a term without labels is zero over zero entries."""
    result = {}
    for name, config in terms.items():
        errors = target_errors(name, outputs, graph)
        if errors is None:
            zero = jnp.zeros((), graph.positions.dtype)
            result[name] = Mean(zero, zero)
            continue
        if isinstance(config, EnergyLoss) and config.per_atom:
            errors = per_atom(errors, graph)
        result[name] = term(errors, config, _weights(name, errors, graph))
    return result


def _weights(name: str, errors: Errors, graph: Graph) -> Array | None:
    """The weights that the data give the graphs for a target, a row each for its errors; None without any."""
    field = f"{name}_weight"
    if field not in graph.graph_fields:
        return None
    weights = jnp.asarray(graph.graph_fields[field], errors.difference.dtype)
    return weights if len(errors.valid) == len(graph.graph_mask) and name in graph.graph_fields else weights[graph.graph_index]


def mean(value: Mean) -> Float[Array, ""]:
    """Total over count; zero where nothing was counted."""
    return jnp.asarray(value.total / jnp.maximum(value.count, 1))


def _rows(values: Array, ndim: int) -> Array:
    return jnp.reshape(values, values.shape + (1,) * (ndim - 1))
