"""Which names are taken for labels, and in which units they are read."""

import numpy as np
import pytest
from ase import Atoms, units as ase_units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from equiform.data import units
from equiform.data.config import DataConfig
from equiform.data.formats.labels import find_labels
from equiform.data.formats.read import read_structures
from equiform.data.formats.values import factor, read_labels
from equiform.errors import UserError


def water(info=None, arrays=None, **results):
    atoms = Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
    atoms.info.update(info or {})
    atoms.arrays.update(arrays or {})
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


FORCES = np.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_forces"),
        ("DFT_energy", "DFT_force"),
        ("TotEnergy", "force"),
        ("total_energy", "forces_ref"),
        ("energy_dft", "forces_dft"),
        ("free_energy", "force"),
        ("wb97m_energy", "wb97m_forces"),
        ("mace_energy", "mace_forces"),
    ],
)
def test_usual_names_are_found(energy, forces):
    structures = [water({energy: -14.0, "step": 3}, {forces: FORCES, "charges": np.zeros(3), "velocities": FORCES})]
    keys = find_labels(structures)
    assert (keys.energy, keys.forces, keys.stress) == (energy, forces, None)
    labels = read_labels(structures[0], keys)
    assert labels.energy == -14.0
    np.testing.assert_array_equal(labels.forces, FORCES)


def test_gradients_are_forces_with_the_other_sign():
    structures = [water({"DFT_energy": -14.0}, {"DFT_gradient": FORCES})]
    keys = find_labels(structures)
    assert keys.forces == "DFT_gradient" and any("read as the gradient" in note for note in keys.notes)
    np.testing.assert_array_equal(read_labels(structures[0], keys).forces, -FORCES)


def test_without_forces_the_arrays_that_could_be_them_are_named():
    keys = find_labels([water({"energy": -14.0}, {"accelerations": FORCES, "charges": np.zeros(3)})])
    assert any("data.forces_key=… if they are accelerations" in line for line in keys.warnings)
    keys = find_labels([water({"heat": -14.0}, {"forces": FORCES})])
    assert any("data.energy_key=… if they are heat" in line for line in keys.warnings)


def test_reference_names_beat_calculator_output_and_it_is_said():
    keys = find_labels([water({"REF_energy": -2.0}, {"REF_forces": FORCES}, energy=-1.0, forces=-FORCES)])
    assert (keys.energy, keys.forces) == ("REF_energy", "REF_forces")
    assert any("'REF_energy' is used" in line and "'energy'" in line for line in keys.warnings)


def test_rare_name_does_not_beat_one_that_all_have():
    structures = [water(energy=-1.0, forces=FORCES) for _ in range(10)]
    structures[0].info["REF_energy"] = -2.0
    assert find_labels(structures).energy == "energy"


def test_energy_is_preferred_to_free_energy():
    assert find_labels([water(energy=-1.0, free_energy=-1.1, forces=FORCES)]).energy == "energy"


@pytest.mark.parametrize("name", ["formation_energy", "kinetic_energy", "energy_unit", "energy_error", "zero_point_energy"])
def test_other_energies_are_not_taken_for_it(name):
    with pytest.raises(UserError, match=f"no energies or forces.*{name}" if "unit" not in name else "no energies"):
        find_labels([water({name: -1.0})])


def test_ambiguous_names_ask():
    with pytest.raises(UserError, match="energy_key"):
        find_labels([water({"pbe_energy": -1.0, "ccsd_energy": -2.0})])
    config = DataConfig(train="x", energy_key="ccsd_energy")
    assert find_labels([water({"pbe_energy": -1.0, "ccsd_energy": -2.0})], config).energy == "ccsd_energy"


def test_wrong_given_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean dft_energy"):
        find_labels([water({"dft_energy": -1.0})], DataConfig(train="x", energy_key="dft_enery"))
    with pytest.raises(UserError, match="shape of forces"):
        find_labels([water({"dft_energy": -1.0})], DataConfig(train="x", forces_key="dft_energy"))


