"""OC20: both kinds of LMDB and trajectories are read, nothing is executed, and noise is as published."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from equiform.data.sets import oc20
from equiform.data.sets.pyg_pickle import read_object
from equiform.data.store.files import Store
from equiform.errors import UserError
from tests.data.published import ase_row, pickled_by_torch, write_lmdb

lmdb = pytest.importorskip("lmdb", reason="the extra oc20 is not installed")


def record(number, seed=0):
    rng = np.random.default_rng([seed, number])
    count = 4 + number % 3
    return {
        "pos": rng.uniform(0, 5, (count, 3)).astype(np.float32),
        "pos_relaxed": rng.uniform(0, 5, (count, 3)).astype(np.float32),
        "cell": np.diag([5.0, 6.0, 30.0])[None].astype(np.float32),
        "atomic_numbers": rng.integers(1, 60, count).astype(np.float32),
        "tags": np.arange(count, dtype=np.int64) % 3,
        "fixed": (np.arange(count) % 3 == 0).astype(np.float32),
        "natoms": count,
        "sid": 1000 + number,
        "y_init": 1.5,
        "y_relaxed": float(rng.normal()),
    }


def prepared(tmp_path, path):
    oc20.prepare(path, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.mark.parametrize("old", [True, False])
def test_pickled_objects_are_read_without_either_package(old):
    fields = record(1)
    found = read_object(pickled_by_torch(fields, old=old))
    assert found.keys() == fields.keys()
    for name, value in fields.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("kind", ["old", "new", "ase"])
def test_records_come_by_number_with_all_their_fields(tmp_path, kind):
    records = [record(number) for number in range(12)]
    rows = {str(n + (kind == "ase")).encode(): content(r, kind) for n, r in enumerate(records)}
    extra = (
        {b"nextid": ase_row({"n": 1}), b"deleted_ids": ase_row({"n": 1})} if kind == "ase" else {b"length": pickle.dumps(12)}
    )
    store = prepared(tmp_path, write_lmdb(tmp_path / "data.lmdb", rows | extra))
    assert len(store) == 12 and store.pbc == (True, True, False)
    for index, fields in enumerate(records):
        np.testing.assert_allclose(store.rows("positions", index), fields["pos"])
        np.testing.assert_allclose(store.rows("relaxed", index), fields["pos_relaxed"])
        np.testing.assert_allclose(store.cell(index), fields["cell"][0])
        assert store.rows("species", index).tolist() == fields["atomic_numbers"].tolist()
        assert store.rows("tags", index).tolist() == fields["tags"].tolist()
        assert store.rows("fixed", index).tolist() == fields["fixed"].astype(bool).tolist()
        assert store["energy"][index] == fields["y_relaxed"] and store["system"][index] == fields["sid"]


def content(fields, kind):
    if kind != "ase":
        return pickled_by_torch(fields, old=kind == "old")
    row = {"positions": fields["pos"], "numbers": fields["atomic_numbers"].astype(int), "cell": fields["cell"][0]}
    row |= {"tags": fields["tags"], "energy": fields["y_relaxed"], "pbc": [True] * 3}
    row["constraints"] = [{"name": "FixAtoms", "kwargs": {"indices": np.flatnonzero(fields["fixed"]).tolist()}}]
    row["data"] = {"pos_relaxed": fields["pos_relaxed"].tolist(), "sid": fields["sid"]}
    return ase_row(row)


class Harmful:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('executed').touch()",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"record 0: the record asks for builtins\.eval, which is not executed here"):
        prepared(tmp_path, write_lmdb(tmp_path / "data.lmdb", {b"0": pickle.dumps(Harmful())}))
    numpy_objects = pickle.dumps({"pos": np.array([Harmful()], object)})
    with pytest.raises(UserError, match=r"not executed|Python objects"):
        read_object(numpy_objects)
    assert not Path("executed").exists() and not (tmp_path / "store").exists()


def test_what_is_missing_or_damaged_is_said(tmp_path):
    fields = record(0)
    del fields["y_relaxed"]
    path = write_lmdb(tmp_path / "a.lmdb", {b"0": pickled_by_torch(fields, old=False)})
    with pytest.raises(UserError, match=r"a\.lmdb, record 0 has no y_relaxed, which IS2RE needs; it has atomic_numbers, cell"):
        prepared(tmp_path, path)
    whole = pickled_by_torch(record(0), old=False)
    with pytest.raises(UserError, match=r"record 0: the record is damaged|cut off"):
        prepared(tmp_path, write_lmdb(tmp_path / "b.lmdb", {b"0": whole[: len(whole) // 2]}))
    with pytest.raises(UserError, match="holds no numbered records"):
        prepared(tmp_path, write_lmdb(tmp_path / "c.lmdb", {b"frames": b"1"}))
    (tmp_path / "d.lmdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(UserError, match="not a whole LMDB"):
        prepared(tmp_path, tmp_path / "d.lmdb")


def relaxation(folder, steps=4):
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 6, (6, 3))
    frames = []
    for step in range(steps):
        moved = start.copy()
        moved[3:] += 0.1 * step
        atoms = Atoms("Cu3PtOH", moved, cell=[6, 6, 30], pbc=True, constraint=FixAtoms([0, 1]))
        atoms.calc = SinglePointCalculator(atoms, energy=-20.0 - step, forces=rng.normal(size=(6, 3)))
        frames.append(atoms)
    folder.mkdir(exist_ok=True)
    write(folder / "random1.traj", frames)
    return frames


def test_trajectories_are_relaxations(tmp_path):
    frames = relaxation(tmp_path / "t")
    store = prepared(tmp_path, tmp_path / "t")
    assert store["energy"].tolist() == [-23.0] * 4 and store["current_energy"].tolist() == [-20, -21, -22, -23]
    # Fixed atoms are sub-surface, the rest of the slab surface, the trailing O and H the adsorbate.
    assert store.rows("tags", 0).tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(store.rows("relaxed", 1), frames[-1].positions)
    moved = oc20.displacement(store, 1)
    assert np.isnan(moved[:2]).all()
    np.testing.assert_allclose(moved[2:], (frames[-1].positions - frames[1].positions)[2:])
    np.testing.assert_array_equal(store.rows("forces", 2), frames[2].get_forces(apply_constraint=False))


def test_noise_is_as_published(tmp_path):
    relaxation(tmp_path / "t")
    store = prepared(tmp_path, tmp_path / "t")
    initial, relaxed = store.rows("positions", 0), store.rows("relaxed", 0)
    untouched, shifts = 0, []
    for seed in range(4000):
        positions, labels = oc20.draw_positions(store, 0, np.random.default_rng(seed))
        np.testing.assert_array_equal(positions[:2], initial[:2])
        np.testing.assert_allclose(labels["displacement"][2:], (relaxed - positions)[2:])
        if np.array_equal(positions, initial):
            untouched += 1
        else:
            shifts.append(positions - initial)
    assert abs(untouched / 4000 - 0.5) < 4 * 0.5 / np.sqrt(4000)
    shifts = np.array(shifts)
    # x − x_initial = (1 − λ) d + noise: mean d/2, variance d²/12 + 0.3².
    way = (relaxed - initial)[3]
    np.testing.assert_allclose(shifts[:, 3].mean(0), way / 2, atol=0.04)
    np.testing.assert_allclose(shifts[:, 3].var(0), way**2 / 12 + 0.09, rtol=0.15)


def test_published_relaxations(shared_data, tmp_path):
    store = prepared(tmp_path, shared_data / "oc20" / "third_party_is2re_format.lmdb")
    assert len(store) == 32 and store["energy"][0] == pytest.approx(-0.16493904)
