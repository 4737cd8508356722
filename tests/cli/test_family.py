"""Every architecture on one's own data, in one word: trained, evaluated, simulated, and used through ASE."""

import json

import ase.io
import numpy as np
import pytest
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

import equiform
from equiform.data.formats.read import read_structures
from tests.cli.commands import Result

SMALL = {
    "torchmd-et": ["model.channels=16", "model.num_layers=2", "model.num_heads=2"],
    "egnn": ["model.channels=16", "model.num_layers=2"],
    "se3-transformer": ["model.channels=8", "model.num_layers=1", "model.l_max=1", "model.num_heads=2"],
    "demetar": ["model.channels=16", "model.node_layers=1", "model.edge_layers=1", "model.joint_layers=1"],
}


def ethanol():
    from importlib import resources

    return read_structures(str(resources.files("equiform") / "data" / "shipped" / "ethanol_train.extxyz"))


@pytest.mark.slow  # Each compiles training, evaluation, dynamics and a calculator.
@pytest.mark.parametrize("name", SMALL)
def test_an_architecture_goes_all_the_way_on_the_shipped_data(name, tmp_path):
    frames = ethanol()
    for path, part in (("few.xyz", frames[:30]), ("test.xyz", frames[30:36]), ("start.xyz", frames[36:37])):
        ase.io.write(tmp_path / path, part, format="extxyz")
    settings = [f"model={name}", *SMALL[name], "training.max_steps=4", "training.batch_size=4"]
    trained = Result("train", "few.xyz", *settings, "-o", "run")
    assert trained.status == 0, trained.err
    errors = json.loads(Result("evaluate", "run", "test.xyz", "--json").out)
    assert np.isfinite([errors["forces"]["mae"], errors["energy_per_atom"]["mae"]]).all()
    moved = Result("md", "run", "start.xyz", "--temperature", 50, "--steps", 20, "--interval", 10, "-o", "md.xyz")
    assert moved.status == 0, moved.err
    assert len(ase.io.read(tmp_path / "md.xyz", ":")) == 3

    atoms = frames[36].copy()
    atoms.calc = equiform.calculator(tmp_path / "run", dtype="float64")
    chosen = [0, 4]
    expected = calculate_numerical_forces(atoms, eps=1e-4, iatoms=chosen)
    np.testing.assert_allclose(atoms.get_forces()[chosen], expected, rtol=1e-5, atol=1e-6)
    # A cell so small that molecules see their images.
    crystal = frames[36].copy()
    crystal.set_cell([[6.0, 0, 0], [1.0, 6.5, 0], [0, 0.5, 7.0]])
    crystal.pbc = True
    crystal.calc = equiform.calculator(tmp_path / "run", dtype="float64")
    expected = calculate_numerical_stress(crystal, eps=1e-5, voigt=True)
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(crystal.get_stress(), expected, rtol=1e-4, atol=1e-8)
