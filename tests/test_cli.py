"""The commands as people type them: what is printed, what is written, and how they end."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import BaseModel, ConfigDict
from typer.testing import CliRunner

from equiform.cli import app
from equiform.cli.app import COMMANDS
from tests.toy import ToyModel

MORSE = {"epsilon": 1.0, "rho0": 1.8, "r0": 1.2, "rcut1": 3.0, "rcut2": 3.9}


class ToySettings(BaseModel):
    """The toy model with a configuration that can be saved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["toy"] = "toy"
    cutoff: float = 4.0
    elements: tuple[int, ...] = (1, 6, 8)
    num_tags: int = 0


class Result:
    """Exit status and both streams of a command."""

    def __init__(self, *arguments: Any):
        ended = CliRunner().invoke(app, ["--no-cache", *map(str, arguments)])
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        self.status, self.out, self.err = ended.exit_code, ended.stdout, ended.stderr

    def error(self, status: int = 1) -> str:
        """The one line of an error."""
        assert self.status == status, (self.status, self.out, self.err)
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0]


def structures(count: int, seed: int = 0) -> list[Atoms]:
    """Water molecules with energies and forces of ASE's Morse potential."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.08, size=(3, 3))
        atoms.calc = MorsePotential(**MORSE)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        found.append(atoms)
    return found


@pytest.fixture(autouse=True)
def _toy_model(monkeypatch, tmp_path):
    from equiform.models import MODELS

    monkeypatch.setitem(MODELS, "toy", (ToySettings, ToyModel))
    monkeypatch.chdir(tmp_path)
    # A terminal of that width would break the lines of usage errors.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "water.xyz"
    ase.io.write(path, structures(12), format="extxyz")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of the toy model; shared, so nothing may be written into it."""
    from equiform.models import MODELS

    folder = tmp_path_factory.mktemp("trained")
    data = folder / "water.xyz"
    ase.io.write(data, structures(12), format="extxyz")
    before = dict(MODELS)
    MODELS["toy"] = (ToySettings, ToyModel)
    try:
        settings = ["model.name=toy", "training.epochs=3", "training.batch_size=4"]
        result = Result("train", data, *settings, "-o", folder / "run")
    finally:
        MODELS.clear()
        MODELS.update(before)
    assert result.status == 0, result.err
    return folder / "run", result


def test_train_reports_what_it_found_and_leaves_everything(trained):
    run, result = trained
    for text in ("structures", "H2O", "parameters", "meV/Å", "meV/atom", str(run / "report.html")):
        assert text in result.out, text
    for name in (
        "recipe.yaml",
        "metrics.jsonl",
        "learning_curve.png",
        "parity.png",
        "report.html",
        "errors.json",
    ):
        assert (run / name).is_file(), name
    assert (run / "best" / "config.json").is_file() and (run / "last" / "config.json").is_file()


def test_the_report_is_one_file_with_errors_units_plots_recipe_and_versions(trained):
    run, _ = trained
    page = (run / "report.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 2
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)
    for text in ("meV/Å", "meV/atom", "name: toy", "jaxlib", "validation"):
        assert text in page, text


def test_the_effective_recipe_trains_again_to_the_same_weights(trained, tmp_path):
    run, _ = trained
    again = tmp_path / "again"
    assert Result("train", run / "recipe.yaml", "-o", again).status == 0
    weights = [(folder / "best" / "weights.safetensors").read_bytes() for folder in (run, again)]
    assert weights[0] == weights[1]


def test_a_finished_run_can_be_resumed_and_changes_nothing(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained[0], copy)
    before = (copy / "best" / "weights.safetensors").read_bytes()
    assert Result("train", "--resume", copy).status == 0
    assert (copy / "best" / "weights.safetensors").read_bytes() == before


def test_default_run_folders_are_numbered_and_nothing_is_overwritten(trained, data, tmp_path):
    shutil.copytree(trained[0], tmp_path / "runs" / "water-1")
    arguments = ("train", data, "model.name=toy", "training.max_steps=1")
    assert Result(*arguments).status == 0
    assert (tmp_path / "runs" / "water-2" / "report.html").is_file()
    before = (tmp_path / "runs" / "water-1" / "metrics.jsonl").read_bytes()
    assert "holds an earlier run" in Result(*arguments, "-o", "runs/water-1").error()
    assert (tmp_path / "runs" / "water-1" / "metrics.jsonl").read_bytes() == before


