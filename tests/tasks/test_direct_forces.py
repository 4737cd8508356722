"""Forces as vectors of the model: they conform, are learnt and judged by the loss of forces; nothing simulates with them."""

import json

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from equiform.cli.app import app
from equiform.data.pipeline.dataset import Dataset
from equiform.deploy.predictor import load
from equiform.errors import UserError
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig
from equiform.tasks.direct_forces import DirectForces
from equiform.testing import check, checks_for
from equiform.training.config import EnergyLoss, ForcesLoss, Losses, TrainingConfig
from equiform.training.scale import initial_task, loss_terms_of
from tests.training.test_evaluate import data

SMALL = {"num_layers": 1, "channels": 8, "num_heads": 2, "num_basis": 8, "cutoff": 4.0}


def model(**changes):
    config = TorchMDETConfig(**{"elements": (1, 6, 8), "vector_readouts": ("forces",), **SMALL, **changes})
    return TorchMDET(config, key=jax.random.key(0))


def test_the_forces_rotate_with_the_molecule_and_conform():
    task = DirectForces(model(), scale=2.0)
    names = checks_for(task)
    assert "forces_are_the_gradient" not in names
    for name in (
        "symmetries_are_as_declared",
        "padding_changes_nothing",
        "batches_are_independent",
        "saving_and_loading_is_exact",
    ):
        assert name in names
        check(name, task)


def test_a_vector_named_forces_is_learnt_by_the_loss_of_forces():
    train = data()
    task = initial_task(model(), TrainingConfig(), train, (1, 8))
    assert isinstance(task, DirectForces) and task.quantity == "forces" and task.unit == "eV/Å"
    assert task.scale == pytest.approx(train.forces_rms)
    losses = Losses(energy=EnergyLoss(), forces=ForcesLoss(weight=3.0, kind="mse"))
    assert loss_terms_of(TrainingConfig(losses=losses), task) == {"forces": losses.forces}
    graphs = [graph.replace(node_fields={"forces": np.full((len(graph.species), 3), np.nan)}) for graph in train]
    with pytest.raises(UserError, match="the training data have none"):
        initial_task(model(), TrainingConfig(), Dataset(graphs, train.cutoff), (1, 8))
    with pytest.raises(ValueError, match="predicts no vector 'forces'"):
        DirectForces(model(vector_readouts=()))


def test_a_run_is_judged_by_forces_and_refuses_to_simulate(tmp_path):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(12):
        atoms = Atoms("OH2", [[0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]] + 0.1 * rng.normal(size=(3, 3)))
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = 0.0, rng.normal(size=(3, 3))
        frames.append(atoms)
    write(tmp_path / "data.xyz", frames, format="extxyz")
    settings = [f"model.{name}={value}" for name, value in SMALL.items()]
    command = ["train", str(tmp_path / "data.xyz"), "model=torchmd-et", "model.vector_readouts=[forces]", *settings]
    command += ["training.max_steps=2", "data.reference_energies=none", f"run.folder={tmp_path / 'run'}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    errors = json.loads((tmp_path / "run" / "errors.json").read_text())["validation"]
    assert set(errors) == {"forces"} and errors["forces"]["unit"] == "eV/Å"
    judged = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), str(tmp_path / "data.xyz"), "--json"])
    assert judged.exit_code == 0, judged.output
    assert json.loads(judged.stdout)["forces"]["mae"] > 0
    with pytest.raises(UserError, match="direct forces task: it gives forces"):
        _ = load(tmp_path / "run").potential