def test_no_labels_lists_what_there_is():
    with pytest.raises(UserError, match=r"no energies or forces found in 1 structures.*homo"):
        find_labels([water({"homo": -0.3})])


@pytest.mark.parametrize(
    "atoms",
    [
        water({"energy": np.array([1.0, 2.0])}),
        water({"energy": "minus four"}),
        water({"energy": -1.0}, {"forces": np.zeros((3, 2))}),
        water({"energy": -1.0}, {"forces": np.zeros(3)}),
        water({"energy": -1.0, "stress": np.zeros(5)}),
        water({"energy": -1.0}, {"forces": np.array([["a", "b", "c"]] * 3)}),
    ],
)
def test_usual_name_of_wrong_shape_is_an_error_and_not_overlooked(atoms):
    with pytest.raises(UserError, match=r"structure 1 \(H2O\): '(energy|forces|stress)' should be"):
        find_labels([water(energy=-1.0, forces=FORCES), atoms])


def test_one_number_in_an_array_is_an_energy():
    assert read_labels(water({"energy": np.array([-3.0])}), find_labels([water({"energy": np.array([-3.0])})])).energy == -3


def test_missing_labels_are_none_and_counted():
    structures = [water(energy=-1.0, forces=FORCES), water(energy=-2.0), water(forces=FORCES)]
    keys = find_labels(structures)
    assert any("2 of 3" in note for note in keys.notes)
    assert read_labels(structures[1], keys).forces is None
    assert read_labels(structures[2], keys).energy is None


def test_forces_of_constrained_atoms_are_the_true_ones():
    atoms = water(energy=-1.0, forces=FORCES + 1)
    atoms.set_constraint(FixAtoms([0, 1]))
    np.testing.assert_array_equal(read_labels(atoms, find_labels([atoms])).forces, FORCES + 1)


def test_gradients_are_negated():
    atoms = water({"energy": -1.0}, {"gradient": FORCES})
    np.testing.assert_array_equal(read_labels(atoms, find_labels([atoms])).forces, -FORCES)


def crystal(**info):
    atoms = Atoms("Si", cell=[2.0, 3.0, 4.0], pbc=True)
    atoms.info.update({"energy": -5.0, **info})
    return atoms


SYMMETRIC = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])


@pytest.mark.parametrize("stress", [SYMMETRIC, SYMMETRIC.ravel(), np.arange(1.0, 7.0)])
def test_stress_as_matrix_nine_or_voigt(stress):
    atoms = crystal(stress=stress)
    np.testing.assert_array_equal(read_labels(atoms, find_labels([atoms])).stress, SYMMETRIC)


@pytest.mark.parametrize("name", ["virial", "REF_virial", "virials", "dft_virial"])
def test_virial_is_minus_volume_times_stress(name):
    atoms = crystal(**{name: SYMMETRIC})
    keys = find_labels([atoms])
    assert keys.virial
    np.testing.assert_allclose(read_labels(atoms, keys).stress, -SYMMETRIC / 24.0)


def test_stress_is_preferred_to_virial_and_ignored_without_periodicity():
    atoms = crystal(stress=SYMMETRIC, virial=SYMMETRIC)
    keys = find_labels([atoms])
    assert keys.stress == "stress" and not keys.virial
    atoms.pbc = False
    assert read_labels(atoms, keys).stress is None


def test_stress_written_by_ase_comes_back_with_its_sign(tmp_path):
    atoms = Atoms("Si", cell=[2.0, 3.0, 4.0], pbc=True)
    voigt = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    atoms.calc = SinglePointCalculator(atoms, energy=-5.0, stress=voigt, forces=np.zeros((1, 3)))
    write(tmp_path / "a.xyz", atoms)
    read = read_structures(tmp_path / "a.xyz")
    np.testing.assert_allclose(read_labels(read[0], find_labels(read)).stress, SYMMETRIC)


