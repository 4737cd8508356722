"""Errors on a data set against NumPy over the whole of it, whatever the batches."""

from functools import lru_cache
from typing import Any

import jax
import numpy as np
import pytest

from equiform.data.pipeline.dataset import Dataset
from equiform.graph import Capacity, batch, to_device
from equiform.persist.parameters import split, with_dtype
from equiform.training.config import EnergyLoss, ForcesLoss, LossConfig
from equiform.training.evaluate import Validator, evaluate, evaluate_with_values
from tests.training.toys import learner, molecule, molecules

NAN = float("nan")


def data() -> Dataset:
    rng = np.random.default_rng(0)
    graphs = [molecule(rng, n, dipole=rng.normal(size=3)) for n in (3, 6, 2, 5, 4, 6, 3)]
    graphs.append(molecule(rng, 4, energy=NAN, dipole=np.full(3, NAN)))
    graphs.append(molecule(rng, 2, forces=np.full((2, 3), NAN), dipole=np.zeros(3)))
    return Dataset(graphs, 4.0)


@lru_cache
def differences() -> dict[str, np.ndarray]:
    """One structure at a time, in float64, without any of the code under test."""
    potential = with_dtype(learner(), "float64")
    found: dict[str, list[np.ndarray]] = {"energy": [], "forces": [], "dipole": []}
    evaluated = jax.jit(lambda graph: potential(graph))
    for graph in data():
        out = evaluated(to_device(batch([graph], Capacity(7, 40, 2)), np.float64))
        out = {name: values[: 1 if name == "energy" else len(graph.species)] for name, values in out.items()}
        energy = np.asarray(out["energy"]) - graph.graph_fields["energy"]
        found["energy"].append(energy / len(graph.species))
        found["forces"].append(np.asarray(out["forces"]) - graph.node_fields["forces"])
        found["dipole"].append(np.asarray(out["dipole"]).sum(0)[None] - graph.graph_fields["dipole"])
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: values[np.isfinite(values.reshape(len(values), -1)).all(1)] for name, values in joined.items()}


@pytest.mark.parametrize("batch_size", [3, 100])
def test_errors_are_means_over_all_labels(batch_size: int) -> None:
    errors = evaluate(learner(), data(), batch_size=batch_size, dtype="float64", targets=["energy", "forces", "dipole"])
    expected = differences()
    assert list(errors) == ["energy_per_atom", "energy", "forces", "dipole"]
    for key, name in (("energy_per_atom", "energy"), ("forces", "forces"), ("dipole", "dipole")):
        np.testing.assert_allclose(errors[key]["mae"], np.abs(expected[name]).mean(), rtol=1e-12)
        np.testing.assert_allclose(errors[key]["rmse"], np.sqrt((expected[name] ** 2).mean()), rtol=1e-12)
        assert errors[key]["count"] == expected[name].size
    units = [errors[name]["unit"] for name in ("energy_per_atom", "energy", "forces")]
    assert units == ["eV/atom", "eV", "eV/Å"]


def test_the_error_of_the_total_energy_counts_every_structure_once() -> None:
    errors = evaluate(learner(), data(), dtype="float64", targets=["energy"])
    labelled = [len(graph.species) for graph in data() if np.isfinite(graph.graph_fields["energy"][0])]
    total = np.abs(differences()["energy"] * np.array(labelled).reshape(-1))
    np.testing.assert_allclose(errors["energy"]["mae"], total.mean(), rtol=1e-12)
    assert errors["energy"]["count"] == len(labelled)


def test_values_are_beside_their_labels() -> None:
    dataset = data()
    values = evaluate_with_values(learner(), dataset, batch_size=3, dtype="float64").values
    assert list(values) == ["energy_per_atom", "forces", "dipole"]
    energy = values["energy_per_atom"]
    assert sorted(energy.structure) == [0, 1, 2, 3, 4, 5, 6, 8]
    for row, index in enumerate(energy.structure):
        graph = dataset[int(index)]
        label = float(graph.graph_fields["energy"][0]) / len(graph.species)
        np.testing.assert_allclose(energy.reference[row], label, rtol=1e-14)
    forces = values["forces"]
    np.testing.assert_array_equal(forces.reference[forces.structure == 5], dataset[5].node_fields["forces"])


def test_float32_is_close_and_progress_counts_structures() -> None:
    seen: list[int] = []
    single = evaluate(learner(), data(), batch_size=4, progress=seen.append)
    double = evaluate(learner(), data(), batch_size=4, dtype="float64")
    np.testing.assert_allclose(single["forces"]["mae"], double["forces"]["mae"], rtol=1e-5)
    assert seen[-1] == 9 and seen == sorted(seen)


def test_without_labels_there_are_no_errors() -> None:
    rng = np.random.default_rng(0)
    bare = Dataset([molecule(rng, 3, energy=NAN, forces=np.full((3, 3), NAN))], 4.0)
    assert evaluate(learner(), bare) == {}
    assert evaluate(learner(), Dataset([], 4.0)) == {}


@pytest.mark.parametrize("batch_size", [2, 100])
def test_validation_loss_is_over_entries_not_over_batches(batch_size: int) -> None:
    terms: dict[str, Any] = {
        "energy": EnergyLoss(weight=2.0),
        "forces": ForcesLoss(weight=3.0),
        "dipole": LossConfig(kind="mse", weight=0.5),
    }
    params, static = split(with_dtype(learner(), "float64"))
    loss, errors = Validator(static, data(), terms, batch_size, "float64")(params)
    d = differences()
    expected = 2 * np.abs(d["energy"]).mean() + 3 * np.linalg.norm(d["forces"], axis=1).mean()
    np.testing.assert_allclose(loss, expected + 0.5 * (d["dipole"] ** 2).mean(), rtol=1e-12)
    np.testing.assert_allclose(errors["forces"]["mae"], np.abs(d["forces"]).mean(), rtol=1e-12)
    np.testing.assert_allclose(errors["energy_per_atom"]["rmse"], np.sqrt((d["energy"] ** 2).mean()), rtol=1e-12)


def test_validation_is_compiled_once_per_capacity() -> None:
    params, static = split(with_dtype(learner(), "float32"))
    with jax.enable_x64(False):
        validator = Validator(static, molecules(20), {"energy": EnergyLoss()}, 4, "float32")
        validator(params)
        first = validator.compilations
        validator(params)
        validator(jax.tree.map(lambda leaf: 2 * leaf, params))
    assert validator.compilations == first <= 3