def test_evaluate_prints_exactly_one_json_object(trained, data):
    result = Result("evaluate", trained[0], data, "--json")
    assert result.status == 0
    errors = json.loads(result.out)
    assert set(errors) == {"energy_per_atom", "forces", "stress"}
    assert all(set(entry) == {"mae", "rmse", "unit"} for entry in errors.values())
    assert [entry["unit"] for entry in errors.values()] == ["eV/atom", "eV/Å", "eV/Å³"]
    assert errors["stress"]["mae"] is None


def test_evaluate_says_that_energies_are_not_ev(trained, tmp_path):
    water = molecule("H2O")
    water.info["energy"] = -76.404702  # Hartree, B3LYP
    ase.io.write(tmp_path / "hartree.xyz", [water], format="extxyz")
    result = Result("evaluate", trained[0], tmp_path / "hartree.xyz", "--json")
    assert result.status == 0 and set(json.loads(result.out)) == {"energy_per_atom", "forces", "stress"}
    assert "is the energy in Hartree" in result.err and "convert the file" in result.err


def test_evaluate_names_its_own_options(trained, data, tmp_path):
    line = Result("evaluate", trained[0], data, "--energy-key", "enrgy").error()
    assert "--energy-key enrgy: not in the file" in line and "data." not in line
    ase.io.write(tmp_path / "bare.xyz", molecule("H2O"), format="extxyz")
    assert "--energy-key …" in Result("evaluate", trained[0], tmp_path / "bare.xyz").error()


def test_evaluate_agrees_with_predict_and_numpy(trained, data, tmp_path):
    errors = json.loads(Result("evaluate", trained[0], data, "--json", "--dtype", "float64").out)
    assert Result("predict", trained[0], data, "-o", "p.extxyz", "--dtype", "float64").status == 0
    predicted, reference = ase.io.read(tmp_path / "p.extxyz", ":"), ase.io.read(data, ":")
    difference = np.array([p.get_forces() - r.get_forces() for p, r in zip(predicted, reference)])
    energy = np.array([(p.get_potential_energy() - r.get_potential_energy()) / 3 for p, r in zip(predicted, reference)])
    assert errors["forces"]["mae"] == pytest.approx(np.abs(difference).mean(), rel=1e-10)
    assert errors["forces"]["rmse"] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-10)
    assert errors["energy_per_atom"]["mae"] == pytest.approx(np.abs(energy).mean(), rel=1e-9)


def test_evaluate_prints_a_table_with_units(trained, data):
    result = Result("evaluate", trained[0], data)
    assert result.status == 0 and "meV/Å" in result.out and "force components" in result.out


def test_predictions_read_back_to_the_same_float64(trained, tmp_path):
    from equiform.predictor import load

    crystal = bulk("C", "diamond", a=3.567890123456789)
    crystal.positions[0] += 1 / 3
    crystal.info |= {"label": "a b=[c]", "REF_energy": -1.0, "energy": 5.0}
    ase.io.write("in.extxyz", [*structures(2), crystal], format="extxyz")
    given = ase.io.read("in.extxyz", ":")
    model = tmp_path / "model"
    save_toy(model)
    assert Result("predict", model, "in.extxyz", "-o", "out.extxyz", "--dtype", "float64").status == 0
    written = ase.io.read("out.extxyz", ":")
    expected = load(model, dtype="float64").predict(given)
    for atoms, prediction, source in zip(written, expected, given, strict=True):
        assert atoms.get_potential_energy() == prediction.energy
        assert np.array_equal(atoms.get_forces(), prediction.forces)
        assert np.array_equal(atoms.positions, source.positions)
        assert np.array_equal(atoms.cell.array, source.cell.array) and (atoms.pbc == source.pbc).all()
    assert np.array_equal(written[2].get_stress(voigt=False), expected[2].stress)
    assert written[2].info["label"] == "a b=[c]" and written[2].info["REF_energy"] == -1.0


