"""Reference energies: measured, fitted, given."""

import numpy as np
import pytest
from ase import Atoms

from equiform.data.pipeline.reference_energies import find_reference_energies, is_isolated_atom
from equiform.errors import UserError
from equiform.neighbors import Labels

E0 = {1: -13.6, 6: -1029.0, 8: -2041.0}


def data(*formulas):
    structures = [Atoms(formula, positions=np.arange(3.0 * len(Atoms(formula))).reshape(-1, 3)) for formula in formulas]
    return structures, [Labels(energy=sum(E0[int(z)] for z in atoms.numbers)) for atoms in structures]


def lone(number, energy):
    return Atoms([number]), Labels(energy=energy)


def test_least_squares_recovers_additive_energies():
    found = find_reference_energies(*data("H2O", "CH4", "CO2", "C2H6O"), "auto")
    assert found.source == "least squares" and not found.warnings
    assert found.values == pytest.approx(E0, abs=1e-8)


@pytest.mark.parametrize("formulas", [("C2H6O",), ("C2H6O", "C4H12O2"), ("H2O", "CH4")])
def test_undetermined_fit_says_so_and_still_reproduces_the_energies(formulas):
    structures, labels = data(*formulas)
    found = find_reference_energies(structures, labels, "fit")
    assert any("do not determine" in line for line in found.warnings)
    for atoms, label in zip(structures, labels):
        assert sum(found.values[int(z)] for z in atoms.numbers) == pytest.approx(label.energy, abs=1e-7)


def test_isolated_atoms_are_taken_when_all_are_there():
    isolated = [lone(z, energy - 1) for z, energy in E0.items()]
    found = find_reference_energies(*data("H2O", "CH4", "CO2"), "auto", isolated)
    assert found.source == "isolated atoms"
    assert found.values == pytest.approx({z: energy - 1 for z, energy in E0.items()})


def test_missing_isolated_atoms_are_fitted_around_the_others():
    found = find_reference_energies(*data("H2O", "CH4", "CO2"), "auto", [lone(1, E0[1])])
    assert found.values == pytest.approx(E0, abs=1e-8)
    assert any("C, O" in line and "fitted" in line for line in found.warnings)
    with pytest.raises(UserError, match="no isolated atom of C, O"):
        find_reference_energies(*data("H2O", "CH4", "CO2"), "isolated", [lone(1, E0[1])])


def test_fit_ignores_isolated_atoms():
    isolated = [lone(z, 0.0) for z in E0]
    assert find_reference_energies(*data("H2O", "CH4", "CO2"), "fit", isolated).values == pytest.approx(E0, abs=1e-8)


def test_lowest_of_several_isolated_atoms_is_taken_with_a_warning():
    isolated = [lone(z, energy) for z, energy in E0.items()] + [lone(8, E0[8] - 2)]
    found = find_reference_energies(*data("H2O", "CH4"), "auto", isolated)
    assert found.values[8] == E0[8] - 2
    assert any("isolated atoms of O" in line for line in found.warnings)


def test_given_energies_are_checked():
    structures, labels = data("H2O")
    assert find_reference_energies(structures, labels, {"H": -1.0, "8": -2.0}).values == {1: -1.0, 8: -2.0}
    with pytest.raises(UserError, match="none is given for O"):
        find_reference_energies(structures, labels, {"H": -1.0})
    with pytest.raises(UserError, match="'Hx' is not an element"):
        find_reference_energies(structures, labels, {"Hx": -1.0})
    with pytest.raises(UserError, match="not a finite number"):
        find_reference_energies(structures, labels, {"H": np.nan, "O": 0.0})
    warned = find_reference_energies(structures, labels, {"H": -1.0, "O": -2.0}, [lone(1, -13.6)])
    assert any("is not that of the isolated atom" in line for line in warned.warnings)


def test_none_and_no_energies_subtract_nothing():
    structures, labels = data("H2O")
    assert find_reference_energies(structures, labels, "none").values == {}
    assert find_reference_energies(structures, [Labels()], "auto").values == {}


def test_structures_without_energy_do_not_disturb_the_fit():
    structures, labels = data("H2O", "CH4", "CO2", "H2O")
    found = find_reference_energies(structures, [*labels[:3], Labels()], "auto")
    assert found.values == pytest.approx(E0, abs=1e-8)


def test_primitive_cell_is_not_an_isolated_atom():
    assert is_isolated_atom(Atoms("Cu"))
    assert is_isolated_atom(Atoms("Cu", cell=[10, 10, 10], pbc=True))
    assert not is_isolated_atom(Atoms("Cu", cell=[2.5, 2.5, 2.5], pbc=True))
    assert not is_isolated_atom(Atoms("Cu", cell=[10, 10, 2.5], pbc=(False, False, True)))
    assert not is_isolated_atom(Atoms("H2", positions=[[0, 0, 0], [0, 0, 9]]))
