"""The demo end to end, with a toy model and few steps: it trains, simulates, reports, and says what was missed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from equiform.cli import app
from equiform.data.formats.shipped import shipped_data
from equiform.jobs import demo
from tests.toy import ToyConfig, ToyModel

RECIPE = """\
data:
  train: ["equiform:ethanol_train.extxyz@:20", "equiform:ethanol_atoms.extxyz"]
  test: {500K: "equiform:ethanol_500K.extxyz@:5", 1000K: "equiform:ethanol_1000K.extxyz@:5"}
  reference_energies: isolated
model: {name: toy}
training: {max_steps: 2, batch_size: 4}
"""


@pytest.fixture
def small(monkeypatch, tmp_path):
    from equiform.models import MODELS

    monkeypatch.setitem(MODELS, "toy", (ToyConfig, ToyModel))
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    monkeypatch.setattr(demo, "builtin_recipes", lambda: {"ethanol": recipe})
    monkeypatch.setattr(demo, "EQUILIBRATION_STEPS", 20)
    monkeypatch.setattr(demo, "PRODUCTION_STEPS", 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_reports_errors_dynamics_and_missed_targets(small):
    ended = CliRunner().invoke(app, ["--no-cache", "demo"])
    assert ended.exit_code == 1 and "error: " not in ended.stderr, ended.stderr  # the toy does not learn
    folder = small / "runs" / "ethanol-1"
    for text in ("500K", "1000K", "force MAE, 500 K hold-out", "NOT MET", "eV/atom/ps", str(folder / "report.html")):
        assert text in ended.stdout, text
    assert (folder / "nve.png").is_file() and (folder / "nve.extxyz").is_file()
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4 and "NOT MET" in page and "energy drift" in page


def test_targets_are_judged_by_their_limits(monkeypatch):
    from equiform.report.run_report import Outcome

    def judged(forces: float, drift: float, steps: int) -> list[bool]:
        errors = {"500K": {"forces": {"mae": forces, "rmse": forces, "unit": "eV/Å"}}}
        outcome = Outcome(Path(), Path(), errors, Path(), {})
        summary = {"energy_drift_eV_per_atom_per_ps": drift, "steps": steps}
        return [met for *_, met in demo._targets(outcome, summary)]

    assert judged(0.059, -9e-5, 20_000) == [True, True, True]
    assert judged(0.061, -1.1e-4, 19_999) == [False, False, False]
    assert judged(float("nan"), 1.1e-4, 20_000) == [False, False, True]


def test_the_shipped_data_are_what_the_demo_says():
    from ase.io import read

    for name in ("train", "500K", "1000K", "atoms"):
        for atoms in read(shipped_data(f"ethanol_{name}.extxyz"), ":"):
            assert {"energy", "forces"} <= set(atoms.calc.results)
    atoms = read(shipped_data("ethanol_atoms.extxyz"), ":")
    assert sorted(str(frame.symbols) for frame in atoms) == ["C", "H", "O"]
