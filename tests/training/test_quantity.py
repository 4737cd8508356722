"""A scalar of a structure that is not the energy: its normalisation, its loss, its unit, its model file, its predictions."""

import equinox as eqx
import jax
import numpy as np
import pytest
from ase import Atoms

import equiform.models
from equiform.data.pipeline.dataset import Dataset
from equiform.deploy.predictor import Predictor
from equiform.errors import UserError
from equiform.fields import Field
from equiform.graph import fully_connected_edges, make_graph
from equiform.persist.modelfile import load_model
from equiform.tasks.energy import Potential
from equiform.tasks.property import Property
from equiform.training.config import LossConfig, Losses, Normalization, TrainingConfig
from equiform.training.evaluate import evaluate
from equiform.training.fit import fit
from equiform.training.run_folder import RunFolder
from equiform.training.scale import initial_task, loss_terms_of
from tests.training.toys import Learner, LearnerConfig


def structures(count, seed=0):
    """Bent molecules whose alpha is 70 a0³ plus a multiple of the sum of inverse distances."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        positions = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]) + 0.15 * rng.normal(size=(3, 3))
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)[np.triu_indices(3, 1)]
        yield positions, 70 + 8 * float((1 / distance).sum())


def dataset(count, seed=0):
    senders, receivers = fully_connected_edges(3)
    graphs = [
        make_graph(positions, [8, 1, 1], senders, receivers, graph_fields={"alpha": alpha})
        for positions, alpha in structures(count, seed)
    ]
    return Dataset(graphs, 4.0, fields=[Field("alpha", "graphs", "invariant", "a0³")], quantity="alpha")


def model():
    return Learner(LearnerConfig(), key=jax.random.key(0))


STANDARD = TrainingConfig(normalization="mean-std", standardized_losses=True, dtype="float64", clip=None)


def test_mean_and_std_are_those_of_the_training_structures():
    train = dataset(30)
    task = initial_task(model(), STANDARD, train, (1, 8))
    values = np.array([alpha for _, alpha in structures(30)])
    assert task.shift == pytest.approx(values.mean()) and task.scale == pytest.approx(values.std(ddof=1))
    assert isinstance(task, Property) and (task.quantity, task.unit) == ("alpha", "a0³")
    none = initial_task(model(), STANDARD.model_copy(update={"normalization": "none"}), train, (1, 8))
    assert (none.scale, none.shift) == (1.0, 0.0)
    given = Normalization(mean=-1.5, std=2.0, readouts={"displacement": 0.5})
    chosen = initial_task(model(), STANDARD.model_copy(update={"normalization": given}), train, (1, 8))
    assert (chosen.scale, chosen.shift, chosen.scales) == (2.0, -1.5, (("displacement", 0.5),))
    with pytest.raises(UserError, match="needs training structures with different alpha; 1 have one"):
        initial_task(model(), STANDARD, dataset(1), (1, 8))


def test_standardised_losses_are_of_standardised_errors():
    losses = Losses(other={"displacement": LossConfig(weight=15, final_weight=1)})
    config = STANDARD.model_copy(update={"losses": losses})
    potential = Potential(model(), scale=2.0, scales=(("displacement", 0.5),))
    terms = loss_terms_of(config, potential)
    assert terms["energy"].weight == 0.5 and terms["forces"].weight == 10 / 2.0
    assert (terms["displacement"].weight, terms["displacement"].final_weight) == (30, 2)
    assert loss_terms_of(config.model_copy(update={"standardized_losses": False}), potential)["displacement"].weight == 15
    squared = config.model_copy(update={"losses": Losses(energy=None, forces=None, other={"x": LossConfig(kind="mse")})})
    with pytest.raises(UserError, match="not mse"):
        loss_terms_of(squared, potential)


def test_it_is_learnt_judged_saved_and_predicted(tmp_path, monkeypatch):
    monkeypatch.setitem(equiform.models.MODELS, "learner", (LearnerConfig, Learner))
    train, held = dataset(64), dataset(16, seed=1)
    config = STANDARD.model_copy(update={"max_steps": 250, "batch_size": 16, "learning_rate": 1e-2, "ema": None})
    task = initial_task(model(), config, train, (1, 8))
    before = evaluate(task, held, dtype="float64")
    result = fit(task, train, held, config, RunFolder.create(tmp_path / "run"), progress=False)
    after = evaluate(result.task, held, dtype="float64")
    assert after["alpha"]["unit"] == result.errors["alpha"]["unit"] == "a0³" and set(after) == {"alpha"}
    assert after["alpha"]["mae"] < 0.2 * before["alpha"]["mae"]
    loaded = load_model(tmp_path / "run" / "best").task
    assert (loaded.quantity, loaded.unit, loaded.scale) == ("alpha", "a0³", task.scale)
    predictor = Predictor(loaded, dtype="float64")
    atoms = [Atoms("OH2", positions) for positions, _ in structures(16, seed=1)]
    predicted = predictor.scalars(atoms, batch_size=5)
    errors = np.abs(np.array(predicted) - [alpha for _, alpha in structures(16, seed=1)])
    assert errors.mean() == pytest.approx(after["alpha"]["mae"], rel=1e-9)
    with pytest.raises(UserError, match=r"it gives alpha \(a0³\), dipole \(e Å\), not energies"):
        predictor.predict(atoms)


def test_further_readouts_are_scaled():
    senders, receivers = fully_connected_edges(3)
    graph = make_graph(next(iter(structures(1)))[0], [8, 1, 1], senders, receivers)
    plain = Potential(model())
    name = next(name for name in plain.outputs(graph) if name != "energy")
    scaled = eqx.tree_at(lambda p: p.model, Potential(model(), scales=((name, 3.0),)), model())
    np.testing.assert_allclose(scaled(graph)[name], 3.0 * plain(graph)[name])
    np.testing.assert_allclose(scaled(graph)["energy"], plain(graph)["energy"])
