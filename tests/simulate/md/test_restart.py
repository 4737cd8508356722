"""A run that was interrupted ends with the files of one that was not, byte for byte."""

import json

import numpy as np
import pytest

from equiform.deploy.predictor import Predictor
from equiform.errors import UserError
from equiform.simulate.md.dynamics import MDConfig, resume_md, run_md
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig, ToyModel

TIMING = {"steps_per_second", "ns_per_day", "wall_seconds", "compilations", "trajectory", "log", "restart"}


def _interrupt_after(calls: int):
    left = iter(range(calls))

    def progress(_) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return progress


def _same_atoms(a, b) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in [
            (a.positions, b.positions),
            (a.get_momenta(), b.get_momenta()),
            (a.get_forces(), b.get_forces()),
            (a.get_potential_energy(), b.get_potential_energy()),
        ]
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_an_interrupted_run_equals_an_uninterrupted_one(crystal, predictor, tmp_path, ensemble, dtype):
    model = predictor(dtype, cutoff=2.2)
    config = MDConfig(ensemble=ensemble, temperature=2000, steps=400, timestep=1, skin=0.2, frame_interval=7, log_interval=3)
    whole = run_md(model, crystal, config, trajectory=tmp_path / "a.extxyz", log=tmp_path / "a.csv")
    assert whole.summary["neighbor_list_rebuilds"] > 3

    parts = {"trajectory": tmp_path / "b.extxyz", "log": tmp_path / "b.csv", "restart": tmp_path / "b.npz"}
    with pytest.raises(KeyboardInterrupt):
        run_md(model, crystal, config, **parts, progress=_interrupt_after(1))
    with pytest.raises(KeyboardInterrupt):
        resume_md(model, parts["restart"], progress=_interrupt_after(2))
    # What a killed process may have written after its last restart file.
    with open(parts["trajectory"], "a") as file:
        file.write("32\nhalf a fra")
    end = resume_md(model, parts["restart"])

    assert (tmp_path / "a.extxyz").read_bytes() == (tmp_path / "b.extxyz").read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert _same_atoms(end.atoms, whole.atoms)
    for name in set(whole.summary) - TIMING:
        assert end.summary[name] == whole.summary[name], name


def test_a_finished_run_can_be_made_longer(cluster, predictor, tmp_path):
    model, log = predictor("float32"), tmp_path / "log.jsonl"
    files = {"trajectory": tmp_path / "run.traj", "log": log, "restart": tmp_path / "run.npz"}
    short = MDConfig(temperature=300, steps=50, frame_interval=10, log_interval=10)
    first = run_md(model, cluster, short, **files)
    again = resume_md(model, files["restart"])
    assert _same_atoms(first.atoms, again.atoms)
    longer = resume_md(model, files["restart"], steps=100)
    whole = run_md(model, cluster, short.model_copy(update={"steps": 100}))
    assert _same_atoms(longer.atoms, whole.atoms)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(0, 101, 10))

    from ase.io import read

    assert [atoms.info["step"] for atoms in read(files["trajectory"], ":")] == list(range(0, 101, 10))


def test_a_neighbour_list_in_the_middle_of_its_life_is_taken_up(crystal, predictor, tmp_path):
    model, restart = predictor("float32", cutoff=2.2), tmp_path / "run.npz"
    config = MDConfig(temperature=2000, steps=50, timestep=1, skin=0.3)
    run_md(model, crystal, config, restart=restart)
    with np.load(restart) as saved:
        assert not np.array_equal(saved["reference"], saved["positions"])
    end = resume_md(model, restart, steps=200)
    whole = run_md(model, crystal, config.model_copy(update={"steps": 200}))
    assert _same_atoms(end.atoms, whole.atoms)
    assert end.summary["neighbor_list_rebuilds"] == whole.summary["neighbor_list_rebuilds"] > 5


def test_a_restart_file_is_for_its_own_model_and_precision(cluster, predictor, tmp_path):
    restart = tmp_path / "run.npz"
    run_md(predictor("float32"), cluster, MDConfig(temperature=300, steps=5), restart=restart)
    with pytest.raises(UserError, match="another model"):
        resume_md(predictor("float32", depth=1.1), restart)
    with pytest.raises(UserError, match="dtype float32, not float64"):
        resume_md(predictor("float64"), restart)


def test_a_damaged_restart_file_is_refused(cluster, predictor, tmp_path):
    restart = tmp_path / "run.npz"
    with pytest.raises(UserError, match="no such restart file"):
        resume_md(predictor(), restart)
    run_md(predictor(), cluster, MDConfig(temperature=300, steps=5), restart=restart)
    content = restart.read_bytes()
    for damaged in (b"", b"not a zip", content[: len(content) // 2]):
        restart.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            resume_md(predictor(), restart)
    np.savez(restart, positions=np.zeros(3))
    with pytest.raises(UserError, match="not a restart file"):
        resume_md(predictor(), restart)


def test_files_that_were_changed_since_are_not_continued(cluster, predictor, tmp_path):
    files = {"trajectory": tmp_path / "run.extxyz", "restart": tmp_path / "run.npz"}
    run_md(predictor(), cluster, MDConfig(temperature=300, steps=40), **files)
    content = files["trajectory"].read_bytes()
    files["trajectory"].write_bytes(content[:-10])
    with pytest.raises(UserError, match="changed since"):
        resume_md(predictor(), files["restart"], steps=60)
    files["trajectory"].unlink()
    with pytest.raises(UserError, match="gone"):
        resume_md(predictor(), files["restart"], steps=60)


@pytest.mark.parametrize("suffix", [".extxyz", ".traj"])
def test_tags_reach_the_model_the_trajectory_and_the_continuation(cluster, tmp_path, suffix):
    import ase.io

    model = Predictor(Potential(ToyModel(ToyConfig(num_tags=3))), dtype="float64")
    cluster.set_tags([0, 1, 2, 0, 1, 2, 2])
    config = MDConfig(temperature=100, steps=4, frame_interval=1)
    trajectory, restart = tmp_path / f"a{suffix}", tmp_path / "a.npz"
    run_md(model, cluster, config, trajectory=trajectory, restart=restart)
    resume_md(model, restart, steps=6)
    frames = ase.io.read(trajectory, ":")
    assert len(frames) == 7
    for frame in frames:
        assert np.array_equal(frame.get_tags(), cluster.get_tags())
        # Coordinates of text have nine decimals.
        assert model.energy(frame) == pytest.approx(frame.get_potential_energy(), abs=1e-6)
