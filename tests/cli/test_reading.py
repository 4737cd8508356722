"""One rule for reading in every command: units, types, what goes along with a structure, and what is said."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from tests.cli.commands import Result, save_toy

BOHR, EH = 0.529177210903, 27.211386245988


@pytest.fixture
def model(tmp_path):
    save_toy(tmp_path / "model")
    return tmp_path / "model"


def water_in_bohr():
    atoms = molecule("H2O")
    atoms.positions /= BOHR
    atoms.info.update(energy=-76.4, length_unit="Bohr", energy_unit="Hartree")
    return atoms


def test_predict_relax_and_md_obey_the_units_of_the_file(model):
    ase.io.write("bohr.xyz", water_in_bohr(), format="extxyz")
    ase.io.write("angstrom.xyz", molecule("H2O"), format="extxyz")
    energies = []
    for name in ("bohr", "angstrom"):
        assert Result("predict", model, f"{name}.xyz", "-o", f"p-{name}.xyz", "--dtype", "float64").status == 0
        energies.append(ase.io.read(f"p-{name}.xyz").get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)  # ASE writes positions with eight decimals
    header = Path("p-bohr.xyz").read_text().splitlines()[1]
    assert "energy_unit=eV length_unit=Angstrom" in header and "Hartree" not in header
    Result("relax", model, "bohr.xyz", "-o", "r.xyz", "--steps", "0")
    assert Result("md", model, "bohr.xyz", "-o", "m.xyz", "--steps", "0", "--temperature", "10").status == 0
    for name in ("r.xyz", "m.xyz"):
        assert ase.io.read(name).get_distance(0, 1) == pytest.approx(molecule("H2O").get_distance(0, 1), abs=1e-6)
        assert "length_unit=Angstrom" in Path(name).read_text()


def test_evaluate_takes_the_file_before_what_the_model_remembers(model):
    config = model / "config.json"
    content = json.loads(config.read_text())
    content.setdefault("metadata", {})["data"] = {"energy_unit": "kcal/mol", "length_unit": "Å", "train": "x"}
    config.write_text(json.dumps(content))
    atoms = molecule("H2O")
    atoms.info["energy"] = -1.0
    ase.io.write("none.xyz", atoms, format="extxyz")
    atoms.info["energy_unit"] = "Hartree"
    ase.io.write("own.xyz", atoms, format="extxyz")
    atoms.info["energy_unit"] = "eV"
    ase.io.write("ev.xyz", atoms, format="extxyz")
    found = {}
    for name, more in (("none", []), ("own", []), ("ev", []), ("given", ["data.energy_unit=eV"])):
        result = Result(
            "evaluate", model, "own.xyz" if name == "given" else f"{name}.xyz", *more, "--json", "--dtype", "float64"
        )
        found[name] = json.loads(result.out)["energy_per_atom"]["mae"]
    # The energy of the model is below all of these, so that errors differ by the differences of the labels.
    assert found["own"] - found["ev"] == pytest.approx((1 - EH) / 3, rel=1e-9)
    assert found["none"] - found["ev"] == pytest.approx((1 - 0.0433641042) / 3, rel=1e-6)
    assert found["given"] == pytest.approx(found["ev"], rel=1e-12)


def slab():
    atoms = Atoms("C2HO", positions=[[0, 0, 0], [1.3, 0, 0], [0, 1.1, 0.4], [1.2, 1.1, 0.5]], cell=[6, 6, 9], pbc=[1, 1, 0])
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.set_masses([12.0, 13.0, 2.014, 18.0])
    atoms.set_tags([2, 1, 0, 0])
    atoms.set_initial_charges([0.1, -0.1, 0.2, -0.2])
    atoms.info.update(name="slab one", note="", REF_energy=-1.5)
    return atoms


def test_what_a_structure_says_survives_every_command(model):
    # ASE writes the constraint only where it is asked for it.
    columns = ["symbols", "positions", "move_mask", "masses", "tags", "initial_charges"]
    ase.io.write("slab.xyz", slab(), format="extxyz", columns=columns)
    assert Result("predict", model, "slab.xyz", "-o", "p.xyz").status == 0
    Result("relax", model, "p.xyz", "-o", "r.xyz", "--steps", "2", "--trajectory", "t.xyz")
    assert Result("md", model, "r.xyz", "-o", "m.xyz", "--steps", "4", "--interval", "2", "--temperature", "50").status == 0
    assert Result("md", model, "--resume", "m.restart.npz", "--time", "0.004").status == 0
    for name in ("p.xyz", "r.xyz", "t.xyz", "m.xyz"):
        for atoms in ase.io.read(name, ":"):
            assert list(atoms.constraints[0].get_indices()) == [0, 1], name
            np.testing.assert_allclose(atoms.positions[:2], slab().positions[:2], atol=1e-6)
            np.testing.assert_allclose(atoms.get_masses(), slab().get_masses())
            assert atoms.get_tags().tolist() == [2, 1, 0, 0] and atoms.info["name"] == "slab one"
            np.testing.assert_allclose(atoms.get_initial_charges(), slab().get_initial_charges())
            assert ("REF_energy" in atoms.info) == (name == "p.xyz"), "a label of other positions"
    assert [atoms.info["step"] for atoms in ase.io.read("m.xyz", ":")] == [0, 2, 4, 6, 8]  # 0.004 ps of 0.5 fs


def test_info_takes_settings_and_says_each_thing_once(tmp_path):
    atoms = [molecule("H2O") for _ in range(3)]
    for k, structure in enumerate(atoms):
        structure.info.update({"pbe_energy": -14.0 - k, "ccsd_energy": -15.0 - k})
    ase.io.write("a.xyz", atoms, format="extxyz")
    assert "data.energy_key=" in Result("info", "a.xyz").error()
    result = Result("info", "a.xyz", "data.energy_key=pbe_energy")
    assert result.status == 0 and "'pbe_energy' in 3 of 3" in result.out
    lines = [line for line in result.err.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert "only settings of the data" in Result("info", "a.xyz", "model.name=egnn").error()


def test_types_of_lammps_are_asked_for_and_taken(model):
    Path("a.dump").write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
        "ITEM: ATOMS id type x y z\n1 1 0 0 0\n2 2 0 0 1.1\n"
    )
    assert "--types C,H" in Result("predict", model, "a.dump", "-o", "p.xyz").error()
    assert Result("predict", model, "a.dump", "-o", "p.xyz", "--types", "C,O").status == 0
    assert ase.io.read("p.xyz").get_chemical_formula() == "CO"
