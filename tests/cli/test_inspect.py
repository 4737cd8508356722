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
    assert "ethanol" in Result("recipe", "list").out
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