def save_toy(folder: Path, elements: tuple[int, ...] = (1, 6, 8)) -> None:
    import jax

    from equiform.modelfile import save_model
    from equiform.potential import Potential

    model = ToyModel(ToySettings(elements=elements), key=jax.random.key(0))  # type: ignore[arg-type]
    save_model(folder, Potential(model), dict.fromkeys(elements, -10.0), {})


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
    assert "drift (eV/atom/ps)" in more.out and "temperature (K)" in more.out
    assert len(ase.io.read("water-nve.extxyz", ":")) == 31
    assert "exists already" in Result("md", trained[0], data, "--temperature", 100).error()


def test_relax_finds_the_minimum_and_says_when_it_did_not(trained, data, tmp_path):
    done = Result("relax", trained[0], data, "-o", "relaxed.extxyz", "--fmax", 0.01, "--dtype", "float64")
    assert done.status == 0, done.err
    assert np.linalg.norm(ase.io.read("relaxed.extxyz").get_forces(), axis=1).max() < 0.01
    short = Result("relax", trained[0], data, "-o", "short.extxyz", "--steps", 1, "--fmax", 1e-5)
    assert "not relaxed after 1 steps" in short.error() and (tmp_path / "short.extxyz").is_file()


def test_info_describes_data_model_and_run(trained, data):
    run, _ = trained
    assert "structures" in Result("info", data).out
    model = Result("info", run / "best").out
    assert "toy" in model and "cutoff: 4 Å" in model and "elements: H, O" in model
    whole = Result("info", run).out
    assert "meV/Å" in whole and "name: toy" in whole


def test_info_of_structures_without_labels_warns(tmp_path):
    ase.io.write("bare.xyz", molecule("H2O"), format="extxyz")
    result = Result("info", "bare.xyz")
    assert result.status == 0 and "warning: no energies or forces" in result.err


def test_recipe_commands():
    assert "ethanol" in Result("recipe", "list").out
    assert "equiform:ethanol_train.extxyz" in Result("recipe", "show", "ethanol").out
    assert json.loads(Result("recipe", "schema").out)["title"] == "Equiform recipe"
    assert "did you mean 'ethanol'" in Result("recipe", "show", "ethanl").error()


def test_version_and_help_with_examples():
    from equiform import __version__

    assert Result("--version").out == f"equiform {__version__}\n"
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    pages = [[command] for command in COMMANDS if command not in groups]
    pages += [
        [name, c.name or c.callback.__name__]
        for name, group in groups.items()
        if name != "recipe"
        for c in group.registered_commands
    ]
    for command in pages:
        page = Result(*command, "--help")
        assert page.status == 0 and f"equiform {' '.join(command)}" in page.out.split("Examples")[1], command


def test_wrong_usage_ends_with_status_2(data):
    for arguments in (
        ["nonsense"],
        ["train"],
        ["evaluate", "x"],
        ["md", "x"],
        ["train", data, "--resume", "x"],
    ):
        assert Result(*arguments).status == 2, arguments
    usage = Result("md", "x", data, "--steps", 3, "--time", 1)
    assert usage.status == 2 and "either --steps or --time" in usage.err


