"""The run folder."""

from pathlib import Path

import pytest

from equiform.errors import UserError
from equiform.training import run_folder
from equiform.training.run_folder import RunFolder, free_folder


def test_what_was_given_comes_back(tmp_path: Path) -> None:
    energies = {1: -13.587222780835477, 8: -2041.8396277138045}
    RunFolder.create(tmp_path / "run", recipe="training: {}\n", reference_energies=energies, metadata={"data": "x.xyz"})
    run = RunFolder.open(tmp_path / "run")
    assert run.reference_energies == energies
    assert (run.recipe, run.metadata) == ("training: {}\n", {"data": "x.xyz"})
    assert {"jax", "equinox", "numpy"} <= set(run.provenance["packages"])
    assert {"git_commit", "device", "python", "created"} <= set(run.provenance)


def test_an_earlier_run_is_never_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", recipe="first")
    with pytest.raises(UserError, match="holds an earlier run, which would be overwritten; resume it"):
        RunFolder.create(tmp_path / "run", recipe="second")
    assert RunFolder.open(tmp_path / "run").recipe == "first"


def test_other_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty"):
        RunFolder.create(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "thesis.tex")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot create the run folder .*: Not a directory"):
        RunFolder.create(tmp_path / "file" / "run")

    def denied(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(run_folder, "write_atomically", denied)
    with pytest.raises(UserError, match=r"Permission denied .*choose another folder"):
        RunFolder.create(tmp_path / "run")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it has no run\.json"):
        RunFolder.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        RunFolder.open(tmp_path)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    with run.locked(), pytest.raises(UserError, match="another process is training"), run.locked():
        pass
    with run.locked():
        pass


def test_the_next_free_folder(tmp_path: Path) -> None:
    assert free_folder(tmp_path, "ethanol") == tmp_path / "ethanol-1"
    for name in ("ethanol-1", "ethanol-3", "ethanol-new"):
        (tmp_path / name).mkdir()
    assert free_folder(tmp_path, "ethanol") == tmp_path / "ethanol-2"
