"""Extended XYZ as different programs write it."""

import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian

from equiform.data.config import DataConfig
from equiform.data.formats.reading import read_labelled, read_unlabelled
from equiform.errors import UserError

CELL = "3 0 0 0 4 0 0 0 5"


def read(tmp_path, *frames, name="a.xyz", **settings):
    (tmp_path / name).write_text("\n".join(frames) + "\n", encoding="utf-8")
    return read_labelled(str(tmp_path / name), DataConfig(train="x", **settings), labels_needed=False)


def frame(comment, rows=("Cu 0 0 0",)):
    return "\n".join([str(len(rows)), comment, *rows])


@pytest.mark.parametrize("key", ["Lattice", "lattice", "LATTICE", "cell", "unit_cell"])
def test_keys_of_the_format_are_compared_without_case(tmp_path, key):
    reading = read(tmp_path, frame(f'{key}="{CELL}" PROPERTIES=species:S:1:pos:R:3 energy=-1 virial="6 0 0 0 6 0 0 0 6"'))
    (atoms,) = reading.structures
    np.testing.assert_array_equal(atoms.cell.array, np.diag([3.0, 4.0, 5.0]))
    assert atoms.pbc.all() and key not in atoms.info
    np.testing.assert_allclose(reading.labels[0].stress, -0.1 * np.eye(3))  # −6 / 60


@pytest.mark.parametrize(
    ("pbc", "flags"), [('"T T F"', [1, 1, 0]), ('"1 1 0"', [1, 1, 0]), ('"True true F"', [1, 1, 0]), ("T", [1, 1, 1])]
)
def test_pbc_in_the_ways_it_is_written(tmp_path, pbc, flags):
    atoms = read(tmp_path, frame(f'Lattice="{CELL}" pbc={pbc}')).structures[0]
    assert atoms.pbc.tolist() == [bool(flag) for flag in flags]


def test_stress_of_a_cell_that_does_not_repeat_is_said_and_can_be_used(tmp_path):
    text = frame(f'Lattice="{CELL}" energy=-1 stress="1 0 0 0 1 0 0 0 1" pbc="F F F"')
    reading = read(tmp_path, text)
    assert reading.labels[0].stress is None
    assert any("'stress' is not used in 1 of 1" in line and "data.pbc=true" in line for line in reading.keys.warnings)
    assert "stress: 'stress' in 0 of 1 structures" in reading.keys.notes
    np.testing.assert_array_equal(read(tmp_path, text, pbc=True).labels[0].stress, np.eye(3))


def test_forces_of_three_atoms_are_counted_as_forces(tmp_path):
    rows = [f"H 0 0 {k} 0 0 {k}" for k in range(3)]  # 3 × 3 numbers, as a stress has
    reading = read(tmp_path, frame("Properties=species:S:1:pos:R:3:forces:R:3 energy=-1", rows))
    assert "forces: 'forces' in 1 of 1 structures" in reading.keys.notes


def test_a_byte_order_mark_is_passed_over(tmp_path):
    assert read(tmp_path, "\ufeff" + frame("energy=-1")).labels[0].energy == -1


def test_the_unit_beside_an_energy_holds_for_the_forces(tmp_path):
    frames = [
        frame(f"Properties=species:S:1:pos:R:3:forces:R:3 energy={text}", ["H 0 0 0 0 0 1"]) for text in ('"-1 Ha"', "-1")
    ]
    first, second = read(tmp_path, *frames).labels
    assert first.energy == pytest.approx(-27.211386245988) and first.forces[0, 2] == pytest.approx(27.211386245988)
    assert second.energy == -1 and second.forces[0, 2] == 1


