"""Data sets as NPZ, HDF5, DeePMD folders, MTP and n2p2 blocks, pymatgen's JSON: small ones of our own writing."""

import json
import pickle

import numpy as np
import pytest

from equiform.data.config import DataConfig
from equiform.data.formats.reading import read_labelled
from equiform.errors import UserError

EH, BOHR, KCAL = 27.211386245988, 0.529177210903, 0.0433641042
POSITIONS = np.array([[[0.0, 0, 0], [0, 0, 1]], [[0.0, 0, 0], [0, 0, 1.1]]])
FORCES = np.array([[[0.0, 0, 1], [0, 0, -1]], [[0.0, 0, 2], [0, 0, -2]]])


def read(path, **settings):
    return read_labelled(str(path), DataConfig(train="x", **settings))


@pytest.mark.parametrize(
    ("names", "unit"),
    [
        ({"R": POSITIONS, "z": [8, 1], "E": [-1.0, -2], "F": FORCES, "e_unit": "kcal/mol", "r_unit": "Ang"}, KCAL),
        ({"R": POSITIONS, "z": [8, 1], "E": [[-1.0], [-2]], "F": FORCES}, 1.0),
        ({"coords": POSITIONS, "nuclear_charges": [8, 1], "energies": [-1.0, -2], "forces": FORCES}, 1.0),
        ({"coords": POSITIONS, "nuclear_charges": [8, 1], "energies": [-1.0, -2], "forces": FORCES, "old_energies": [0.0, 0],
          "old_forces": 0 * FORCES}, KCAL),
        ({"positions": POSITIONS, "atomic_numbers": [[8, 1], [8, 1]], "energy": [-1.0, -2], "forces": FORCES}, 1.0),
    ],
)  # fmt: skip
def test_npz_of_molecules(tmp_path, names, unit):
    np.savez(tmp_path / "a.npz", **{name: np.array(value) for name, value in names.items()})
    reading = read(tmp_path / "a.npz")
    assert [label.energy for label in reading.labels] == pytest.approx([-unit, -2 * unit])
    np.testing.assert_allclose(reading.labels[1].forces, unit * FORCES[1])
    assert reading.structures[0].numbers.tolist() == [8, 1]
    told = any("no units" in line or "rMD17" in line for line in reading.warnings)
    assert told == ("e_unit" not in names)


def test_npz_with_padding(tmp_path):
    positions = np.zeros((2, 3, 3))
    positions[:, 1, 2], positions[:, 2, 1] = 1.0, 1.0
    np.savez(tmp_path / "a.npz", R=positions, Z=[[8, 1, 1], [8, 1, 0]], E=[-1.0, -2.0], F=np.ones((2, 3, 3)))
    reading = read(tmp_path / "a.npz")
    assert [len(atoms) for atoms in reading.structures] == [3, 2] and reading.labels[1].forces.shape == (2, 3)


def test_pickles_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "data").write_bytes(pickle.dumps([1]))
    for name in ("a.pkl", "data"):
        with pytest.raises(UserError, match=r"pickle, which is not read.*ase\.io\.write"):
            read(tmp_path / name)
    np.savez(tmp_path / "b.npz", R=np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"pickled Python objects.*pad the arrays"):
        read(tmp_path / "b.npz")


