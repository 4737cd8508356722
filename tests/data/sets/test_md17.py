"""MD17 and rMD17: both labels of both files, in eV; what is wrong is said."""

import numpy as np
import pytest

from equiform.data.sets import md17
from equiform.data.store.files import Store
from equiform.errors import UserError
from tests.data.published import write_md17

# Source: 1 kcal/mol in eV (CODATA: 4184 J / 96485.332 C).
KCAL = 0.0433641


@pytest.mark.parametrize(
    ("revised", "data_set", "offset", "slope"), [(False, "md17", 0, 1), (True, "md17", 0, 1), (True, "rmd17", -10, 0.5)]
)
def test_labels_are_those_of_the_set(tmp_path, revised, data_set, offset, slope):
    path = tmp_path / f"{'r' if revised else ''}md17_ethanol.npz"
    write_md17(path, 50, revised=revised)
    original = write_md17(tmp_path / "x.npz", 50, revised=False)
    frames = md17.read_frames(path, data_set)
    np.testing.assert_allclose(frames.energies, (original["E"][:, 0] + offset) * KCAL, rtol=1e-6)
    np.testing.assert_allclose(frames.forces, slope * original["F"] * KCAL, rtol=1e-6)
    np.testing.assert_array_equal(frames.positions, original["R"])


def test_forces_are_minus_the_slope_of_the_energy(tmp_path):
    write_md17(tmp_path / "md17_ethanol.npz", 400, revised=False)
    frames = md17.read_frames(tmp_path / "md17_ethanol.npz", "md17")
    # In a harmonic well ΔE = −½ (F₁ + F₂)·Δx exactly.
    moved = np.diff(frames.positions, axis=0)
    work = -0.5 * ((frames.forces[1:] + frames.forces[:-1]) * moved).sum((1, 2))
    np.testing.assert_allclose(np.diff(frames.energies), work, atol=1e-9)


def test_original_labels_are_found_in_either_file(tmp_path):
    write_md17(tmp_path / "rmd17" / "rmd17_ethanol.npz", 20, revised=True)
    assert md17.find_file(tmp_path, "md17", "ethanol") == tmp_path / "rmd17" / "rmd17_ethanol.npz"
    write_md17(tmp_path / "md17_ethanol.npz", 20, revised=False)
    assert md17.find_file(tmp_path, "md17", "ethanol") == tmp_path / "md17_ethanol.npz"
    assert md17.find_file(tmp_path, "rmd17", "aspirin") is None


def test_official_splits_are_read_in_both_forms(tmp_path):
    np.savez(tmp_path / "splits_ethanol.npz", train_01=np.arange(5, dtype=np.int32), test_01=np.arange(5, 9, dtype=np.int32))
    train, test = md17.official_split(tmp_path, "ethanol", 1)
    assert train.tolist() == [0, 1, 2, 3, 4] and test.tolist() == [5, 6, 7, 8]
    with pytest.raises(UserError, match="no official split 04; it has train_01"):
        md17.official_split(tmp_path, "ethanol", 4)
    (tmp_path / "rmd17" / "splits").mkdir(parents=True)
    for name, rows in (("train", "3\n1\n"), ("test", "0\n2\n")):
        (tmp_path / "rmd17" / "splits" / f"index_{name}_02.csv").write_text(rows)
    train, test = md17.official_split(tmp_path / "rmd17" / "npz_data", "aspirin", 2)
    assert train.tolist() == [3, 1] and test.tolist() == [0, 2]


def test_what_is_wrong_is_said(tmp_path):
    path = tmp_path / "md17_ethanol.npz"
    arrays = write_md17(path, 20, revised=False)
    arrays.pop("name")
    with pytest.raises(UserError, match="original labels of MD17, not those of rMD17"):
        md17.read_frames(path, "rmd17")
    for change, message in [
        ({"F": None}, "lacks F; it has z, R, E"),
        ({"F": arrays["F"][:5]}, "do not go with positions"),
        ({"E": arrays["E"] * KCAL / 20}, "which no total energy in kcal/mol is"),
        ({"R": arrays["R"] * np.nan}, "not finite"),
    ]:
        np.savez(path, **{name: value for name, value in (arrays | change).items() if value is not None})
        with pytest.raises(UserError, match=message):
            md17.read_frames(path, "md17")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="not a whole npz file"):
        md17.read_frames(path, "md17")
    with pytest.raises(UserError, match="did you mean 'ethanol'"):
        md17.find_molecule("ethnol", "md17")


def test_the_published_frames(shared_data, tmp_path):
    md17.prepare(shared_data / "rmd17" / "rmd17_ethanol.npz", "rmd17", "ethanol", tmp_path / "s")
    store = Store(tmp_path / "s")
    assert len(store) == 5902 and sorted(store.about["splits"]) == ["01", "02", "03"]
    # The total energy of ethanol is about −155 Hartree.
    assert np.allclose(store["energy"] / 27.2114, -154.7, atol=0.5)
