"""Outputs of programs: unconverged calculations, several structures, types, units of databases, refusals."""

import importlib.util
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from equiform.data.config import DataConfig
from equiform.data.formats.convergence import converged_steps
from equiform.data.formats.frames import How
from equiform.data.formats.reading import read_labelled, read_unlabelled
from equiform.errors import UserError

EH = 27.211386245988


def read(path, **settings):
    return read_labelled(str(path), DataConfig(train="x", **settings), labels_needed=False)


def outcar(*iterations, nelm=15):
    steps = [f"Iteration {step + 1:6d}({k + 1:4d})" for step, count in enumerate(iterations) for k in range(count)]
    return f"   NELM   = {nelm:6d};   NELMIN=  2\n" + "\n".join(steps)


SCF = "SCF Done:  E(RB3LYP) =  -40.5"


@pytest.mark.parametrize(
    ("form", "text", "steps"),
    [
        ("vasp-out", outcar(15, 7, 15), [False, True, False]),
        ("vasp-out", outcar(7) + "\n aborting loop EDIFF was not reached (unconverged)", [False]),
        ("vasp-out", outcar(1, 1, nelm=1), [True, True]),
        ("vasp-xml", '<i name="NELM" type="int"> 2</i><calculation><scstep><scstep><calculation><scstep>', [False, True]),
        ("gaussian-out", f"{SCF}\n>>>>>>>>>> Convergence criterion not met.\n{SCF}", [True, False]),
        ("espresso-out", "convergence has been achieved\nconvergence NOT achieved after 9", [True, False]),
        ("orca-output", "SCF NOT CONVERGED AFTER 125 CYCLES", [False]),
        ("cp2k", "*** SCF run converged in 4 steps ***\n*** SCF run NOT converged ***", [True, False]),
        ("traj", "SCF NOT CONVERGED", [True]),
    ],
)
def test_which_steps_converged(tmp_path, form, text, steps):
    (tmp_path / "out").write_text(text)
    assert converged_steps(tmp_path / "out", form, len(steps), How()) == steps


def test_what_cannot_be_assigned_to_a_structure_is_said(tmp_path):
    (tmp_path / "out").write_text("SCF CONVERGED AFTER 3\nSCF NOT CONVERGED\nSCF CONVERGED AFTER 4\n")
    how = How()
    assert converged_steps(tmp_path / "out", "orca-output", 2, how) == [True, True]
    assert "1 of 3 calculations did not converge" in how.warnings[0]


MOLECULE = """{name}
  made here

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0
    0.0000    0.0000    1.1000 O   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  3  0
M  END
> <energy>
{energy}

$$$$
"""


def test_all_molecules_of_an_sdf_file_with_their_data(tmp_path):
    (tmp_path / "a.sdf").write_text("".join(MOLECULE.format(name=f"m{k}", energy=-1.5 * k) for k in range(3)))
    reading = read(tmp_path / "a.sdf")
    assert len(reading) == 3 and [atoms.info["energy"] for atoms in reading.structures] == [0, -1.5, -3]


def test_an_empty_last_model_of_a_pdb_file_is_none(tmp_path):
    atom = "ATOM      1  C   MOL     1       0.000   0.000   0.000  1.00  0.00           C  \n"
    model = f"MODEL     1\n{atom}{atom.replace('0.000  1.00', '1.500  1.00')}ENDMDL\n"
    (tmp_path / "a.pdb").write_text(model * 2 + "END\n")
    assert [len(atoms) for atoms in read(tmp_path / "a.pdb").structures] == [2, 2]


DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 9
0 9
0 9
ITEM: ATOMS id type {more}x y z
1 1 {a}0 0 0
2 2 {b}0 0 1
"""


def test_numbered_types_of_lammps_never_become_elements_by_themselves(tmp_path):
    (tmp_path / "a.dump").write_text(DUMP.format(more="", a="", b=""))
    with pytest.raises(UserError, match=r"numbers its atom types 1 to 2.*data\.types=C,H .*--types C,H"):
        read(tmp_path / "a.dump", format="lammps-dump-text")
    with pytest.raises(UserError, match=r"data\.types=O names only 1"):
        read(tmp_path / "a.dump", format="lammps-dump-text", types="O")
    assert read(tmp_path / "a.dump", format="lammps-dump-text", types="O,H").structures[0].numbers.tolist() == [8, 1]
    (tmp_path / "b.dump").write_text(DUMP.format(more="element ", a="Si ", b="C "))
    assert read(tmp_path / "b.dump", format="lammps-dump-text").structures[0].numbers.tolist() == [14, 6]


def test_a_dump_has_forces_and_no_energy(tmp_path):
    head = DUMP.partition("ITEM: ATOMS")[0]
    atoms = "ITEM: ATOMS id type element x y z vx vy vz fx fy fz\n1 1 C 0 0 0 .001 0 0 0 0 1\n2 2 O 0 0 1 0 0 0 0 0 -1\n"
    (tmp_path / "a.lammpstrj").write_text(head + atoms)
    (label,) = read(tmp_path / "a.lammpstrj").labels  # ASE's reader gives the energy 0
    assert label.energy is None and label.forces is not None and label.forces[0].tolist() == [0, 0, 1]
    (tmp_path / "b.dump").write_text("ITEM: UNITS\nreal\n" + head + atoms)
    reading = read(tmp_path / "b.dump")
    assert reading.labels[0].forces[0, 2] == pytest.approx(0.0433641, rel=1e-6)  # kcal/mol/Å
    assert reading.structures[0].get_velocities()[0, 0] == pytest.approx(1e-3 / units.fs)  # Å/fs


LAMMPS_DATA = """{title}

2 atoms
2 atom types

0 5 xlo xhi
0 5 ylo yhi
0 5 zlo zhi

Atoms # atomic

