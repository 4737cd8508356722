"""`equiform info` and `recipe`."""

import json
import re

import ase.io
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from tests.cli.commands import Result, structures, write


def test_info_describes_data_model_and_run(trained, data):
    run, _ = trained
    assert "structures" in Result("info", data).out
    model = Result("info", run / "best").out
    assert "toy" in model and "cutoff: 4 Å" in model and "elements: H, O" in model
    whole = Result("info", run).out
    assert "meV/Å" in whole and "name: toy" in whole


def test_info_of_structures_without_labels_warns(tmp_path):
    ase.io.write("bare.xyz", molecule("H2O"), format="extxyz")
    result = Result("info", "bare.xyz")
    assert result.status == 0 and "warning: no energies or forces" in result.err


def test_recipe_commands():
    short = Result("recipe", "list").out
    assert short.index("ethanol") < short.index("QM9, twelve") < short.index("simulated particles")
    assert max(map(len, short.splitlines())) <= 100 and "nbody-egnn" in short
    assert "md17-aspirin-l2" not in Result("recipe", "list", "qm9").out
    assert "did you mean 'qm9'" in Result("recipe", "list", "qm").error()
    assert "equiform:ethanol_train.extxyz" in Result("recipe", "show", "ethanol").out
    assert json.loads(Result("recipe", "schema").out)["title"] == "Equiform recipe"
    assert "did you mean 'ethanol'" in Result("recipe", "show", "ethanl").error()


def test_energies_in_hartree_are_warned_about():
    frames = []
    for atoms in structures(8):
        energy = -76.4 + atoms.get_potential_energy() / 27.2
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces() / 51.4)
        frames.append(atoms)
    write("hartree.xyz", frames)
    result = Result("info", "hartree.xyz")
    assert result.status == 0 and re.search(r"warning: .*Hartree", result.err)


def test_shipped_files_and_folders_are_understood(tmp_path):
    assert (
        "C2H6O" in Result("info", "equiform:ethanol_atoms.extxyz").out
        or "isolated atoms" in Result("info", "equiform:ethanol_atoms.extxyz").out
    )
    (tmp_path / "runs" / "one").mkdir(parents=True)
    write(str(tmp_path / "runs" / "one" / "a.xyz"), structures(2))
    write(str(tmp_path / "runs" / "b.xyz"), structures(3, seed=1))
    assert "5 of 5 structures" in Result("info", tmp_path / "runs").out.replace("2 of 2", "5 of 5")
    (tmp_path / "empty").mkdir()
    assert "folder without files of structures" in Result("info", tmp_path / "empty").error()


def test_charges_that_no_model_uses_are_said_once(tmp_path):
    frames = structures(4)
    frames[0].info["charge"] = 1
    frames[1].set_initial_magnetic_moments([1.0, 0.0, 0.0])
    frames[2].info["charge"] = 0
    write("charged.xyz", frames)
    lines = [line for line in Result("info", "charged.xyz").err.splitlines() if "does not use" in line]
    assert len(lines) == 1 and "charge in 1" in lines[0] and "magnetic moments in 1" in lines[0]
