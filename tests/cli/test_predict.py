"""`equiform evaluate` and `predict`: what is printed and written, and models and outputs that do not fit."""

import json
import os
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from tests.cli.commands import Result, save_toy, structures, write


def test_evaluate_prints_exactly_one_json_object(trained, data):
    result = Result("evaluate", trained[0], data, "--json")
    assert result.status == 0
    errors = json.loads(result.out)
    assert set(errors) == {"energy_per_atom", "forces", "stress"}
    assert all(set(entry) == {"mae", "rmse", "unit"} for entry in errors.values())
    assert [entry["unit"] for entry in errors.values()] == ["eV/atom", "eV/Å", "eV/Å³"]
    assert errors["stress"]["mae"] is None


def test_evaluate_says_that_energies_are_not_ev(trained, tmp_path):
    water = molecule("H2O")
    water.info["energy"] = -76.404702  # Hartree, B3LYP
    ase.io.write(tmp_path / "hartree.xyz", [water], format="extxyz")
    result = Result("evaluate", trained[0], tmp_path / "hartree.xyz", "--json")
    assert result.status == 0 and set(json.loads(result.out)) == {"energy_per_atom", "forces", "stress"}
    assert "is the energy in Hartree" in result.err and "data.energy_unit=Hartree" in result.err


def test_evaluate_names_its_own_options(trained, data, tmp_path):
    line = Result("evaluate", trained[0], data, "--energy-key", "enrgy").error()
    assert "--energy-key enrgy: not in the file" in line and "data." not in line
    ase.io.write(tmp_path / "bare.xyz", molecule("H2O"), format="extxyz")
    assert "--energy-key …" in Result("evaluate", trained[0], tmp_path / "bare.xyz").error()


def test_evaluate_agrees_with_predict_and_numpy(trained, data, tmp_path):
    errors = json.loads(Result("evaluate", trained[0], data, "--json", "--dtype", "float64").out)
    said = Result("predict", trained[0], data, "-o", "p.extxyz", "--dtype", "float64")
    assert said.status == 0 and "force components" in said.out and "REF_energy" in said.out
    predicted, reference = ase.io.read(tmp_path / "p.extxyz", ":"), ase.io.read(data, ":")
    difference = np.array([p.get_forces() - r.get_forces() for p, r in zip(predicted, reference)])
    energy = np.array([(p.get_potential_energy() - r.get_potential_energy()) / 3 for p, r in zip(predicted, reference)])
    assert errors["forces"]["mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-10)
    assert errors["forces"]["rmse"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-10)
    assert errors["energy_per_atom"]["mae"] == pytest.approx(np.abs(energy).mean(), rel=1e-9)
    # The labels are still there, under names of their own.
    for frame, source in zip(predicted, reference):
        assert frame.info["REF_energy"] == source.get_potential_energy()
        assert np.array_equal(frame.arrays["REF_forces"], source.get_forces())


def test_evaluate_prints_a_table_with_units(trained, data):
    result = Result("evaluate", trained[0], data)
    assert result.status == 0 and "meV/Å" in result.out and "force components" in result.out


def test_predictions_read_back_to_the_same_float64(trained, tmp_path):
    from equiform.deploy.predictor import load

    crystal = bulk("C", "diamond", a=3.567890123456789)
    crystal.positions[0] += 1 / 3
    crystal.info |= {"label": "a b=[c]", "REF_energy": -1.0, "energy": 5.0}
    ase.io.write("in.extxyz", [*structures(2), crystal], format="extxyz")
    given = ase.io.read("in.extxyz", ":")
    model = tmp_path / "model"
    save_toy(model)
    assert Result("predict", model, "in.extxyz", "-o", "out.extxyz", "--dtype", "float64").status == 0
    written = ase.io.read("out.extxyz", ":")
    expected = load(model, dtype="float64").predict(given)
    for atoms, prediction, source in zip(written, expected, given, strict=True):
        assert atoms.get_potential_energy() == prediction.energy
        assert np.array_equal(atoms.get_forces(), prediction.forces)
        assert np.array_equal(atoms.positions, source.positions)
        assert np.array_equal(atoms.cell.array, source.cell.array) and (atoms.pbc == source.pbc).all()
    assert np.array_equal(written[2].get_stress(voigt=False), expected[2].stress)
    assert written[2].info["label"] == "a b=[c]" and written[2].info["REF_energy"] == -1.0


def test_a_lone_atom_has_its_reference_energy(tmp_path):
    save_toy(tmp_path / "model")
    write("atom.xyz", [Atoms("O")])
    assert Result("predict", "model", "atom.xyz", "-o", "out.extxyz").status == 0
    assert ase.io.read("out.extxyz").get_potential_energy() == -10.0


def test_unknown_elements_at_prediction(trained):
    write("iron.xyz", [Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]])])
    assert "Fe" in Result("predict", trained[0], "iron.xyz", "-o", "out.extxyz").error()
    assert "Fe" in Result("evaluate", trained[0], "iron.xyz").error()
    assert not Path("out.extxyz").exists()


def test_of_the_elements_of_a_model_those_are_known_that_the_data_have(data, trained, tmp_path):
    # The toy model is made for H, C and O; water was learnt.
    ase.io.write(tmp_path / "methane.xyz", molecule("CH4"))
    line = Result("predict", trained[0], tmp_path / "methane.xyz", "-o", "p.xyz").error()
    assert "has C, but the model knows only H, O" in line


def test_wrong_models(data, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.json").write_text("{}")
    save_toy(tmp_path / "future")
    config = tmp_path / "future" / "config.json"
    config.write_text(config.read_text().replace('"format_version": 2', '"format_version": 99'))
    assert "version" in Result("evaluate", "future", data).error()
    for wrong in ("folder", "file.json", data):
        Result("evaluate", wrong, data).error()


def test_an_existing_output_is_kept(trained, data, tmp_path):
    Path("out.extxyz").write_text("precious")
    assert "exists already" in Result("predict", trained[0], data, "-o", "out.extxyz").error()
    assert Path("out.extxyz").read_text() == "precious"
    assert Result("predict", trained[0], data, "-o", "out.extxyz", "--overwrite").status == 0
    assert "name the file" in Result("predict", trained[0], data, "-o", "out.txt").error()
    assert "does not exist" in Result("predict", trained[0], data, "-o", "no/out.extxyz").error()


def test_a_full_disk_ends_with_one_line(trained, data, monkeypatch):
    import errno

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("equiform.data.formats.extxyz.os.fsync", full)
    message = Result("predict", trained[0], data, "-o", "out.extxyz").error()
    assert "No space left" in message and "out.extxyz" in message
    assert not list(Path().glob("*out.extxyz*"))
