"""The loss against formulas written out in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.graph import Capacity, Graph, batch, make_graph
from equiform.training.config import EnergyLoss, LossConfig, LossKind
from equiform.training.loss import loss_terms, mean, target_errors, term
from tests.training.toys import molecule

NAN = float("nan")


ROOMY = Capacity(20, 80, 6)


def padded(capacity: Capacity = ROOMY) -> tuple[Graph, list[Graph]]:
    rng = np.random.default_rng(0)
    stress = np.full((3, 3), NAN)
    graphs = [molecule(rng, 3, stress=stress), molecule(rng, 5, energy=NAN, stress=stress)]
    graphs.append(molecule(rng, 4, forces=np.full((4, 3), NAN), stress=np.eye(3)))
    return batch(graphs, capacity), graphs


def predictions(graph: Graph) -> dict[str, Any]:
    """Random ones; nonsense where there is padding."""
    rng = np.random.default_rng(1)
    atoms, _, slots = graph.capacity
    forces, energy = rng.normal(size=(12, 3)), rng.normal(size=3)
    return {
        "forces": jnp.asarray(np.concatenate([forces, np.full((atoms - 12, 3), 1e9)])),
        "energy": jnp.asarray(np.concatenate([energy, np.full(slots - 3, -1e9)])),
        "stress": jnp.asarray(np.concatenate([np.ones((3, 3, 3)), np.full((slots - 3, 3, 3), 1e9)])),
    }


FORMULAS = {
    "l1": lambda d: np.abs(d).mean(),
    "l2norm": lambda d: np.sqrt((d**2).sum(axis=1)).mean(),
    "mse": lambda d: (d**2).mean(),
    "huber": lambda d: np.where(np.abs(d) < 0.7, 0.5 * d**2, 0.7 * (np.abs(d) - 0.35)).mean(),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_forces_term_is_the_mean_over_labelled_real_atoms(kind: LossKind) -> None:
    graph, graphs = padded()
    outputs = predictions(graph)
    result = jax.jit(lambda: loss_terms(outputs, graph, {"forces": LossConfig(kind=kind, delta=0.7)}))()
    labels = np.concatenate([g.node_fields["forces"] for g in graphs[:2]])
    expected = FORMULAS[kind](np.asarray(outputs["forces"])[:8] - labels)
    np.testing.assert_allclose(mean(result["forces"]), expected, rtol=1e-12)


@pytest.mark.parametrize("per_atom", [True, False])
def test_energy_error_is_per_atom_or_total_as_asked(per_atom: bool) -> None:
    graph, graphs = padded()
    outputs = predictions(graph)
    result = loss_terms(outputs, graph, {"energy": EnergyLoss(per_atom=per_atom)})
    labelled, divisor = [0, 2], np.array([3, 4]) if per_atom else np.ones(2)
    labels = np.array([float(graphs[i].graph_fields["energy"][0]) for i in labelled])
    errors = np.abs(np.asarray(outputs["energy"])[labelled] - labels) / divisor
    np.testing.assert_allclose(mean(result["energy"]), errors.mean(), rtol=1e-12)
    assert float(result["energy"].count) == 2


def test_structures_without_stress_do_not_count() -> None:
    graph, _ = padded()
    result = loss_terms(predictions(graph), graph, {"stress": LossConfig()})["stress"]
    assert float(result.count) == 9
    np.testing.assert_allclose(mean(result), 6 / 9)


@pytest.mark.parametrize("kind", FORMULAS)
def test_more_padding_changes_neither_loss_nor_gradient(kind: LossKind) -> None:
    def value_and_gradient(capacity: Capacity) -> Any:
        graph, _ = padded(capacity)
        terms = {"forces": LossConfig(kind=kind), "energy": EnergyLoss(kind=kind)}

        def loss(forces: Any) -> Any:
            outputs = predictions(graph) | {"forces": predictions(graph)["forces"].at[:12].set(forces)}
            return sum(mean(value) for value in loss_terms(outputs, graph, terms).values())

        return jax.value_and_grad(loss)(jnp.asarray(np.random.default_rng(5).normal(size=(12, 3))))

    small, large = value_and_gradient(Capacity(12, 60, 3)), value_and_gradient(Capacity(40, 200, 9))
    np.testing.assert_allclose(small[0], large[0], rtol=1e-13)
    np.testing.assert_allclose(small[1], large[1], rtol=1e-12)


@pytest.mark.parametrize("kind", FORMULAS)
def test_gradient_is_finite_where_labels_are_missing_and_errors_are_zero(kind: LossKind) -> None:
    graph, _ = padded()
    exact = jnp.nan_to_num(jnp.asarray(graph.node_fields["forces"]))

    def loss(forces: Any) -> Any:
        return mean(loss_terms({"forces": forces}, graph, {"forces": LossConfig(kind=kind)})["forces"])

    value, gradient = jax.value_and_grad(loss)(exact)
    assert float(value) == 0
    assert np.isfinite(np.asarray(gradient)).all()
    # Atoms 8 to 11 have no force labels, later ones are padding: nothing may pull at them.
    shifted = jax.grad(loss)(exact + 1.0)
    assert (np.asarray(shifted)[:8] != 0).all() and (np.asarray(shifted)[8:] == 0).all()


def test_readout_per_atom_is_summed_for_a_label_per_graph() -> None:
    rng = np.random.default_rng(3)
    graphs = [molecule(rng, n, dipole=np.arange(3.0)) for n in (2, 4)]
    graph = batch(graphs, Capacity(9, 40, 4))
    values = rng.normal(size=(9, 3))
    errors = target_errors("dipole", {"dipole": jnp.asarray(values)}, graph)
    assert errors is not None
    expected = np.stack([values[:2].sum(0), values[2:6].sum(0)]) - np.arange(3.0)
    np.testing.assert_allclose(errors.difference[:2], expected, rtol=1e-12)
    assert errors.valid.tolist() == [True, True, False, False]


def test_a_field_that_a_batch_does_not_have_counts_nothing() -> None:
    graph, _ = padded()
    result = loss_terms(predictions(graph), graph, {"dipole": LossConfig()})["dipole"]
    assert (float(result.total), float(result.count), float(mean(result))) == (0, 0, 0)


def test_a_readout_that_is_missing_or_misshapen_is_named() -> None:
    graph, _ = padded()
    with pytest.raises(ValueError, match="'energy', but the model's outputs are forces"):
        target_errors("energy", {"forces": predictions(graph)["forces"]}, graph)
    with pytest.raises(ValueError, match=", the labels "):
        target_errors("forces", {"forces": jnp.zeros((20, 2))}, graph)


def test_l2norm_of_a_scalar_is_its_absolute_value() -> None:
    graph, _ = padded()
    errors = target_errors("energy", predictions(graph), graph)
    assert errors is not None
    one, other = term(errors, LossConfig(kind="l1")), term(errors, LossConfig(kind="l2norm"))
    np.testing.assert_allclose(mean(one), mean(other), rtol=1e-14)


def test_weights_of_structures_multiply_their_errors():
    graph = batch(
        [
            make_graph(
                np.zeros((2, 3)), [1, 1], node_fields={"forces": np.ones((2, 3))},
                graph_fields={"energy": 1.0, "energy_weight": energy, "forces_weight": forces},
            )
            for energy, forces in ((2.0, 1.0), (0.5, 3.0))
        ],
        Capacity(6, 1, 3),
    )  # fmt: skip
    outputs = {"energy": jnp.array([4.0, 2.0, 7.0]), "forces": jnp.zeros((6, 3))}
    for kind, energy, forces in (("l1", 3 * 2 + 1 * 0.5, 6 * 1 + 6 * 3), ("mse", 9 * 2 + 1 * 0.5, 6 * 1 + 6 * 3)):
        terms = {"energy": EnergyLoss(kind=kind, per_atom=False), "forces": LossConfig(kind=kind)}
        found = loss_terms(outputs, graph, terms)
        assert float(found["energy"].total) == pytest.approx(energy) and float(found["energy"].count) == 2
        assert float(found["forces"].total) == pytest.approx(forces) and float(found["forces"].count) == 12
    found = loss_terms(outputs, graph, {"forces": LossConfig(kind="l2norm")})["forces"]
    assert float(found.total) == pytest.approx(np.sqrt(3) * 2 * (1 + 3))