# The list of bad input: one clear line, status 1, and nothing is lost.

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty.xyz": (b"", "empty"),
    "text.xyz": (b"hello\nworld\n", "text.xyz"),
    "cut.xyz": (
        b'3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1.0 pbc="F F F"\nH 0 0 0 0 0 0\n',
        "cut.xyz",
    ),
    "binary.traj": (b"\x00\x01\x02", "binary.traj"),
    "nothing.dat": (b"\x00\x01\x02", "nothing.dat"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_broken_data_file_is_named(name, tmp_path):
    content, part = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert part in Result("train", name).error()
    assert not (tmp_path / "runs").exists()


def labelled(**changes: Any) -> list[Atoms]:
    """Three structures, something about the second one changed."""
    frames = structures(3)
    atoms, results = frames[1], dict(frames[1].calc.results)
    for name, value in changes.items():
        if name in ("energy", "forces"):
            results[name] = value
        else:
            setattr(atoms, name, value)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return frames


def write(path: str, frames: list[Atoms]) -> None:
    ase.io.write(path, frames, format="extxyz")


def test_missing_files_are_named(tmp_path):
    assert "absent.xyz" in Result("train", "absent.xyz").error()
    assert "absent.yaml" in Result("train", "absent.yaml").error()
    assert "absent" in Result("evaluate", "absent", "absent.xyz").error()


def test_no_labels(tmp_path):
    write("bare.xyz", [molecule("H2O")] * 3)
    assert "no energies or forces" in Result("train", "bare.xyz").error()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_labels_that_are_not_finite(bad):
    forces = np.zeros((3, 3))
    forces[1, 2] = bad
    write("bad.xyz", labelled(forces=forces))
    assert "structure 1" in Result("train", "bad.xyz").error()


def test_positions_that_are_not_finite():
    write("bad.xyz", labelled(positions=np.full((3, 3), np.nan)))
    assert "structure 1" in Result("train", "bad.xyz").error()


def test_overlapping_atoms(trained):
    write("bad.xyz", labelled(positions=np.zeros((3, 3))))
    assert "structure 1" in Result("train", "bad.xyz").error()
    assert "structure 1" in Result("predict", trained[0], "bad.xyz", "-o", "out.extxyz").error()


def test_periodic_without_a_cell(trained):
    write("bad.xyz", labelled(pbc=True))
    assert "structure 1" in Result("train", "bad.xyz").error()
    assert "cell" in Result("predict", trained[0], "bad.xyz", "-o", "out.extxyz").error()


def test_labels_of_the_wrong_shape():
    text = "\n".join(["1", "Properties=species:S:1:pos:R:3:forces:R:2 energy=1.0", "H 0 0 0 1 2"]) + "\n"
    Path("bad.xyz").write_text(text * 3)
    assert Result("train", "bad.xyz").status == 1


def test_unknown_elements_at_prediction(trained):
    write("iron.xyz", [Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 2]])])
    assert "Fe" in Result("predict", trained[0], "iron.xyz", "-o", "out.extxyz").error()
    assert "Fe" in Result("evaluate", trained[0], "iron.xyz").error()
    assert not Path("out.extxyz").exists()


def test_a_lone_atom_has_its_reference_energy(tmp_path):
    save_toy(tmp_path / "model")
    write("atom.xyz", [Atoms("O")])
    assert Result("predict", "model", "atom.xyz", "-o", "out.extxyz").status == 0
    assert ase.io.read("out.extxyz").get_potential_energy() == -10.0


def test_energies_in_hartree_are_warned_about():
    frames = []
    for atoms in structures(8):
        energy = -76.4 + atoms.get_potential_energy() / 27.2
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=atoms.get_forces() / 51.4)
        frames.append(atoms)
    write("hartree.xyz", frames)
    result = Result("info", "hartree.xyz")
    assert result.status == 0 and re.search(r"warning: .*Hartree", result.err)