def test_hdf5_of_spice_in_atomic_units_and_of_mace_with_weights(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        group = file.create_group("103147721")
        group["atomic_numbers"] = [8, 1]
        for name, value, unit in (
            ("conformations", POSITIONS / BOHR, "bohr"),
            ("dft_total_energy", [-1.0, -2.0], "hartree"),
            ("dft_total_gradient", -FORCES, "hartree/bohr"),
            ("formation_energy", [5.0, 5.0], "hartree"),
        ):
            group[name] = value
            group[name].attrs["units"] = unit
    reading = read(tmp_path / "spice.hdf5")
    assert [label.energy for label in reading.labels] == pytest.approx([-EH, -2 * EH])
    np.testing.assert_allclose(reading.labels[0].forces, EH / BOHR * FORCES[0])
    np.testing.assert_allclose(reading.structures[1].positions, POSITIONS[1])
    with h5py.File(tmp_path / "mace.h5", "w") as file:
        for k in range(2):
            group = file.create_group(f"config_batch_0/config_{k}")
            for name, value in {
                "atomic_numbers": [8, 1],
                "positions": POSITIONS[k],
                "cell": 9 * np.eye(3),
                "pbc": [True] * 3,
            }.items():
                group[name] = value
            group["properties/energy"], group["properties/forces"] = -1.0 - k, FORCES[k]
            group["property_weights/energy"], group["weight"] = 3.0, 2.0
    reading = read(tmp_path / "mace.h5")
    assert [label.energy for label in reading.labels] == [-1, -2] and reading.weights[0] == (6, 2, 2)
    assert reading.structures[0].pbc.all() and reading.structures[0].cell.array[2, 2] == 9


def test_deepmd_folder(tmp_path):
    part = tmp_path / "set.000"
    part.mkdir()
    (tmp_path / "type.raw").write_text("0\n1\n")
    np.save(part / "coord.npy", POSITIONS.reshape(2, -1))
    np.save(part / "box.npy", np.tile((10 * np.eye(3)).ravel(), (2, 1)))
    np.save(part / "energy.npy", np.array([-1.0, -2.0]))
    np.save(part / "force.npy", FORCES.reshape(2, -1))
    np.save(part / "virial.npy", np.tile(np.eye(3).ravel(), (2, 1)))
    with pytest.raises(UserError, match=r"does not say which elements they are.*data\.types=C,H"):
        read(tmp_path)
    assert read(tmp_path, types="O,H").structures[0].numbers.tolist() == [8, 1]
    (tmp_path / "type_map.raw").write_text("O\nH\n")
    reading = read(tmp_path)
    assert reading.labels[1].energy == -2 and reading.structures[0].pbc.all()
    np.testing.assert_allclose(reading.labels[0].stress, -np.eye(3) / 1000)
    np.testing.assert_allclose(reading.labels[1].forces, FORCES[1])


MTP = """BEGIN_CFG
 Size
    2
 Supercell
    10.0 0.0 0.0
    0.0 10.0 0.0
    0.0 0.0 10.0
 AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz
             1    0       0 0 0   0 0 1
             2    1       0 0 1   0 0 -1
 Energy
        -3.5
 PlusStress:  xx          yy          zz          yz          xz          xy
              1 2 3 4 5 6
 Feature   EFS_by       VASP
END_CFG

"""


def test_mtp_blocks(tmp_path):
    (tmp_path / "a.cfg").write_text(MTP * 2)
    with pytest.raises(UserError, match="numbers its atom types 1 to 2"):
        read(tmp_path / "a.cfg")
    reading = read(tmp_path / "a.cfg", types="Ti,O")
    assert len(reading) == 2 and reading.structures[1].numbers.tolist() == [22, 8] and reading.labels[0].energy == -3.5
    np.testing.assert_allclose(reading.labels[0].stress, -np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]) / 1000)
    (tmp_path / "a.cfg").write_text(MTP + MTP[:-12])
    with pytest.raises(UserError, match=r"line 18: a structure begins and does not end"):
        read(tmp_path / "a.cfg", types="Ti,O")


N2P2 = """begin
comment made here
lattice 10 0 0
lattice 0 10 0
lattice 0 0 10
atom 0 0 0 O 0.5 0 0 0 1
atom 0 0 1 H 0 0 0 0 -1
energy -2
charge 0
end
"""


def test_n2p2_needs_units(tmp_path):
    (tmp_path / "input.data").write_text(N2P2 * 2)
    with pytest.raises(UserError, match=r"whatever units.*data\.length_unit=Bohr data\.energy_unit=Hartree"):
        read(tmp_path / "input.data")
    reading = read(tmp_path / "input.data", energy_unit="eV", length_unit="Å")
    assert reading.labels[0].energy == -2 and reading.labels[0].forces[0, 2] == 1
    reading = read(tmp_path / "input.data", energy_unit="Hartree", length_unit="Bohr")
    assert reading.labels[1].energy == pytest.approx(-2 * EH) and reading.labels[1].forces[0, 2] == pytest.approx(EH / BOHR)
    assert reading.structures[0].cell.array[0, 0] == pytest.approx(10 * BOHR)


def test_json_of_pymatgen_with_vasps_stress(tmp_path):
    site = {"species": [{"element": "Si", "occu": 1}], "abc": [0.0, 0, 0], "xyz": [0.0, 0, 0]}
    structure = {"@module": "pymatgen.core.structure", "lattice": {"matrix": (3 * np.eye(3)).tolist()}, "sites": [site]}
    outputs = {"energy": -5.0, "forces": [[0, 0, 1.0]], "virial_stress": [10.0, 20, 30, 1, 2, 3]}
    mlearn, mptrj = tmp_path / "mlearn.json", tmp_path / "mptrj.json"
    mlearn.write_text(json.dumps([{"structure": structure, "outputs": outputs}]))
    entry = {"structure": structure, "uncorrected_total_energy": -5.0, "corrected_total_energy": -7.0, "energy_per_atom": -1.0,
             "force": [[0, 0, 1.0]], "stress": [[10.0, 1, 3], [1, 20, 2], [3, 2, 30]]}  # fmt: skip
    mptrj.write_text(json.dumps({"mp-1": {"mp-1-0-0": entry}}))
    expected = -0.000624150907446076 * np.array([[10.0, 1, 3], [1, 20, 2], [3, 2, 30]])
    for path in (mlearn, mptrj):
        reading = read(path)
        assert reading.labels[0].energy == -5 and reading.labels[0].forces[0, 2] == 1
        np.testing.assert_allclose(reading.labels[0].stress, expected)
        assert any("kbar and positive under compression" in line for line in reading.warnings)
