"""Whether a model deserves to be called trained: its errors beside those of rules that need no model.

The rules: energies by the reference energies alone or by one constant per atom, whichever is better; zero forces; zero stress;
no displacement; the mean of a scalar property.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.tasks.api import Task
from equiform.training.evaluate import Values, error_name

ENOUGH_EPOCHS = 0.95
"""A model that has seen less of the training set than this is said to have."""
SAMPLES = 1000
"""Most structures whose labels are looked at."""
ZERO = {"forces": "zero forces", "stress": "zero stress", "energy_per_atom": "the reference energies alone"}


def rules_of(values: Mapping[str, Values]) -> dict[str, dict[str, Any]]:
    """Mean absolute errors of the rules on evaluated data, by the name of the error: `mae`, and the rule in words."""
    return {name: _rule(name, value.reference) for name, value in values.items() if value.reference.size}


def rules_on(dataset: Dataset, task: Task, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same for the labels of a data set.

    Args:
        dataset: Host graphs with labels.
        task: Tells which of the targets are errors per atom.
        names: Targets.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), SAMPLES)).astype(int))
    graphs = [dataset[int(index)] for index in chosen]
    found = {}
    for target in (task.target(name) for name in names):
        labels = []
        for graph in graphs:
            label = graph.graph_fields.get(target.name, graph.node_fields.get(target.name))
            if label is not None:
                label = np.asarray(label, np.float64) / (len(graph.species) if target.per_atom else 1)
                labels.append(label[np.isfinite(label.reshape(len(label), -1)).all(axis=1)])
        if labels and sum(label.size for label in labels):
            found[error_name(target)] = _rule(error_name(target), np.concatenate(labels))
    return found


def cautions(
    epochs: float | None, errors: Mapping[str, Mapping[str, Any]], rules: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What must be said of a model that is not better than the rules, or has not seen all data; empty for any other.

    Args:
        epochs: How much of the training set it has seen; None if unknown.
        errors: Its errors by name.
        rules: The errors of the rules on the same data.
    """
    found = []
    if epochs is not None and epochs < ENOUGH_EPOCHS:
        found.append(f"it has seen only {epochs:.2g} of one pass over the training data")
    for name, rule in rules.items():
        mae = errors.get(name, {}).get("mae")
        if mae is not None and not mae < rule["mae"]:
            what = name.removesuffix("_per_atom").replace("_", " ")
            found.append(f"its {what} error is no smaller than that of {rule['rule']} ({mae:.3g} against {rule['mae']:.3g})")
    return found


def cautions_of(training: Mapping[str, Any]) -> list[str]:
    """The same for a model file, from what training wrote into it."""
    return cautions(training.get("epochs"), training.get("validation") or {}, training.get("rules") or {})


def in_one_line(found: Sequence[str]) -> str:
    """The cautions as one sentence; empty without any."""
    return f"this model is not trained: {'; '.join(found)}" if found else ""


def on_other_data(found: Sequence[str]) -> str:
    """The cautions of a model without any from its training, on data that may be of another kind; empty without any."""
    if not found:
        return ""
    said = "; ".join(found)
    return f"on these data the model is no better than no model: {said}; are the labels of the kind it was trained on?"


def _rule(name: str, reference: np.ndarray) -> dict[str, Any]:
    zero, centred = float(np.abs(reference).mean()), float(np.abs(reference - reference.mean()).mean())
    if name in ZERO:
        if name == "energy_per_atom" and centred < zero:
            return {"mae": centred, "rule": "one constant per atom"}
        return {"mae": zero, "rule": ZERO[name]}
    if reference.ndim > 1:
        return {"mae": zero, "rule": f"no {name.replace('_', ' ')}"}
    return {"mae": centred, "rule": "their mean"}
