"""Oligomers, the plan of what is sampled, and molecules from SMILES."""

import numpy as np
import pytest

from equiform.data.sets import polymers
from equiform.errors import UserError


def test_chains_have_the_composition_of_their_units_and_two_methyl_caps():
    pytest.importorskip("rdkit")
    from rdkit.Chem import AddHs
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    # n units between CH3 caps: PE (CH2CH2)n → C(2n+2)H(4n+6); the others counted by hand.
    expected = {
        ("PE", 3): "C8H18",
        ("PVC", 2): "C6H12Cl2",
        ("PEO", 2): "C6H14O2",
        ("PDMS", 2): "C6H18O2Si2",
        ("NY6", 1): "C8H17NO",
    }
    for (name, units), formula in expected.items():
        assert CalcMolFormula(AddHs(polymers.chain(polymers.FAMILIES[name].unit, units))) == formula, name


def test_no_conformer_is_in_two_splits_and_unseen_families_never_train():
    planned = polymers.plan(polymers.find_families([]), 10)
    assert len({trajectory.name for trajectory in planned}) == len(planned)
    for trajectory in planned:
        family = polymers.FAMILIES.get(trajectory.family)
        if family is not None and family.unseen:
            assert trajectory.split == "unseen"
        if trajectory.split == "longer":
            assert family is not None and trajectory.units >= 1.5 * family.longest
    conformers = {(t.family, t.conformer): t.split for t in planned if t.split in ("train", "validation", "test")}
    again = {(t.family, t.conformer) for t in planned if t.split in ("train", "validation", "test")}
    assert set(conformers) == again
    per_family = [t.split for t in planned if t.family == "PE" and t.sampling == "method" and t.split != "longer"]
    assert (per_family.count("train"), per_family.count("validation"), per_family.count("test")) == (8, 1, 1)


def test_random_numbers_differ_between_trajectories():
    planned = polymers.plan(polymers.find_families([]), 10)
    states = {tuple(np.random.SeedSequence(t.seeds(1)).generate_state(4)) for t in planned}
    assert len(states) == len(planned)


def test_unknown_families_and_units_without_two_ends_are_refused():
    with pytest.raises(UserError, match="no family 'PEE'"):
        polymers.find_families(["PEE"])
    pytest.importorskip("rdkit")
    with pytest.raises(UserError, match="two open ends"):
        polymers.chain("*CC", 2)


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C1CC", "not a SMILES"),
        ("*CC*", "open ends"),
        ("[Na+]", r"net charge of \+1"),
        ("[CH3]", "1 unpaired electrons"),
        ("C12C3C4C1C5C2C3C45C#C1CC1", "cannot be embedded|not a SMILES"),
    ],
)
def test_what_cannot_be_embedded_is_refused_in_one_line(smiles, message):
    pytest.importorskip("rdkit")
    from equiform.data.formats.smiles import molecule_from_smiles

    with pytest.raises(UserError, match=message) as caught:
        molecule_from_smiles(smiles)
    assert "\n" not in str(caught.value)


def test_classical_forces_are_the_slope_of_the_energy_wherever_it_was_last_asked():
    pytest.importorskip("rdkit")
    from equiform.data.formats.smiles import atoms_of, embedded, mmff_calculator, parsed_smiles

    molecule = embedded(parsed_smiles("CCO"), "ethanol", 1)
    atoms = atoms_of(molecule)
    atoms.calc = mmff_calculator(molecule)
    atoms.rattle(0.05, seed=1)
    forces, step = atoms.get_forces(), 1e-4
    moved = []
    for sign in (1, -1):
        other = atoms.copy()
        other.calc = atoms.calc
        other.positions[0, 0] += sign * step
        moved.append(other.get_potential_energy())
    assert forces[0, 0] == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=1e-4)  # RDKit sums in kcal/mol
