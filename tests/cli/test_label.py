"""`equiform label`, `equiform models`, and SMILES where a structure is expected."""

import ase.io
import pytest

from tests.cli.commands import Result


def test_structures_are_labelled_by_any_calculator(data, tmp_path):
    done = Result("label", data, "-o", "labelled.extxyz", "--with", "ase.calculators.emt:EMT")
    assert done.status == 0, done.err
    labelled = ase.io.read(tmp_path / "labelled.extxyz", ":")
    assert len(labelled) == 12 and labelled[0].info["method"] == "ase.calculators.emt:EMT"
    assert "exists" in Result("label", data, "-o", "labelled.extxyz").error()
    assert "no method 'dft'" in Result("label", data, "-o", "other.extxyz", "--with", "dft").error()


def test_a_molecule_is_relaxed_from_its_smiles(trained):
    pytest.importorskip("rdkit")
    done = Result("relax", trained[0], "SMILES:O", "-o", "water.extxyz", "--fmax", 0.05, "--dtype", "float64")
    assert done.status == 0, done.err
    assert sorted(ase.io.read("water.extxyz").symbols) == ["H", "H", "O"]
    assert "not a SMILES" in Result("relax", trained[0], "SMILES:C1CC", "-o", "other.extxyz").error()


def test_names_of_models_that_are_not_there_list_those_that_are():
    assert "no model 'organic'" in Result("models", "organic").error()
    assert "no such model or run folder" in Result("relax", "organic-gfn3", "SMILES:O", "-o", "other.extxyz").error()


def test_a_missing_package_is_one_line_with_what_to_install(monkeypatch):
    import sys

    for name in ("rdkit", "tblite.ase"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'equiform[polymers]'" in Result("label", "SMILES:O", "-o", "water.extxyz").error()
    assert "pip install 'equiform[polymers]'" in Result("data", "make", "polymers", "-o", "set").error()
