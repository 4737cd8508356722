"""What is said of a model that is not better than rules that need none."""

import numpy as np
import pytest

from equiform.training.evaluate import Values
from equiform.training.verdict import cautions, cautions_of, in_one_line, on_other_data, rules_of, rules_on
from tests.training.toys import learner, molecules


def values(reference: np.ndarray) -> Values:
    return Values(np.zeros_like(reference), reference, np.zeros(len(reference), int))


def test_the_rules_are_zero_forces_and_the_better_of_no_energy_and_a_constant() -> None:
    forces = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    shifted = np.array([-3.0, -3.2, -2.8, -3.0])
    found = rules_of({"forces": values(forces), "energy_per_atom": values(shifted)})
    assert found["forces"] == {"mae": 1.0, "rule": "zero forces"}
    assert found["energy_per_atom"]["mae"] == pytest.approx(0.1) and "constant" in found["energy_per_atom"]["rule"]
    fitted = rules_of({"energy_per_atom": values(np.array([0.1, -0.1, 0.0]))})["energy_per_atom"]
    assert fitted["mae"] == pytest.approx(0.2 / 3) and "reference" in fitted["rule"]
    assert rules_of({"gap": values(np.array([1.0, 3.0]))})["gap"] == {"mae": 1.0, "rule": "their mean"}


def test_the_rules_on_a_data_set_are_those_of_its_labels() -> None:
    data = molecules(6)
    found = rules_on(data, learner(), ["energy", "forces"])
    forces = np.concatenate([graph.node_fields["forces"] for graph in data])
    assert found["forces"]["mae"] == pytest.approx(np.abs(forces).mean())
    per_atom = np.array([graph.graph_fields["energy"][0] / len(graph.species) for graph in data])
    assert found["energy_per_atom"]["mae"] == pytest.approx(
        min(np.abs(per_atom).mean(), np.abs(per_atom - per_atom.mean()).mean())
    )


@pytest.mark.parametrize(
    ("epochs", "mae", "said"),
    [
        (0.3, 0.5, "0.3 of one pass"),
        (3.0, 1.2, "zero forces"),
        (3.0, float("nan"), "zero forces"),
        (3.0, 0.5, ""),
        (None, 0.5, ""),
    ],
)
def test_too_little_training_and_useless_forces_are_said(epochs: float | None, mae: float, said: str) -> None:
    found = cautions(epochs, {"forces": {"mae": mae}}, {"forces": {"mae": 1.0, "rule": "zero forces"}})
    assert (said in in_one_line(found)) and bool(found) == bool(said)


def test_a_model_file_of_an_earlier_version_is_not_judged() -> None:
    assert cautions_of({"step": 3, "validation": {"forces": {"mae": 9.0}}}) == []


def test_a_trained_model_that_fails_on_other_data_is_not_called_untrained() -> None:
    found = cautions(30.0, {"forces": {"mae": 1.2}}, {"forces": {"mae": 1.0, "rule": "zero forces"}})
    assert on_other_data(found).startswith("on these data the model is no better than no model: its forces error")
    assert on_other_data([]) == ""
