"""The examples run, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from equiform.recipes.schema import load_recipe

FOLDER = Path(__file__).parents[1] / "examples"
SMALL = ["model.irreps=8x0e+4x1e", "model.irreps_head=4x0e+2x1e", "model.irreps_mlp=8x0e+4x1e", "model.irreps_sh=1x0e+1x1e"]
SMALL += ["model.irreps_feature=8x0e", "model.num_layers=1", "training.max_steps=2"]


def run(script: str, *arguments: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_ENABLE")}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, str(FOLDER / script), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_file_is_in_the_table_and_the_recipe_is_valid():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or path.name.startswith("__") or f"]({path.name})" in table, path.name
    load_recipe(FOLDER / "fine_points.yaml")
    notebook = json.loads((FOLDER / "first_steps.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert cell["cell_type"] != "code" or (compile("".join(cell["source"]), "notebook", "exec") and not cell["outputs"])


@pytest.mark.slow  # Every script compiles.
@pytest.mark.parametrize("script", ["own_data.py", "nbody.py"])
def test_scripts_of_commands_run(script, tmp_path):
    settings = SMALL if script == "own_data.py" else ["training.max_steps=2"]
    assert "MAE" in run(script, *settings, folder=tmp_path)


@pytest.mark.slow
def test_a_round_of_active_learning_labels_what_it_selects(tmp_path):
    import ase.io

    said = run("active_learning.py", *SMALL, "training.members=2", folder=tmp_path)
    assert "force MAE at 1200 K" in said
    chosen, new = (ase.io.read(tmp_path / "runs/active" / name, ":") for name in ("chosen.extxyz", "new.extxyz"))
    assert 0 < len(chosen) == len(new) <= 20
    assert all("forces" in atoms.calc.results for atoms in new)


@pytest.mark.slow
def test_training_from_python_gives_a_model_that_the_ase_script_and_the_notebook_use(tmp_path):
    settings = [*SMALL, "data.max_structures=8"]
    assert "force MAE" in run("train_from_python.py", *settings, folder=tmp_path)
    assert "energies of the atoms" in run("ase_script.py", "runs/example", folder=tmp_path)
    cells = json.loads((FOLDER / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    small = code.replace('"training.max_minutes=3"', ", ".join(map(repr, settings)))
    (tmp_path / "notebook.py").write_text(small, encoding="utf-8")
    assert "eV" in run(str(tmp_path / "notebook.py"), folder=tmp_path)
