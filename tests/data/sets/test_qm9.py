"""QM9: the original files are read exactly, and what is wrong with them is said in one line."""

import bz2

import numpy as np
import pytest

from equiform.data.sets import qm9
from equiform.data.store.files import Store
from equiform.errors import UserError
from tests.data.published import ATOMREF, METHANE, write_qm9


def prepared(tmp_path, count=40, excluded=(3, 7), **changes):
    folder = write_qm9(tmp_path / "qm9", count, excluded)
    qm9.prepare(folder, tmp_path / "store", **{"molecules": count, "unusable": len(excluded), **changes})
    return Store(tmp_path / "store")


def error(tmp_path, **changes):
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_methane_has_its_fifteen_properties(tmp_path):
    store = prepared(tmp_path)
    # Source: the published file of molecule 1.
    values = [157.7118, 157.70997, 157.70699, 0, 13.21, -0.3877, 0.1171, 0.5048, 35.3641, 0.044749]
    values += [-40.47893, -40.476062, -40.475117, -40.498597, 6.469]
    assert [store[name][0] for name in qm9.PROPERTIES] == values
    assert store.rows("species", 0).tolist() == [6, 1, 1, 1, 1]
    assert store.rows("positions", 0)[2].tolist() == [1.0117308433, 1.4637511618, 0.0002765748]


def test_molecules_come_by_number_without_the_excluded_ones(tmp_path):
    store = prepared(tmp_path)
    assert store["number"].tolist() == [n for n in range(1, 41) if n not in (3, 7)]
    assert store["Cv"][5] == 8 + 14 / 16


def test_exponents_of_mathematica_are_read():
    text = METHANE.replace("0.0019761204", "1.5*^-6").replace("-40.498597", "-4.0498597*^1")
    molecule = qm9.parse_molecule(text, "x")
    assert molecule.positions[1, 2] == 1.5e-6 and molecule.properties[13] == -40.498597


def test_the_content_decides_the_digest_and_the_order_does_not(tmp_path):
    digests = set()
    for k, order in enumerate((1, -1)):
        folder = write_qm9(tmp_path / str(k), order=order)
        digests.add(qm9.content_digest(qm9.read_archive(folder / qm9.ARCHIVE)))
    assert len(digests) == 1
    other = qm9.read_archive(write_qm9(tmp_path / "other", 39) / qm9.ARCHIVE)
    assert qm9.content_digest(other) not in digests


def test_free_atoms_are_read(tmp_path):
    path = tmp_path / "atomref.txt"
    path.write_text(ATOMREF)
    table = qm9.read_atomref(path)
    assert table["U0"] == {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730}
    assert table["G"][6] == -37.861317 and table["Cv"][9] == 2.981


@pytest.mark.parametrize("name", ["homo", "HOMO", "2", "ε_HOMO"])
def test_targets_are_found_by_name_symbol_and_number(name):
    assert qm9.find_target(name).name == "homo"


def test_an_unknown_target_gets_a_suggestion():
    with pytest.raises(UserError, match="did you mean 'alpha'"):
        qm9.find_target("alhpa")


def test_a_cut_archive_is_no_archive(tmp_path):
    archive = write_qm9(tmp_path) / qm9.ARCHIVE
    content = archive.read_bytes()
    for end in (len(content) // 2, len(content) - 5):
        archive.write_bytes(content[:end])
        with pytest.raises(UserError, match="ends too early"):
            qm9.read_archive(archive)
    archive.write_bytes(bz2.compress(bz2.decompress(content)[:5000]))
    with pytest.raises(UserError, match=r"ends too early|damaged"):
        qm9.read_archive(archive)
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="damaged"):
        qm9.read_archive(archive)


def test_missing_molecules_and_files_are_named(tmp_path):
    assert "number 41 is missing" in error(tmp_path, molecules=41)
    assert "lists 2 molecules, but 3 are published" in error(tmp_path, unusable=3)
    (tmp_path / "qm9").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=r"lacks dsgdb9nsd\.xyz\.tar\.bz2, uncharacterized\.txt, atomref\.txt"):
        qm9.prepare(tmp_path / "nowhere", tmp_path / "s")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("gdb 1", "gdb"), ("13.21", "x"), ("\nC\t-0.0", "\nXx\t-0.0"), ("5\n", "6\n"), ("6.469", "nan")]
)
def test_a_damaged_molecule_is_named(old, new):
    with pytest.raises(UserError, match=r"dsgdb9nsd_000001\.xyz"):
        qm9.parse_molecule(METHANE.replace(old, new, 1), "dsgdb9nsd_000001.xyz")


@pytest.mark.slow  # Half a minute for the whole archive.
def test_the_published_archive(shared_data, tmp_path):
    qm9.prepare(shared_data / "qm9", tmp_path / "store")
    store = Store(tmp_path / "store")
    assert len(store) == 130_831 and store.about["content"] == qm9.CONTENT
    assert store["U0"][0] == -40.47893 and store["Cv"][0] == 6.469
    assert np.isclose(store["num_atoms"].mean(), 18.0, atol=0.1)