def test_wrong_models(data, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.json").write_text("{}")
    save_toy(tmp_path / "future")
    config = tmp_path / "future" / "config.json"
    config.write_text(config.read_text().replace('"format_version": 1', '"format_version": 99'))
    assert "version" in Result("evaluate", "future", data).error()
    for wrong in ("folder", "file.json", data):
        Result("evaluate", wrong, data).error()


def test_an_existing_output_is_kept(trained, data, tmp_path):
    Path("out.extxyz").write_text("precious")
    assert "exists already" in Result("predict", trained[0], data, "-o", "out.extxyz").error()
    assert Path("out.extxyz").read_text() == "precious"
    assert Result("predict", trained[0], data, "-o", "out.extxyz", "--overwrite").status == 0
    assert "name the file" in Result("predict", trained[0], data, "-o", "out.txt").error()
    assert "does not exist" in Result("predict", trained[0], data, "-o", "no/out.extxyz").error()


def test_a_run_folder_that_cannot_be_made(data, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in Result("train", data, "model.name=toy", "-o", "file/run").error()


def test_a_full_disk_ends_with_one_line(trained, data, monkeypatch):
    import errno
    import os

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("equiform.extxyz.os.fsync", full)
    message = Result("predict", trained[0], data, "-o", "out.extxyz").error()
    assert "No space left" in message and "out.extxyz" in message
    assert not list(Path().glob("*out.extxyz*"))


def test_a_mistake_in_a_recipe_is_told_before_anything_is_read(tmp_path):
    Path("recipe.yaml").write_text("data:\n  train: absent.xyz\ntraining:\n  batchsize: 3\n")
    assert "recipe.yaml:4: unknown key 'batchsize'" in Result("train", "recipe.yaml").error()
    assert "'model.nme=toy'" in Result("train", "absent.xyz", "model.nme=toy").error()


def test_an_unexpected_exception_is_a_bug_of_ours(data, monkeypatch):
    def broken(path: Path) -> None:
        raise RuntimeError("unforeseen\nsecond line")

    monkeypatch.setattr("equiform.about.about", broken)
    message = Result("info", data).error(status=70)
    assert "RuntimeError: unforeseen" in message and "--debug" in message
    with pytest.raises(RuntimeError, match="unforeseen"):
        Result("info", data, "--debug")


def test_ctrl_c_ends_with_130_and_a_hint(data, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("equiform.training.fit.fit", interrupted)
    result = Result("train", data, "model.name=toy", "-o", "run")
    assert result.status == 130 and result.err.splitlines()[-1].endswith("equiform train --resume run")


def test_the_installed_command_ends_with_its_status():
    equiform = Path(sys.executable).with_name("equiform")
    if not equiform.exists():
        pytest.skip("the command is not installed beside this Python")
    run = subprocess.run([equiform, "info", "absent.xyz"], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1 and run.stderr.startswith("error: absent.xyz") and run.stdout == ""


def test_a_continued_run_cannot_be_given_other_settings():
    result = Result("md", "model", "--resume", "x.npz", "--timestep", 1.0, "--seed", 3)
    assert result.status == 2 and "--timestep, --seed: fixed" in result.err


def test_md_settings_out_of_range_are_wrong_usage(data):
    result = Result("md", "model", data, "--timestep", -1)
    assert result.status == 2 and "--timestep should be greater than 0, but -1.0" in result.err


def test_a_model_of_tagged_atoms_is_trained_evaluated_and_used_on_tagged_structures(data, tmp_path):
    settings = ["model.name=toy", "model.num_tags=3", "training.max_steps=2", "training.batch_size=4"]
    assert "a training structure has none" in Result("train", data, *settings, "-o", tmp_path / "run").error()
    frames = structures(12)
    for atoms in frames:
        atoms.set_tags([2, 1, 0])
    ase.io.write(tmp_path / "tagged.xyz", frames, format="extxyz")
    result = Result("train", tmp_path / "tagged.xyz", *settings, "-o", tmp_path / "run2")
    assert result.status == 0, result.err
    found = json.loads(Result("evaluate", tmp_path / "run2", tmp_path / "tagged.xyz", "--json").out)
    assert found["forces"]["mae"] > 0
    assert "has none" in Result("evaluate", tmp_path / "run2", data, "--json").error()
    assert "has none" in Result("predict", tmp_path / "run2", data, "-o", "p.xyz").error()
    assert Result("predict", tmp_path / "run2", tmp_path / "tagged.xyz", "-o", "p.xyz").status == 0
    assert ase.io.read("p.xyz").get_tags().tolist() == [2, 1, 0]


def test_of_the_elements_of_a_model_those_are_known_that_the_data_have(data, trained, tmp_path):
    # The toy model is made for H, C and O; water was learnt.
    ase.io.write(tmp_path / "methane.xyz", molecule("CH4"))
    line = Result("predict", trained[0], tmp_path / "methane.xyz", "-o", "p.xyz").error()
    assert "has C, but the model knows only H, O" in line


def test_a_used_run_folder_is_refused_before_the_data_are_read(trained):
    assert "holds an earlier run" in Result("train", "gone.xyz", "-o", trained[0]).error()


def test_a_misspelt_recipe_is_not_taken_for_a_data_file():
    assert "did you mean the recipe ethanol?" in Result("train", "ethanoll").error()


def test_xla_is_told_to_be_silent_before_it_is_imported():
    code = (
        "import os, sys; import equiform.cli; assert 'jax' not in sys.modules\n"
        "try: equiform.cli.main(['--version'])\n"
        "except SystemExit: print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ended = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == "3"
