"""`equiform md` and `relax`."""

import json

import ase.io
import numpy as np

from tests.cli.commands import Result


def test_md_runs_writes_and_continues(trained, data, tmp_path):
    first = Result("md", trained[0], data, "--temperature", 100, "--steps", 200, "--interval", 10, "--json")
    assert first.status == 0, first.err
    summary = json.loads(first.out)
    assert summary["steps"] == 200 and summary["atoms"] == 3
    assert abs(summary["energy_drift_eV_per_atom_per_ps"]) < 1e-2
    for suffix in ("extxyz", "csv", "png", "restart.npz"):
        assert (tmp_path / f"water-nve.{suffix}").is_file(), suffix
    more = Result("md", trained[0], "--resume", "water-nve.restart.npz", "--steps", 300)
    assert more.status == 0, more.err
    assert "drift (eV/atom/ps)" in more.out and "temperature (K)" in more.out and "target temperature" not in more.out
    assert len(ase.io.read("water-nve.extxyz", ":")) == 31
    assert "exists already" in Result("md", trained[0], data, "--temperature", 100).error()


def test_relax_finds_the_minimum_and_says_when_it_did_not(trained, data, tmp_path):
    done = Result("relax", trained[0], data, "-o", "relaxed.extxyz", "--fmax", 0.01, "--dtype", "float64")
    assert done.status == 0, done.err
    assert np.linalg.norm(ase.io.read("relaxed.extxyz").get_forces(), axis=1).max() < 0.01
    short = Result("relax", trained[0], data, "-o", "short.extxyz", "--steps", 1, "--fmax", 1e-5)
    assert "not relaxed after 1 steps" in short.error() and (tmp_path / "short.extxyz").is_file()


def test_a_continued_run_cannot_be_given_other_settings():
    result = Result("md", "model", "--resume", "x.npz", "--timestep", 1.0, "--seed", 3)
    assert result.status == 2 and "--timestep, --seed: fixed" in result.err


def test_md_settings_out_of_range_are_wrong_usage(data):
    result = Result("md", "model", data, "--timestep", -1)
    assert result.status == 2 and "--timestep should be greater than 0, but -1.0" in result.err