def test_six_numbers_of_a_stress_are_xx_yy_zz_yz_xz_xy(tmp_path):
    reading = read(tmp_path, frame(f'Lattice="{CELL}" energy=-1 stress="1 2 3 4 5 6"'))
    np.testing.assert_array_equal(reading.labels[0].stress, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


def test_virial_of_a_cell_in_bohr_is_divided_by_the_converted_volume(tmp_path):
    comment = 'Lattice="10 0 0 0 10 0 0 0 10" energy=-1.0 virial="1 0 0 0 1 0 0 0 1"'
    for stated, settings in (("energy_unit=Hartree length_unit=Bohr", {}), ("", {"energy_unit": "Ha", "length_unit": "bohr"})):
        reading = read(tmp_path, frame(f"{comment} {stated}"), **settings)
        assert reading.labels[0].stress[0, 0] == pytest.approx(-27.211386245988 / (10 * 0.529177210903) ** 3, rel=1e-12)


@pytest.mark.parametrize(
    ("comment", "energy"),
    [
        ("energy=-2 energy_unit=Hartree", -54.422772491976),
        ("energy=-2 E_unit=Ha", -54.422772491976),
        ("energy=-2 units=atomic", -54.422772491976),
        ('energy=-2 units="Hartree, Bohr"', -54.422772491976),
        ('energy=-2 units="energy: kcal/mol, length: Bohr"', -0.0867282083),
        ('energy=-2 units="_JSON {\\"energy\\": \\"Hartree\\"}"', -54.422772491976),
        ("energy=-2 Hartree", -54.422772491976),
        ("energy=-2 bar a atm", -2.0),
        ("dft_energy=-2 energy_dft_unit=Hartree", -54.422772491976),
        ("energy=-2 homo=1 homo_unit=Hartree", -2.0),
        ('energy="-2 Hartree"', -54.422772491976),
        ("energy_hartree=-2", -54.422772491976),
        ("energy=-2 units=metal", -2.0),
        ("energy=-2 units=real", -0.0867282083),
        ("energy=-2", -2.0),
        ('energy/atom=-2 energy_unit="meV/atom"', -0.002),
    ],
)
def test_units_that_a_structure_states(tmp_path, comment, energy):
    reading = read(tmp_path, frame(comment))
    assert reading.labels[0].energy == pytest.approx(energy, rel=1e-8)


def test_positions_and_labels_carried_along_are_converted_and_units_not_copied(tmp_path):
    text = frame("REF_energy=-2 energy_unit=Hartree length_unit=Bohr note=x", ["H 0 0 1.0"])
    (tmp_path / "a.xyz").write_text(text + "\n")
    (atoms,) = read_unlabelled(tmp_path / "a.xyz").structures
    assert atoms.positions[0, 2] == pytest.approx(0.529177210903)
    assert atoms.info == {"REF_energy": pytest.approx(-54.422772491976), "note": "x"}


def test_a_unit_of_some_structures_holds_for_those_only_and_is_said(tmp_path):
    reading = read(tmp_path, frame("energy=-2 energy_unit=Hartree"), frame("energy=-3"), frame("energy=-4"))
    assert [label.energy for label in reading.labels] == pytest.approx([-54.422772491976, -3, -4])
    assert any("1 of 3 structures say that their unit of energy is Hartree" in line for line in reading.warnings)


def test_cell_and_positions_may_have_units_of_their_own(tmp_path):
    atoms = read(tmp_path, frame(f'Lattice="{CELL}" cell_unit=nm position_unit=Bohr', ["H 0 0 1"])).structures[0]
    assert atoms.cell.array[0, 0] == 30 and atoms.positions[0, 2] == pytest.approx(0.529177210903)


def test_weights_are_weights(tmp_path):
    comment = "config_weight=2 config_energy_weight=3 forces_weight=0 total_e=-1.5"
    reading = read(tmp_path, frame(f"Properties=species:S:1:pos:R:3:forces:R:3 {comment}", ["H 0 0 0 1 2 3"]))
    assert reading.labels[0].energy == -1.5 and reading.labels[0].forces is None, "a label of weight 0 is a placeholder"
    assert reading.weights[0] == (6.0, 0.0, 2.0)
    assert read(tmp_path, frame("energy=-1 weight=5"), weights=False).weights[0] == (1, 1, 1)
    with pytest.raises(UserError, match=r"structure 0 .*weight 'weight' is -1"):
        read(tmp_path, frame("energy=-1 weight=-1"))


@pytest.mark.parametrize(("per", "energy"), [(None, -6.0), ("structure", -3.0), ("atom", -6.0)])
def test_energy_per_atom_as_named_or_as_said(tmp_path, per, energy):
    reading = read(tmp_path, frame("energy/atom=-3", ["H 0 0 0", "H 0 0 1"]), energy_per=per)
    assert reading.labels[0].energy == energy


def test_isotopes_numbers_and_labels_of_atoms(tmp_path):
    atoms = read(tmp_path, frame("", ["D 0 0 0", "CL 1 0 0", "6 2 0 0", "Fe1 3 0 0", "h 4 0 0"])).structures[0]
    assert atoms.numbers.tolist() == [1, 17, 6, 26, 1]
    assert atoms.get_masses()[[0, 4]] == pytest.approx([2.01410177812, 1.008])


def test_numbers_of_fortran_and_mathematica(tmp_path):
    atoms = read(tmp_path, frame("Properties=species:S:1:pos:R:3", ["H 1.0D-1 -2.5*^-1 1e0"])).structures[0]
    np.testing.assert_array_equal(atoms.positions, [[0.1, -0.25, 1.0]])


def test_constraints_masses_and_momenta_are_where_ase_has_them(tmp_path):
    properties = "Properties=species:S:1:pos:R:3:move_mask:L:1:masses:R:1:momenta:R:3:initial_charges:R:1"
    atoms = read(tmp_path, frame(properties, ["H 0 0 0 F 2.5 1 2 3 0.5", "H 0 0 1 T 1.0 0 0 0 -0.5"])).structures[0]
    assert isinstance(atoms.constraints[0], FixAtoms) and list(atoms.constraints[0].index) == [0]
    assert atoms.get_masses().tolist() == [2.5, 1.0] and atoms.get_initial_charges().tolist() == [0.5, -0.5]
    np.testing.assert_array_equal(atoms.arrays["momenta"], [[1, 2, 3], [0, 0, 0]])
    text = frame("Properties=species:S:1:pos:R:3:move_mask:L:3", ["H 0 0 0 T T F", "H 0 0 1 T T T"])
    (constraint,) = read(tmp_path, text).structures[0].constraints
    assert isinstance(constraint, FixCartesian) and list(np.ravel(constraint.mask)) == [False, False, True]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (frame("Properties=species:S:1:pos:R:3:forces:R:3", ["H 0 0 0 1"]), "atom 0 has 5 of 7 columns"),
        (frame("Properties=species:S:1:pos:Q:3"), "is not NAME:TYPE:COLUMNS"),
        (frame('Lattice="1 2 3 4"'), "Lattice has to be nine numbers"),
        (frame('Lattice="1 0 0 0 1 0 0 0 1" pbc="T T"'), "pbc has to be one or three"),
        (frame("Properties=pos:R:3", ["0 0 0 0"]), "no column has the elements"),
    ],
)
def test_what_is_broken_is_said_in_words(tmp_path, text, said):
    with pytest.raises(UserError, match=f"line 1: structure 0 is broken .*{said}"):
        read(tmp_path, text)


