"""What is written can be read by ASE, with everything in it."""

import csv
import json

import ase
import ase.units
import numpy as np
import pytest
from ase.io import read

from equiform.errors import UserError
from equiform.simulate.md.dynamics import MDConfig, run_md


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".traj"])
@pytest.mark.parametrize("periodic", [False, True])
def test_ase_reads_frames_with_momenta_forces_and_constraints(cluster, predictor, tmp_path, suffix, periodic):
    from ase.constraints import FixAtoms

    if periodic:
        cluster.set_cell([6, 7, 8])
        cluster.pbc = (True, True, False)
    masses = cluster.get_masses()
    masses[-2] = 2.014
    cluster.set_masses(masses)
    cluster.set_constraint(FixAtoms([2]))
    model, path = predictor(cutoff=3.0), tmp_path / f"run{suffix}"
    result = run_md(model, cluster, MDConfig(temperature=300, steps=40), trajectory=path)
    frames = read(path, ":")
    assert [frame.info["step"] for frame in frames] == [0, 20, 40]
    assert frames[1].info["time_fs"] == 10
    last = frames[-1]
    assert np.allclose(last.positions, result.atoms.positions, rtol=0, atol=1e-8)
    assert np.allclose(last.get_momenta(), result.atoms.get_momenta(), rtol=0, atol=1e-8)
    assert np.allclose(last.get_velocities(), result.atoms.get_velocities(), rtol=0, atol=1e-8)
    assert np.array_equal(last.pbc, cluster.pbc)
    assert np.allclose(last.cell.array, cluster.cell.array)
    assert list(last.constraints[0].get_indices()) == [2]
    assert last.get_potential_energy() == pytest.approx(model.energy(last), abs=1e-6)
    assert np.allclose(last.get_forces(apply_constraint=False), model.forces(last), rtol=0, atol=1e-6)


def test_the_log_holds_energies_with_reference_energies(cluster, predictor, tmp_path):
    model, config = predictor(), MDConfig(temperature=300, steps=40, log_interval=10)
    run_md(model, cluster, config, log=tmp_path / "log.csv")
    run_md(model, cluster, config, log=tmp_path / "log.jsonl")
    with open(tmp_path / "log.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 20, 30, 40]
    assert rows[1]["time_fs"] == 5
    first = rows[0]
    assert first["potential_energy_eV"] == pytest.approx(model.energy(cluster), abs=1e-9)
    assert first["temperature_K"] == pytest.approx(300)
    # 3·7 − 6 degrees of freedom.
    assert first["kinetic_energy_eV"] == pytest.approx(15 / 2 * ase.units.kB * 300)
    assert first["total_energy_eV"] == first["potential_energy_eV"] + first["kinetic_energy_eV"]
    force = np.linalg.norm(model.forces(cluster), axis=1).max()
    assert first["max_force_eV_per_A"] == pytest.approx(force, abs=1e-9)


@pytest.mark.skipif(not __import__("os").path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(cluster, predictor, tmp_path):
    log = tmp_path / "log.csv"
    log.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        run_md(predictor(), cluster, MDConfig(temperature=300, steps=40), log=log, overwrite=True)


def test_a_disk_that_is_full_when_a_trajectory_is_closed_is_one_clear_line(cluster, predictor, tmp_path, monkeypatch):
    import errno
    import os

    from ase.io.trajectory import TrajectoryWriter

    def full(writer: TrajectoryWriter) -> None:
        close(writer)
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    close = TrajectoryWriter.close
    monkeypatch.setattr(TrajectoryWriter, "close", full)
    with pytest.raises(UserError, match=r"cannot write .*run\.traj: File too large; free some space"):
        run_md(predictor(), cluster, MDConfig(temperature=300, steps=4), trajectory=tmp_path / "run.traj")
