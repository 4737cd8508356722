"""The report: facts that can be counted, and warnings only where the evidence is plain."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from equiform.data import units
from equiform.data.formats.reading import label_structures
from equiform.data.pipeline.belonging import Slope, energy_force_slope, slope_warning
from equiform.data.pipeline.inspect import inspect, leaked
from equiform.data.pipeline.plausibility import energy_unit_warning
from equiform.neighbors import Labels
from tests.data.samples import isolated_atoms, labelled, molecules

EH, BOHR, KCAL, KJ = units.HARTREE, units.BOHR, units.KCAL_MOL, units.KCAL_MOL / 4.184


def warnings_of(structures):
    return inspect(label_structures(structures)).warnings


def test_facts_are_counted():
    structures = labelled(molecules(20)) + isolated_atoms()
    text = "\n".join(inspect(label_structures(structures)).lines())
    assert "20 of 1 compositions: C2H6O (20)" in text
    assert "H (120), C (40), O (20)" in text
    assert "9 to 9 per structure" in text and "not periodic (20)" in text
    assert "H -13.6, C -1029, O -2041 eV (isolated atoms)" in text
    assert "3 isolated atoms" in text
    lengths = np.concatenate([a.get_all_distances()[np.triu_indices(9, 1)] for a in structures[:20]])
    assert f" {lengths.min():.2f}" in text


def test_sound_data_give_no_warnings():
    assert warnings_of(labelled(molecules(30)) + isolated_atoms()) == ()


@pytest.mark.parametrize("turned", [False, True])
def test_slope_of_consistent_data_is_one(turned):
    structures = molecules(30, turned=turned)
    labels = [Labels(a.info["true"], a.arrays["true_f"]) for a in structures]
    slope = energy_force_slope(structures, labels)
    assert slope.value == pytest.approx(1, abs=0.05) and slope.correlation > 0.95


@pytest.mark.parametrize(
    ("energy", "forces", "said"),
    [
        (1 / EH, 1.0, "energies in Hartree with forces in eV/Å"),
        (1 / EH, BOHR / EH, "energies in Hartree with forces in Hartree/Bohr"),
        (1.0, BOHR / EH, "energies in eV with forces in Hartree/Bohr"),
        (1 / KCAL, 1.0, "energies in kcal/mol with forces in eV/Å"),
        (1.0, 1 / KCAL, "energies in eV with forces in kcal/mol/Å"),
        (1 / KJ, 1.0, "energies in kJ/mol with forces in eV/Å"),
        (1000.0, 1.0, "energies in meV with forces in eV/Å"),
        (1.0, -1.0, "sign is wrong; the forces are probably gradients"),
    ],
)
def test_units_that_contradict_each_other_are_recognised(energy, forces, said):
    found = warnings_of(labelled(molecules(30), energy=energy, forces=forces))
    assert any(said in line for line in found), found


def test_sound_data_far_apart_are_not_accused():
    # Between far frames the trapezoid misses the anharmonic part: 500 frames of 3BPA at 300 K give 0.58 to 0.8.
    slopes = [Slope(0.58, 0.95, 20, distance) for distance in (0.7, 0.2)]
    assert slope_warning(slopes[0]) is None
    assert "energies and forces are not in eV" in (slope_warning(slopes[1]) or "")
    assert "are not in eV" in (slope_warning(Slope(0.58 / EH, 0.95, 20, 0.7)) or "")
    assert "sign is wrong" in (slope_warning(Slope(-0.58, 0.95, 20, 0.7)) or "")


def test_unit_set_by_the_user_silences_the_warning():
    from equiform.data.config import DataConfig

    structures = labelled(molecules(30), energy=1 / EH, forces=BOHR / EH)
    config = DataConfig(train="x", energy_unit="Hartree", forces_unit="Hartree/Bohr")
    assert not any("eV" in line for line in inspect(label_structures(structures, config)).warnings)


def test_slope_works_across_periodic_boundaries():
    rng = np.random.default_rng(0)
    cell = np.array([[5.0, 0, 0], [1.0, 5.0, 0], [0.3, 0.2, 5.0]])
    site = rng.random((4, 3)) @ cell
    structures, labels = [], []
    for _ in range(12):
        step = 0.1 * rng.normal(size=(4, 3))
        step -= step.mean(axis=0)
        wraps = rng.integers(-1, 2, size=(4, 3)) @ cell
        structures.append(Atoms("Si4", positions=site + step + wraps, cell=cell, pbc=True))
        labels.append(Labels(float((step**2).sum()), -2 * step))
    slope = energy_force_slope(structures, labels)
    assert slope.value == pytest.approx(1, abs=1e-6) and slope.correlation == pytest.approx(1, abs=1e-6)


# Published total energies: methane and water, B3LYP (QM9: U0, Hartree); ethanol GFN2-xTB, about −11.39 Hartree;
# PAW energies of VASP for water −14.2 eV, methane −24.0 eV, silicon −5.42 eV per atom; H2 −6.77 eV.
WATER, METHANE = Atoms("OH2", positions=np.eye(3)), Atoms("CH4", positions=np.arange(15.0).reshape(5, 3))


@pytest.mark.parametrize(
    ("atoms", "energy", "unit"),
    [
        (METHANE, -40.47893, "Hartree"),
        (WATER, -76.404702, "Hartree"),
        (METHANE, -40.47893 / KCAL * EH, "kcal/mol"),
        (WATER, -76.404702 * EH / KJ, "kJ/mol"),
        (METHANE, -40.47893 * EH, None),
        (WATER, -76.404702 * EH, None),
        (WATER, -14.2, None),
        (METHANE, -24.0, None),
        (Atoms("Si2", positions=np.eye(3)[:2]), -10.84, None),
        (Atoms("H2", positions=np.eye(3)[:2]), -6.77, None),
        (Atoms("H2", positions=np.eye(3)[:2]), -1.17 * EH, None),
        (Atoms("LiH", positions=np.eye(3)[:2]), -6.1, None),
        (Atoms("C2H6O", positions=np.arange(27.0).reshape(9, 3)), -11.39 * EH, None),
        (Atoms("Pt2", positions=np.eye(3)[:2]), -12.1, None),
        (WATER, 3.0, None),
    ],
)
def test_total_energies_that_cannot_be_ev_are_recognised(atoms, energy, unit):
    said = energy_unit_warning([atoms] * 3, [Labels(energy)] * 3)
    assert (said is None) if unit is None else f"energy_unit={unit}" in said


def test_overlapping_and_misscaled_positions_are_reported():
    structures = labelled(molecules(12))
    near = structures[3].copy()
    near.positions[1] = near.positions[0] + [0.35, 0, 0]
    near.calc = SinglePointCalculator(near, energy=structures[3].calc.results["energy"])
    assert any("atoms overlap in 1 structures" in line and "0.35 Å" in line for line in warnings_of([*structures, near]))
    water = [[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]
    for scale, said in ((1 / BOHR, "look like Bohr"), (0.12, "look like nm"), (1.0, None)):
        atoms = [Atoms("OH2", scale * np.array(water), info={"energy": -14.0}) for _ in range(3)]
        found = [line for line in warnings_of(atoms) if "positions look like" in line]
        assert (not found) if said is None else said in found[0]


def test_duplicates_and_contradictions_are_counted():
    structures = labelled(molecules(10))
    again = structures[2].copy()
    again.positions += 5.0
    again.calc = SinglePointCalculator(again, energy=structures[2].calc.results["energy"] + 3.0)
    found = warnings_of([*structures, again, structures[4]])
    assert any("2 structures repeat an earlier one (structure 10 is structure 2)" in line for line in found)
    assert any("1 repeated structures have different energies (structure 2 and structure 10: 3 eV)" in line for line in found)


def test_outliers_are_named():
    structures = labelled(molecules(30))
    structures[7].calc.results["energy"] += 90.0
    structures[9].calc.results["forces"] = structures[9].calc.results["forces"] + 500.0
    found = warnings_of(structures)
    assert any("1 energies are far from the rest: structure 7" in line for line in found)
    assert any("extreme forces" in line and "structure 9" in line for line in found)


def test_reference_energies_of_another_method_are_noticed():
    structures = labelled(molecules(20)) + isolated_atoms({1: -3.0, 6: -8.0, 8: -10.0})
    assert any("do not fit the energies" in line for line in warnings_of(structures))
    structures = labelled(molecules(20)) + isolated_atoms({1: -20.0, 6: -1040.0, 8: -2050.0})
    assert any("unbound by" in line for line in warnings_of(structures))


def test_missing_labels_and_huge_stresses_are_counted():
    structures = labelled(molecules(10))
    del structures[1].calc.results["forces"]
    del structures[2].calc.results["energy"]
    found = warnings_of(structures)
    assert any("1 of 10 structures have no forces" in line for line in found)
    assert any("1 of 10 structures have no energy" in line for line in found)
    rng = np.random.default_rng(0)
    for atoms in structures:
        atoms.set_cell([9, 9, 9])
        atoms.pbc = True
        atoms.calc.results["stress"] = 300 * rng.normal(size=6)
    assert any("GPa or kbar" in line for line in warnings_of(structures))


def test_unusable_structures_are_counted_and_not_fatal():
    structures = labelled(molecules(5))
    structures[1].positions[0] = np.nan
    assert any("1 of 5 structures are left out" in line for line in warnings_of(structures))


@pytest.mark.parametrize(
    "structures", [isolated_atoms(), labelled(molecules(1)), [Atoms("H2", positions=np.eye(3)[:2] * 40, info={"energy": 0.0})]]
)
def test_few_structures_are_enough_for_a_report(structures):
    assert inspect(label_structures(structures)).lines()


def test_structures_shared_between_sets_are_counted():
    structures = molecules(6)
    moved = structures[0].copy()
    moved.positions += 3.0
    assert leaked(structures[:4], {"test": [moved, structures[3], structures[5]]}) == [
        "2 of 3 test structures are also in the training set"
    ]