1 1 0 0 0
2 2 1.1 0 0
"""


def test_lammps_data_files_are_recognised_by_their_header(tmp_path):
    file = tmp_path / "conf.data"
    file.write_text(LAMMPS_DATA.format(title="two atoms"))
    with pytest.raises(UserError, match=r"atom types 1 to 2.*data\.types=C,H"):
        read(file)
    assert read(file, types="C,O").structures[0].get_distance(0, 1) == pytest.approx(1.1)
    title = "LAMMPS data file via write_data, version 2 Aug 2023, timestep = 0, units = {}"
    file.write_text(LAMMPS_DATA.format(title=title.format("electron")))
    assert read(file, types="C,O").structures[0].get_distance(0, 1) == pytest.approx(1.1 * 0.529177210903)
    file.write_text(LAMMPS_DATA.format(title=title.format("lj")))
    with pytest.raises(UserError, match="units 'lj'"):
        read(file, types="C,O")


@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_labels_and_units_of_databases(tmp_path, name):
    with connect(tmp_path / name) as database:
        database.write(
            Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.4]]), data={"energy_U0": np.array([-1.0]), "free_energy": -2.0}
        )
        stated = {"energy_U0": "Ha", "homo": "eV"}
        database.metadata = {"_distance_unit": "Bohr", "_property_unit_dict": stated}
    reading = read(tmp_path / name)
    assert reading.keys.energy == "energy_U0" and reading.labels[0].energy == pytest.approx(-EH)
    assert reading.structures[0].positions[1, 2] == pytest.approx(1.4 * 0.529177210903)


def test_units_given_by_the_user_are_not_used_for_programs_that_have_their_own(tmp_path):
    write(tmp_path / "POSCAR", Atoms("Si", cell=[3, 3, 3], pbc=True), format="vasp")
    reading = read_unlabelled(tmp_path / "POSCAR", DataConfig(train="x", length_unit="Bohr"))
    assert reading.structures[0].cell.array[0, 0] == 3
    assert any("data.length_unit=Bohr is not used" in line for line in reading.warnings)


def test_refusals_name_the_format_and_the_way_out(tmp_path):
    (tmp_path / "a.out").write_text("some program\n" * 5)
    with pytest.raises(UserError, match=r"a\.out, read as espresso-out, has no structures.*data\.format="):
        read(tmp_path / "a.out")
    with pytest.raises(UserError, match=r"data\.format=nonsense is not known; there are"):
        read(tmp_path / "a.out", format="nonsense")
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)


def test_without_dpdata_its_formats_say_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.out").write_text(" DBCSR| Multiplication driver\n CP2K| version string: 9.1\n")
    monkeypatch.setitem(sys.modules, "dpdata", None)
    with pytest.raises(UserError, match=r"cp2k/output by dpdata.*pip install 'equiform\[formats\]'"):
        read(tmp_path / "a.out")


@pytest.mark.skipif(importlib.util.find_spec("dpdata") is None, reason="dpdata is not installed (extra: formats)")
def test_energies_of_exactly_zero_are_none(tmp_path):
    from equiform.data.formats.dpdata_files import _frames

    data = {"atom_names": ["O", "H"], "atom_types": [0, 1], "coords": np.zeros((2, 2, 3)), "cells": np.tile(9 * np.eye(3),
    (2, 1, 1)),
            "energies": [0.0, -3.0], "forces": np.ones((2, 2, 3)), "virials": np.tile(np.eye(3), (2, 1, 1))}  # fmt: skip
    how = How()
    frames = _frames(data, tmp_path / "x", "vasp/outcar", how)
    assert "energy" not in frames[0].atoms.info and frames[1].atoms.info["energy"] == -3
    assert frames[0].fixed_units and "1 energies are exactly zero" in how.warnings[0]


def test_files_of_one_data_set_may_name_their_labels_differently(tmp_path):
    for name, label in (("a.xyz", "REF_energy"), ("b.xyz", "energy")):
        (tmp_path / name).write_text(f"1\n{label}=-1\nH 0 0 0\n" * 2)
    reading = read_labelled([str(tmp_path / "a.xyz"), str(tmp_path / "b.xyz")], DataConfig(train="x"))
    assert [label.energy for label in reading.labels] == [-1] * 4
    assert reading.names[3] == "structure 1 of b.xyz"
    assert any("energy is 'REF_energy' in a.xyz, 'energy' in b.xyz" in line for line in reading.keys.warnings)


def test_numbers_are_those_of_the_file(tmp_path):
    (tmp_path / "a.xyz").write_text("".join(f"1\nenergy={k}\nH 0 0 0\n" for k in range(6)))
    reading = read(f"{tmp_path / 'a.xyz'}@2::2")
    assert reading.names == ["structure 2", "structure 4"] and [label.energy for label in reading.labels] == [2, 4]


def test_unconverged_structures_are_left_out_and_said(tmp_path, monkeypatch):
    atoms = [Atoms("H", info={"k": k}) for k in range(3)]
    for k, structure in enumerate(atoms):
        structure.calc = SinglePointCalculator(structure, energy=-1.0 - k)
    write(tmp_path / "a.traj", atoms)
    monkeypatch.setattr("equiform.data.formats.ase_files.converged_steps", lambda *_: [False, True, False])
    reading = read(tmp_path / "a.traj")
    assert reading.names == ["structure 1"] and reading.labels[0].energy == -2
    assert any("2 of 3 structures are of calculations that did not converge (0, 2)" in line for line in reading.warnings)
    assert len(read(tmp_path / "a.traj", keep_unconverged=True)) == 3
    monkeypatch.setattr("equiform.data.formats.ase_files.converged_steps", lambda *_: [False] * 3)
    with pytest.raises(UserError, match=r"3 of 3 .*did not converge.*data\.keep_unconverged=true"):
        read(tmp_path / "a.traj")