def test_columns_without_names_are_said(tmp_path):
    reading = read(tmp_path, frame("energy=-1", ["H 0 0 0 1 2 3"]))
    assert any("columns after the positions have no names" in line for line in reading.warnings)


CP2K = "2\n i =        {step}, time =        0.500, E =       {energy}\n  H  0.0 0.0 0.0\n  H  0.0 0.0 {last}\n"


def test_cp2k_positions_with_the_forces_and_cell_beside_them(tmp_path):
    pos = "".join(CP2K.format(step=step, energy=-1.0 - step, last=0.8) for step in (1, 2))
    frc = "".join(CP2K.format(step=step, energy=-1.0 - step, last=0.01 * step) for step in (2, 1))
    (tmp_path / "x-pos-1.xyz").write_text(pos)
    (tmp_path / "x-frc-1.xyz").write_text(frc)
    (tmp_path / "x-1.cell").write_text("# Step Time Ax …\n1 0.5 9 0 0 0 9 0 0 0 9 729\n2 1.0 9.5 0 0 0 9 0 0 0 9 729\n")
    reading = read_labelled(str(tmp_path / "x-pos-1.xyz"), DataConfig(train="x"))
    assert [label.energy for label in reading.labels] == pytest.approx([-54.422772491976, -81.634158737964])
    assert [label.forces[1, 2] for label in reading.labels] == pytest.approx([0.51422067476, 1.02844134952])
    assert [atoms.cell.array[0, 0] for atoms in reading.structures] == [9, 9.5] and reading.structures[0].pbc.all()
    with pytest.raises(UserError, match=r"holds CP2K's forces, not positions; read x-pos-1\.xyz"):
        read_labelled(str(tmp_path / "x-frc-1.xyz"), DataConfig(train="x"))
    (tmp_path / "x-frc-1.xyz").unlink()
    reading = read_labelled(str(tmp_path / "x-pos-1.xyz"), DataConfig(train="x", energy_unit="eV"))
    assert reading.labels[0].energy == pytest.approx(-54.422772491976), "the program's unit is known"
    assert any("its forces would be in x-frc-1.xyz" in line for line in reading.warnings)
