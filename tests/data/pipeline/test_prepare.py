"""From files to data sets: what a person gets without configuring anything, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from pydantic import ValidationError

from equiform.data.config import DataConfig
from equiform.data.prepare import prepare
from equiform.errors import UserError
from tests.data.samples import E0, isolated_atoms, labelled, molecules


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "train.xyz", labelled(molecules(30)) + isolated_atoms())
    write(tmp_path / "hot.xyz", labelled(molecules(6, seed=9)))
    return tmp_path


def config(files, **settings):
    return DataConfig(train=str(files / "train.xyz"), **settings)


def test_defaults_split_and_use_isolated_atoms(files):
    data = prepare(config(files, test={"hot": str(files / "hot.xyz")}), 4.0)
    assert (len(data.train), len(data.validation), len(data.tests["hot"])) == (27, 3, 6)
    assert data.elements == (1, 6, 8)
    assert data.reference_energies == pytest.approx(E0)
    assert data.report.warnings == ()
    assert any(
        "27 structures to train on, 3 for validation, 3 isolated atoms, 6 in test 'hot'" in line for line in data.report.lines()
    )
    # Every spring at rest is −40 eV by construction.
    assert data.train.energy.min() > -40.5 and data.train.energy.max() < -30


def test_is_repeatable_and_seeded(files):
    def positions(seed):
        return np.concatenate([graph.positions for graph in prepare(config(files, seed=seed), 4.0).validation])

    np.testing.assert_array_equal(positions(1), positions(1))
    assert np.abs(positions(1) - positions(2)).max() > 0.1


def test_validation_by_file_none_and_count_limit(files):
    data = prepare(config(files, validation=str(files / "hot.xyz")), 4.0)
    assert (len(data.train), len(data.validation)) == (30, 6)
    assert len(prepare(config(files, validation=None), 4.0).validation) == 0
    data = prepare(config(files, max_structures=10), 4.0)
    assert len(data.train) + len(data.validation) == 10


def test_single_structure_trains_without_validation_and_says_so(tmp_path):
    write(tmp_path / "train.xyz", labelled(molecules(1)))
    data = prepare(config(tmp_path), 4.0)
    assert (len(data.train), len(data.validation)) == (1, 0)
    assert any("no validation" in line for line in data.report.warnings)


def test_only_isolated_atoms_are_nothing_to_learn_from(tmp_path):
    write(tmp_path / "train.xyz", isolated_atoms())
    with pytest.raises(UserError, match="only isolated atoms"):
        prepare(config(tmp_path), 4.0)


def test_rare_element_stays_in_the_training_set(tmp_path):
    structures = labelled(molecules(8)) + labelled(molecules(1, symbols="C2H6S"))
    write(tmp_path / "train.xyz", structures)
    for seed in range(4):
        data = prepare(config(tmp_path, seed=seed, validation=0.8), 4.0)
        assert data.elements == (1, 6, 8, 16)


def test_unknown_element_in_a_test_set_is_named(files):
    write(files / "other.xyz", labelled(molecules(2, symbols="C2H6S")))
    with pytest.raises(UserError, match="the other structures contain S"):
        prepare(config(files, test=str(files / "other.xyz")), 4.0)


def test_lone_atoms_in_a_test_set_are_fine(files):
    write(files / "atoms.xyz", isolated_atoms())
    data = prepare(config(files, test=str(files / "atoms.xyz")), 4.0)
    np.testing.assert_allclose(data.tests["atoms"].energy, 0.0, atol=1e-9)


def test_shared_structures_are_warned_of(files):
    data = prepare(config(files, test=str(files / "train.xyz")), 4.0)
    assert "27 of 33 train structures are also in the training set" in data.report.warnings


def test_names_found_in_training_are_preferred_in_tests(files):
    odd = labelled(molecules(4, seed=3), names=("REF_energy", "REF_forces"))
    write(files / "train.xyz", odd)
    both = labelled(molecules(3, seed=4), names=("REF_energy", "REF_forces"))
    for atoms in both:
        atoms.info["dft_energy"] = 0.0
    write(files / "both.xyz", both)
    data = prepare(config(files, test=str(files / "both.xyz"), reference_energies="none"), 4.0)
    assert data.keys.energy == "REF_energy"
    assert (data.tests["both"].energy < -100).all()


def test_hartree_and_bohr_give_the_same_data(files, tmp_path):
    from equiform.data.units import BOHR, HARTREE

    plain = prepare(config(files, validation=None), 4.0)
    scaled = labelled(molecules(30), energy=1 / HARTREE, forces=BOHR / HARTREE) + isolated_atoms(
        {z: energy / HARTREE for z, energy in E0.items()}
    )
    for atoms in scaled:
        atoms.positions /= BOHR
    write(tmp_path / "train.xyz", scaled)
    other = prepare(config(tmp_path, validation=None, energy_unit="Hartree", length_unit="Bohr"), 4.0)
    np.testing.assert_allclose(other.train.energy, plain.train.energy, atol=1e-4)  # eight digits in the file
    np.testing.assert_allclose(other.train.forces_rms, plain.train.forces_rms, rtol=1e-6)
    np.testing.assert_array_equal(other.train.num_edges, plain.train.num_edges)


def test_frames_with_different_fields_and_boundaries(tmp_path):
    structures = labelled(molecules(6))
    structures[0].info["temperature"] = 300
    structures[1].info["comment"] = "odd one"
    structures[2].set_cell([20, 20, 20])
    structures[2].pbc = True
    structures[3].set_cell([20, 20, 20])
    structures[3].pbc = (True, False, False)
    structures[4].calc.results["stress"] = np.zeros(6)
    del structures[5].calc.results["forces"]
    write(tmp_path / "train.xyz", structures)
    data = prepare(config(tmp_path, validation=None), 4.0)
    assert len(data.train) == 6
    assert [bool(graph.cell.any()) for graph in data.train] == [False, False, True, True, False, False]
    assert len(set(data.train.num_edges.tolist())) <= 6 and data.train.num_edges.min() > 0
    assert np.isnan(data.train[5].node_fields["forces"]).all()


def test_bad_structure_stops_or_is_left_out(tmp_path):
    structures = labelled(molecules(8))
    structures[3].calc.results["energy"] = np.nan
    structures[5].positions[1] = structures[5].positions[0]
    write(tmp_path / "train.xyz", structures)
    with pytest.raises(UserError, match=r"train\.xyz, structure 3 \(C2H6O\): its energy is NaN.*1 more of 8"):
        prepare(config(tmp_path), 4.0)
    data = prepare(config(tmp_path, skip_invalid=True, validation=None), 4.0)
    assert len(data.train) == 6
    assert any("2 of 8 structures are left out" in line for line in data.report.warnings)


def test_reference_energies_that_do_not_fit_are_warned_of(files):
    data = prepare(config(files, reference_energies={"H": -0.5, "C": -37.8, "O": -75.0}), 4.0)
    assert any("do not fit" in line for line in data.report.warnings)


def test_energies_without_forces_and_forces_without_energies(tmp_path):
    structures = labelled(molecules(8))
    for atoms in structures:
        del atoms.calc.results["forces"]
    write(tmp_path / "train.xyz", structures)
    data = prepare(config(tmp_path), 4.0)
    assert not data.train.has_label("forces") and any("no forces found" in line for line in data.report.warnings)
    structures = labelled(molecules(8))
    for atoms in structures:
        del atoms.calc.results["energy"]
    write(tmp_path / "train.xyz", structures)
    data = prepare(config(tmp_path), 4.0)
    assert not data.train.has_label("energy") and data.reference_energies == {}
    assert any("no energies found" in line for line in data.report.warnings)


def test_progress_runs_from_one_to_all(files):
    calls = []
    prepare(config(files, test=str(files / "hot.xyz")), 4.0, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(k + 1, 36) for k in range(36)]


def test_atoms_out_of_reach_of_each_other_are_fine(tmp_path):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 30]], info={"energy": -27.2})
    write(tmp_path / "train.xyz", [atoms, *labelled(molecules(4))])
    assert prepare(config(tmp_path, validation=None), 4.0).train.num_edges.min() == 0


@pytest.mark.parametrize(
    "settings", [{"validation": 1.0}, {"validation": -0.1}, {"energy_unit": "erg"}, {"trian": "x"}, {"max_structures": 0}]
)
def test_configuration_is_checked(settings):
    with pytest.raises(ValidationError):
        DataConfig(**{"train": "x", **settings})
