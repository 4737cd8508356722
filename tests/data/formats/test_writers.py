"""What is written is read back the same, by ASE and by us: random structures with every field."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLength, FixCartesian

from equiform.data.formats.comment import format_entries, parse_comment
from equiform.data.formats.extxyz import structure_text, write_predictions, write_scalars
from equiform.data.formats.read import read_structures
from equiform.deploy.predictor import Prediction

TEXTS = ["", " ", "a b", "two\nlines", 'say "hi"', "it's", "back\\slash", "a=b", "T", "true", "5", "1 2", "[x]", "{y}",
"tab\there", "ünï", "\r",
         "nan", "inf", "_JSON 3", "a,b", "x" * 300, "#", "%s"]  # fmt: skip
VALUES = {
    "integer": 7, "real": 0.1 + 0.2, "flag": True, "other": False, "vector": np.array([1.5, -2e-300, 3.0]), "whole":
    np.array([1, 2, 3]),
    "one": np.array([4.25]), "matrix": np.arange(6.0).reshape(2, 3), "nested": {"a": [1, {"b": None}], "c": "d"}, "none": None,
    "names": ["p", "q r"], "flags": np.array([True, False]), "large": 2**62, "energy of bond": 1.0, "REF_energy": -1.25,
}  # fmt: skip


def random_structure(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    atoms = Atoms(rng.integers(1, 100, count), positions=rng.normal(size=(count, 3)) * 10.0 ** rng.integers(-3, 4))
    if seed % 3:
        atoms.set_cell(rng.normal(size=(3, 3)) * 5)
        atoms.pbc = rng.random(3) < 0.7
    atoms.set_masses(rng.random(count) * 50 + 1)
    atoms.set_tags(rng.integers(0, 4, count))
    atoms.set_momenta(rng.normal(size=(count, 3)))
    atoms.set_initial_charges(rng.normal(size=count))
    atoms.set_initial_magnetic_moments(rng.normal(size=count))
    atoms.set_array("names", np.array([f"n{k}" for k in range(count)]))
    atoms.set_array("wide", rng.normal(size=(count, 5)))
    atoms.set_array("mark", rng.random(count) < 0.5)
    if seed % 2:
        atoms.set_constraint(FixAtoms([0]))
    else:
        atoms.set_constraint([FixCartesian(1, mask=[True, False, True])])
    atoms.info.update({f"text{k}": text for k, text in enumerate(TEXTS)} | VALUES)
    return atoms


def free(atoms):
    """Which coordinates a constraint leaves free: a force on all of them, adjusted."""
    forces = np.ones((len(atoms), 3))
    for constraint in atoms.constraints:
        constraint.adjust_forces(atoms, forces)
    return forces


def same(a, b):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return a == b and isinstance(a, str) == isinstance(b, str) and isinstance(a, bool) == isinstance(b, bool)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("reader", ["ASE", "we"])
def test_every_field_comes_back(tmp_path, seed, reader):
    given = random_structure(seed)
    forces = np.random.default_rng(seed).normal(size=(len(given), 3))
    stress = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]]) / 7 if given.pbc.all() else None
    assert write_predictions(tmp_path / "a.extxyz", [given, given], [Prediction(-1 / 3, 0.0, forces, stress)] * 2) == []
    both = ase.io.read(tmp_path / "a.extxyz", ":") if reader == "ASE" else read_structures(tmp_path / "a.extxyz")
    assert len(both) == 2
    for read in both:
        results = dict(read.calc.results)
        assert results["energy"] == -1 / 3 and np.array_equal(results["forces"], forces)
        assert stress is None or np.array_equal(read.get_stress(voigt=False), stress)
        assert np.array_equal(read.numbers, given.numbers) and np.array_equal(read.positions, given.positions)
        assert np.array_equal(read.cell.array, given.cell.array) and np.array_equal(read.pbc, given.pbc)
        for name, array in given.arrays.items():
            assert np.array_equal(read.arrays[name], array), name
        for name, value in given.info.items():
            assert same(read.info[name], value), (name, value, read.info[name])
        assert np.array_equal(free(read), free(given))
        assert read.info["energy_unit"] == "eV" and read.info["length_unit"] == "Angstrom"


def test_our_comment_lines_are_one_line_and_mean_the_same_to_us():
    entries, lost = format_entries({f"text{k}": text for k, text in enumerate(TEXTS)} | VALUES)
    assert lost == [] and not any(character in " ".join(entries) for character in "\n\r")
    parsed = parse_comment(" ".join(entries))
    assert all(same(parsed[f"text{k}"], text) for k, text in enumerate(TEXTS))


def test_what_has_no_place_is_named(tmp_path):
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]], info={"thing": object(), "pbc": 3})
    atoms.set_constraint(FixBondLength(0, 1))
    atoms.set_array("words", np.array(["a b", ""]))
    _, lost = structure_text(atoms, {}, {})
    assert set(lost) == {"thing", "words", "the constraint FixBondLengths"}


def test_labels_that_no_longer_hold_are_dropped_where_atoms_moved():
    atoms = Atoms("H", info={"REF_energy": -1.0, "note": "n", "weight": 2.0, "energy_unit": "Hartree"})
    atoms.set_array("REF_forces", np.ones((1, 3)))
    text, _ = structure_text(atoms, {}, {"energy": -2.0}, keep_labels=False)
    assert (
        "REF" not in text and "weight" not in text and "note=n" in text and "energy_unit=eV" in text and "Hartree" not in text
    )


def test_other_quantities_state_their_unit(tmp_path):
    write_scalars(tmp_path / "a.xyz", [Atoms("H", info={"gap": 3.0})], "gap", [0.5], "eV")
    read = ase.io.read(tmp_path / "a.xyz")
    assert read.info["gap"] == 0.5 and read.info["gap_unit"] == "eV"
