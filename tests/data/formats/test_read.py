"""Reading files of strangers: what comes back, and what is said of broken ones."""

import bz2
import gzip

import numpy as np
import pytest
from ase.db import connect
from ase.io import write

from equiform.data.formats.labels import find_labels
from equiform.data.formats.read import read_structures
from equiform.data.formats.values import read_labels
from equiform.errors import UserError
from tests.data.samples import labelled, molecules

FRAME = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 pbc="F F F"\nH 0 0 0 0 0 1\nH 0 0 0.8 0 0 -1\n'


@pytest.fixture
def structures():
    return labelled(molecules(5))


def test_formats_of_ase_give_the_same_labels(tmp_path, structures):
    files = [tmp_path / name for name in ("a.xyz", "a.extxyz", "a.traj", "a.json")]
    for file in files:
        write(file, structures)
    with connect(tmp_path / "a.db") as database:
        for atoms in structures:
            database.write(atoms)
    for file in [*files, tmp_path / "a.db"]:
        read = read_structures(file)
        keys = find_labels(read)
        assert len(read) == 5, file
        for have, want in zip(read, structures):
            labels = read_labels(have, keys)
            np.testing.assert_allclose(labels.energy, want.calc.results["energy"], atol=1e-7)
            np.testing.assert_allclose(labels.forces, want.calc.results["forces"], atol=1e-7)


@pytest.mark.filterwarnings("ignore:unclosed")
def test_labels_in_database_columns_are_found(tmp_path, structures):
    with connect(tmp_path / "a.db") as database:
        for atoms in structures:
            bare = atoms.copy()
            database.write(bare, dft_energy=1.5, data={"dft_forces": atoms.calc.results["forces"]})
    read = read_structures(tmp_path / "a.db")
    keys = find_labels(read)
    assert (keys.energy, keys.forces) == ("dft_energy", "dft_forces")
    np.testing.assert_allclose(read_labels(read[2], keys).forces, structures[2].calc.results["forces"])


def test_patterns_lists_slices_and_compression(tmp_path, structures):
    write(tmp_path / "a.xyz", structures[:2])
    write(tmp_path / "b.xyz", structures[2:])
    (tmp_path / "c.xyz.gz").write_bytes(gzip.compress((tmp_path / "a.xyz").read_bytes()))
    (tmp_path / "d.xyz.bz2").write_bytes(bz2.compress((tmp_path / "a.xyz").read_bytes()))
    assert len(read_structures(str(tmp_path / "?.xyz"))) == 5
    assert len(read_structures([tmp_path / "a.xyz", str(tmp_path / "b.xyz")])) == 5
    assert len(read_structures(f"{tmp_path / 'b.xyz'}@1:")) == 2
    assert len(read_structures(tmp_path / "b.xyz", "-1")) == 1
    assert len(read_structures(tmp_path / "c.xyz.gz")) == len(read_structures(tmp_path / "d.xyz.bz2")) == 2


def test_blank_line_between_structures_loses_none(tmp_path):
    # ASE's own reader stops there without a word.
    (tmp_path / "a.xyz").write_text(FRAME + "\n" + FRAME + "\n\n")
    assert len(read_structures(tmp_path / "a.xyz")) == 2


BROKEN = {
    "truncated atoms": (FRAME * 3 + "\n".join(FRAME.split("\n")[:3]) + "\n", "line 13: structure 3 .*1 of 2 atoms.*file ends"),
    "truncated comment": (FRAME * 2 + "2\n", "line 9: structure 2 .*0 of 2 atoms"),
    "half a line": (FRAME * 2 + FRAME[:-12] + "\n", "line 9: structure 2"),
    "short row in the middle": (FRAME + FRAME.replace("H 0 0 0.8 0 0 -1", "H 0 0 0.8") + FRAME, "line 5: structure 1"),
    "missing column": (FRAME.replace(" 0 0 -1\n", " 0\n") + FRAME, "line 1: structure 0"),
    "too many atoms": (FRAME + FRAME + "H 0 0 1 0 0 0\n" + FRAME, "line 9: .*a number of atoms was expected"),
    "not a number": (FRAME + FRAME.replace("0.8", "zero"), "line 5: structure 1"),
    "unknown element": (FRAME.replace("H 0 0 0 ", "Qq 0 0 0 "), "structure 0 .*Qq"),
    "no atoms": ("0\n\n" + FRAME, "line 1: structure 0 .*no atoms"),
    "prose": ("Dear all,\nplease find attached the data.\n", "line 1: .*a number of atoms was expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_xyz_names_the_line_and_structure(tmp_path, name):
    text, said = BROKEN[name]
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_structures(tmp_path / "a.xyz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "good"), [("truncated atoms", 3), ("short row in the middle", 2), ("too many atoms", 3), ("not a number", 1)]
)
def test_broken_structures_can_be_left_out(tmp_path, name, good):
    (tmp_path / "a.xyz").write_text(BROKEN[name][0])
    warnings = []
    assert len(read_structures(tmp_path / "a.xyz", skip_invalid=True, warnings=warnings)) == good
    assert len(warnings) == 1 and "left out" in warnings[0]


def test_truncated_trajectory_is_one_line(tmp_path, structures):
    write(tmp_path / "a.traj", structures)
    content = (tmp_path / "a.traj").read_bytes()
    for part in (10, 60, len(content) // 2, len(content) - 20):
        (tmp_path / "b.traj").write_bytes(content[:part])
        with pytest.raises(UserError, match=r"b\.traj") as caught:
            read_structures(tmp_path / "b.traj")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.traj", "a.db", "a.json", "a.cif", "a.unknown", "OUTCAR", "a"])
@pytest.mark.parametrize("content", [b"", b"\n \n", bytes(range(256)) * 40, b"hello", b"[1, 2", b"\xff\xfe\x00", b"7" * 999])
@pytest.mark.filterwarnings("ignore")
def test_junk_is_one_clear_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        read_structures(tmp_path / name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_missing_file_folder_and_pattern(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_structures(tmp_path / "nothing.xyz")
    with pytest.raises(UserError, match="is a folder"):
        read_structures(tmp_path)
    with pytest.raises(UserError, match="no file matches"):
        read_structures(str(tmp_path / "*.xyz"))
    (tmp_path / "a.xyz").write_text(FRAME)
    with pytest.raises(UserError, match="no number 5"):
        read_structures(tmp_path / "a.xyz", 5)
    with pytest.raises(UserError, match="no structures"):
        read_structures(tmp_path / "a.xyz", "3:")


def test_corrupt_compression_is_one_line(tmp_path):
    packed = gzip.compress((FRAME * 50).encode())
    (tmp_path / "a.xyz.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"a\.xyz\.gz"):
        read_structures(tmp_path / "a.xyz.gz")
    (tmp_path / "b.xyz.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match=r"b\.xyz\.gz"):
        read_structures(tmp_path / "b.xyz.gz")


def test_an_unknown_suffix_is_not_taken_for_a_format(tmp_path):
    (tmp_path / "data.foo").write_text("hello\n")
    with pytest.raises(UserError, match="not a format that ASE recognises"):
        read_structures(tmp_path / "data.foo")
