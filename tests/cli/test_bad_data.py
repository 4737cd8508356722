"""Bad input: one clear line, status 1, and nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from tests.cli.commands import Result, structures, write

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty.xyz": (b"", "empty"),
    "text.xyz": (b"hello\nworld\n", "text.xyz"),
    "cut.xyz": (
        b'3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1.0 pbc="F F F"\nH 0 0 0 0 0 0\n',
        "cut.xyz",
    ),
    "binary.traj": (b"\x00\x01\x02", "binary.traj"),
    "nothing.dat": (b"\x00\x01\x02", "nothing.dat"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_broken_data_file_is_named(name, tmp_path):
    content, part = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert part in Result("train", name).error()
    assert not (tmp_path / "runs").exists()


def labelled(**changes: Any) -> list[Atoms]:
    """Three structures, something about the second one changed."""
    frames = structures(3)
    atoms, results = frames[1], dict(frames[1].calc.results)
    for name, value in changes.items():
        if name in ("energy", "forces"):
            results[name] = value
        else:
            setattr(atoms, name, value)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


def test_missing_files_are_named(tmp_path):
    assert "absent.xyz" in Result("train", "absent.xyz").error()
    assert "absent.yaml" in Result("train", "absent.yaml").error()
    assert "absent" in Result("evaluate", "absent", "absent.xyz").error()


def test_no_labels(tmp_path):
    write("bare.xyz", [molecule("H2O")] * 3)
    assert "no energies or forces" in Result("train", "bare.xyz").error()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_labels_that_are_not_finite(bad):
    forces = np.zeros((3, 3))
    forces[1, 2] = bad
    write("bad.xyz", labelled(forces=forces))
    assert "structure 1" in Result("train", "bad.xyz").error()


def test_positions_that_are_not_finite():
    write("bad.xyz", labelled(positions=np.full((3, 3), np.nan)))
    assert "structure 1" in Result("train", "bad.xyz").error()


def test_overlapping_atoms(trained):
    write("bad.xyz", labelled(positions=np.zeros((3, 3))))
    assert "structure 1" in Result("train", "bad.xyz").error()
    assert "structure 1" in Result("predict", trained[0], "bad.xyz", "-o", "out.extxyz").error()


def test_periodic_without_a_cell(trained):
    write("bad.xyz", labelled(pbc=True))
    assert "structure 1" in Result("train", "bad.xyz").error()
    assert "cell" in Result("predict", trained[0], "bad.xyz", "-o", "out.extxyz").error()


def test_labels_of_the_wrong_shape():
    text = "\n".join(["1", "Properties=species:S:1:pos:R:3:forces:R:2 energy=1.0", "H 0 0 0 1 2"]) + "\n"
    Path("bad.xyz").write_text(text * 3)
    assert Result("train", "bad.xyz").status == 1