def test_units_agree_with_those_of_ase():
    assert units.energy_factor("Hartree") == pytest.approx(ase_units.Hartree, rel=1e-7)
    assert units.energy_factor("kcal/mol") == pytest.approx(ase_units.kcal / ase_units.mol, rel=1e-7)
    assert units.energy_factor("kJ/mol") == pytest.approx(ase_units.kJ / ase_units.mol, rel=1e-7)
    assert units.energy_factor("Rydberg") == pytest.approx(ase_units.Rydberg, rel=1e-7)
    assert units.length_factor("Bohr") == pytest.approx(ase_units.Bohr, rel=1e-7)
    assert units.stress_factor("GPa") == pytest.approx(ase_units.GPa, rel=1e-7)
    assert units.stress_factor("kbar") == pytest.approx(0.1 * ase_units.GPa, rel=1e-7)
    assert units.forces_factor("Hartree/Bohr") == pytest.approx(ase_units.Hartree / ase_units.Bohr, rel=1e-7)
    assert units.stress_factor("Hartree/Bohr^3") == pytest.approx(ase_units.Hartree / ase_units.Bohr**3, rel=1e-7)


@pytest.mark.parametrize("text", ["ev/ang", "eV/A", "eV/Å", "eV/Angstrom", "eV*Å^-1"])
def test_spellings_of_a_unit_of_forces(text):
    assert units.forces_factor(text) == 1.0


@pytest.mark.parametrize("text", ["eV/A^3", "ev/Ang^3", "eV/Å³", "eV/A**3"])
def test_spellings_of_a_unit_of_stress(text):
    assert units.stress_factor(text) == 1.0


def test_unit_in_the_file_is_obeyed_and_the_configuration_overrules_it():
    atoms = water({"energy": -1.0, "energy_unit": "Hartree", "forces_unit": "Hartree/Bohr"}, {"forces": np.ones((3, 3))})
    labels = read_labels(atoms, find_labels([atoms]))
    assert labels.energy == pytest.approx(-27.2114, rel=1e-5)
    assert labels.forces[0, 0] == pytest.approx(51.4221, rel=1e-5)
    labels = read_labels(atoms, find_labels([atoms], DataConfig(train="x", energy_unit="kcal/mol")))
    assert labels.energy == pytest.approx(-0.0433641, rel=1e-5)


def test_units_carry_over_to_forces_and_stress():
    config = DataConfig(train="x", energy_unit="Hartree", length_unit="Bohr")
    keys = find_labels([crystal(stress=SYMMETRIC)], config)
    assert factor("forces", "forces", keys, {}) == pytest.approx(ase_units.Hartree / ase_units.Bohr, rel=1e-7)
    assert factor("stress", "stress", keys, {}) == pytest.approx(ase_units.Hartree / ase_units.Bohr**3, rel=1e-7)
    keys = find_labels([crystal(virial=SYMMETRIC)], DataConfig(train="x", energy_unit="Hartree"))
    assert factor("virial", "virial", keys, {}) == pytest.approx(ase_units.Hartree, rel=1e-7)


def test_unknown_unit_is_refused_with_the_setting_that_helps():
    atoms = water({"energy": -1.0, "energy_unit": "foot-pound"}, {"forces": FORCES})
    with pytest.raises(UserError, match=r"foot-pound.*data\.energy_unit="):
        read_labels(atoms, find_labels([atoms]))
    assert read_labels(atoms, find_labels([atoms], DataConfig(train="x", energy_unit="eV"))).energy == -1.0


def test_every_structure_speaks_for_its_own_units():
    structures = [water({"energy": -1.0, "energy_unit": "Hartree"}), water({"energy": -2.0})]
    keys = find_labels(structures)
    assert [read_labels(atoms, keys).energy for atoms in structures] == pytest.approx([-27.211386245988, -2.0])
