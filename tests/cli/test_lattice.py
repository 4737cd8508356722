"""`equiform lattice`: run, train, scan, analyze on tiny lattices, and one line for what is wrong."""

import csv
import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from equiform.cli.app import Application
from equiform.cli.lattice import lattice

SMALL = ["--size", "3x3", "--chains", "2", "--keep", "1"]


class Ended:
    """Exit status and both streams of an `equiform lattice` command."""

    def __init__(self, *arguments):
        # An application of its own, which turns errors into lines like the real one.
        alone = typer.Typer(cls=Application)
        alone.callback()(lambda debug=False: None)
        alone.add_typer(lattice, name="lattice")
        found = CliRunner().invoke(alone, ["lattice", *map(str, arguments)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        self.status, self.out, self.err = found.exit_code, found.stdout, found.stderr


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A short exact run."""
    folder = tmp_path_factory.mktemp("lattice") / "exact"
    done = Ended("run", "--temperature", 0.2, "--sweeps", 8, "-o", folder, *SMALL)
    assert done.status == 0, done.err
    return folder, done


def test_run_prints_averages_and_writes_arrays_and_a_plot(exact):
    folder, done = exact
    assert "acceptance" in done.out and "C/N" in done.out and f"written: {folder / 'run.png'}" in done.out
    with open(folder / "averages.csv") as file:
        (row,) = csv.DictReader(file)
    assert (
        float(row["temperature"]) == 0.2
        and -2 < float(row["energy"]) < -1
        and float(row["density"]) == pytest.approx(1, abs=0.1)
    )
    found = np.load(folder / "correlations.npz")
    assert found["structure_factor"].sum() == pytest.approx(9) and found["correlation"][0] == pytest.approx(1)
    assert (folder / "run.png").read_bytes()[:4] == b"\x89PNG"


def test_resumed_run_goes_on(exact):
    folder, _ = exact
    done = Ended("run", "--resume", folder, "--sweeps", 10, "--burn-in", 0, "--json")
    assert done.status == 0 and json.loads(done.out)[0]["steps"] == 10


def test_trained_model_proposes(exact, tmp_path):
    folder, _ = exact
    done = Ended("train", folder, "-o", tmp_path / "model", "--kind", "linear", "--shells", 1, "--burn-in", 0)
    assert done.status == 0 and "mean squared error" in done.out
    learned = ["--effective", tmp_path / "model", "--local-sweeps", 1, "-o", tmp_path / "slmc"]
    done = Ended("run", "--temperature", 0.2, "--sweeps", 10, *learned, *SMALL)
    assert done.status == 0, done.err
    done = Ended("analyze", folder, tmp_path / "slmc", "-o", tmp_path / "both", "--json")
    assert len(json.loads(done.out)) == 2 and (tmp_path / "both" / "scan.csv").exists()


def test_scan_writes_a_table_of_temperatures(tmp_path):
    done = Ended("scan", "-o", tmp_path, "--temperature", 0.2, "--temperature", 0.21, "--sweeps", 6, *SMALL)
    assert done.status == 0, done.err
    with open(tmp_path / "scan.csv") as file:
        assert [float(row["temperature"]) for row in csv.DictReader(file)] == [0.21, 0.2]
    assert (tmp_path / "scan.png").exists()


def test_scan_of_doping_anneals_each_chemical_potential(tmp_path):
    doped = ["--mu", -1.5, "--mu", 0, "--temperature", 0.2, "--sweeps", 6]
    done = Ended("scan", "-o", tmp_path, *doped, *SMALL)
    assert done.status == 0, done.err
    with open(tmp_path / "scan.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["chemical_potential"] for row in rows] == [-1.5, 0]
    assert rows[0]["density"] < rows[1]["density"] - 0.2
    assert (tmp_path / "mu-1.5" / "T0.2" / "run.png").exists() and (tmp_path / "scan.png").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--temperature", "0", "-o", "x"], "temperature should be greater than 0, but 0.0 was given"),
        (["run", "--temperature", "0.1", "-o", "x", "--size", "2x6"], "wraps onto itself"),
        (["run", "--temperature", "0.1", "-o", "x", "--size", "six"], "such as 6x6"),
        (["run", "--temperature", "0.1", "-o", "x", "--effective", "nowhere"], "nowhere holds no effective model"),
        (["run", "--temperature", "0.1", "-o", "x", "--effective", "y", "--block", "7"], "does not fit"),
        (["run", "--resume", "nowhere"], "nowhere is not a lattice run"),
        (["run", "--temperature", "-0.1", "-o", "x"], "temperature should be greater than 0, but -0.1 was given"),
        (["run", "--temperature", "nan", "-o", "x"], "temperature should be a finite number"),
        (["run", "--temperature", "0.1", "-o", "x", "--size", "6x2"], "use at least 3 × 3"),
        (["scan", "--size", "2x8", "-o", "x"], "wraps onto itself"),
        (["scan", "--from", "0.5", "--to", "-0.1", "-o", "x"], "temperatures must be positive"),
        (["scan", "--temperature", "0", "--temperature", "0.1", "-o", "x"], "different positive temperatures, got 0.0, 0.1"),
        (["scan", "--mu", "0", "--mu", "0", "-o", "x"], "different chemical potentials, got 0.0, 0.0"),
        (["scan", "--mu", "0", "--mu", "inf", "-o", "x"], "chemical potential should be a finite number"),
        (["analyze", "nowhere"], "nowhere is not a lattice run"),
        (["train", "nowhere", "-o", "x"], "nowhere is not a lattice run"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, line):
    done = Ended(*arguments)
    assert done.status == 1 and line in done.err and done.err.count("\n") == 1, done.err


def test_a_model_of_another_lattice_is_one_line(tmp_path):
    from equiform.models.spin_linear import SpinLinear, SpinLinearConfig
    from equiform.persist.spin_model_file import save_effective

    save_effective(tmp_path / "six", SpinLinear(SpinLinearConfig(shells=(1, 2, 4, 5, 8, 9))), {})
    learned = ["--effective", tmp_path / "six", "--local-sweeps", 0, "-o", tmp_path / "run"]
    done = Ended("run", "--temperature", 0.2, *learned, *SMALL)
    assert done.status == 1 and done.err.count("\n") == 1 and not (tmp_path / "run").exists()
    assert "a 3x3 lattice has no sites at squared distance 4, 5, 8, 9, which the model couples" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--resume", "x", "--temperature", "1"],
        ["run", "--temperature", "1", "-o", "x", "--block", "2"],
        ["run", "--temperature", "1", "-o", "x", "--start", "hot"],
    ],
)
def test_wrong_usage_ends_with_status_2(arguments):
    assert Ended(*arguments).status == 2


def test_training_refuses_shells_that_are_not_there(exact, tmp_path):
    done = Ended("train", exact[0], "-o", tmp_path / "model", "--shells", 6)
    assert done.status == 1 and "a 3x3 lattice has 2 shells of neighbours, not 6" in done.err


def test_help_pages_have_examples():
    for command in ("run", "train", "scan", "analyze"):
        page = Ended(command, "--help")
        assert page.status == 0 and f"equiform lattice {command}" in page.out.split("Examples")[1]
