"""Uncertainties: the formulas, their calibration, and where they are shown. The model is tiny and untrained."""

import json
import shutil
from math import sqrt
from pathlib import Path

import ase.io
import jax
import numpy as np
import pytest

from equiform.deploy.ase import calculator
from equiform.deploy.predictor import load
from equiform.deploy.uncertainty import find_uncertainty, require_uncertainty
from equiform.errors import UserError
from equiform.jobs.uncertainty import calibrate, choose, farthest, make_committee
from equiform.models import build_model, parse_config
from equiform.persist.modelfile import load_model, save_model
from equiform.persist.uncertainty import load_uncertainty
from equiform.simulate.md.dynamics import MDConfig, run_md
from equiform.tasks.energy import Potential
from equiform.tasks.uncertainty import LastLayer
from equiform.training.calibration import Estimates, binned, miscalibration, rank_correlation
from tests.jobs.tuned import WATER_MODEL, write

FIELDS = WATER_MODEL | {"num_layers": 1}
OFFSETS = {"H": -13.0, "O": -2000.0}


def save(folder: Path, seed: int, **changes) -> Path:
    config = parse_config(FIELDS | changes)
    task = Potential(build_model(config, key=jax.random.key(seed)), scale=0.5, elements=(1, 8), anchored=True)
    with jax.enable_x64(True):
        task = jax.tree.map(lambda leaf: leaf.astype("float64") if isinstance(leaf, jax.Array) else leaf, task)
    return save_model(folder, task, {1: -13.0, 8: -2000.0}, {})


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uncertain")
    data = write(folder / "water.xyz", "H2O", 40, 0, OFFSETS)
    model = save(folder / "model", 0)
    judged = calibrate(model, str(data), dtype="float64", say=str)
    return model, data, judged


@pytest.fixture(scope="module")
def doubt(calibrated):
    model, data, _ = calibrated
    predictor = load(model, dtype="float64")
    return require_uncertainty(model, predictor), ase.io.read(data, ":")


def test_errors_as_expected_have_no_miscalibration():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, 20_000)
    error = sigma * rng.normal(size=len(sigma))
    assert miscalibration(Estimates(sigma, error, "eV")) < 0.01
    # Errors that are expected to be infinite are all below the smallest quantile: the area is ∫ (1 − p) dp.
    assert miscalibration(Estimates(1e9 * sigma, error, "eV")) == pytest.approx(0.5, abs=1e-3)
    expected, observed = binned(Estimates(sigma, error, "eV"))
    assert np.allclose(expected, observed, rtol=0.1)


def test_the_rank_correlation_is_spearman():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    sigma, error = rng.uniform(size=50), rng.normal(size=50)
    assert rank_correlation(Estimates(sigma, error, "eV")) == pytest.approx(spearmanr(sigma, np.abs(error)).statistic)


def test_farthest_points_are_chosen_one_after_another():
    points = np.array([[0.0], [1.0], [10.0], [4.0], [0.0]])
    assert farthest(points, 3) == [0, 2, 3]
    assert farthest(points, 9) == [0, 2, 3, 1]  # the last point is the first one again


def test_the_energy_variance_is_the_quadratic_form(doubt):
    uncertainty, frames = doubt
    spread = uncertainty.spread
    assert isinstance(spread, LastLayer)
    features = uncertainty.predictor.descriptors(frames[0]).sum(axis=0)
    form = features @ np.asarray(spread.whitening @ spread.whitening.T) @ features
    assert uncertainty.of(frames[0]).energy == pytest.approx(spread.energy_factor * sqrt(form), rel=1e-9)
    assert uncertainty.of_energy(frames[0]) == pytest.approx(spread.energy_factor * sqrt(form), rel=1e-9)


def test_the_forces_variance_is_that_of_the_derivative(doubt):
    uncertainty, frames = doubt
    spread, step = uncertainty.spread, 1e-5
    sides = []
    for sign in (1, -1):
        moved = frames[0].copy()
        moved.positions[1, 2] += sign * step
        sides.append(uncertainty.predictor.descriptors(moved).sum(axis=0) @ np.asarray(spread.whitening))
    slope = (sides[0] - sides[1]) / (2 * step)
    expected = spread.forces_factor * np.linalg.norm(slope)
    assert uncertainty.of(frames[0]).forces[1, 2] == pytest.approx(expected, rel=1e-6)


def test_uncertainties_are_invariant_and_turn_with_the_molecule(doubt):
    uncertainty, frames = doubt
    turned = frames[0].copy()
    turned.rotate(90, "z", center=(0, 0, 0))
    one, other = uncertainty.of(frames[0]), uncertainty.of(turned)
    assert other.energy == pytest.approx(one.energy, rel=1e-8)
    assert np.allclose(other.forces, one.forces[:, [1, 0, 2]], rtol=1e-6)


def test_calibrated_factors_make_the_mean_scaled_error_one(calibrated):
    model, _, judged = calibrated
    assert set(judged.table) == {"energy", "forces"} and judged.plot.is_file()
    for one in judged.table.values():
        assert 0 <= one["miscalibration"] <= 0.5
        assert 0.2 < one["expected"] / one["rmse"] < 5
    content = load_uncertainty(model)
    assert content.energy_factor > 0 and content.forces_factor > 0


@pytest.mark.slow
def test_far_from_the_data_the_model_is_less_certain(doubt):
    uncertainty, frames = doubt
    stretched = frames[0].copy()
    stretched.positions[1] += 3 * (stretched.positions[1] - stretched.positions[0]) / 4
    usual = np.mean([uncertainty.of_energy(atoms) for atoms in frames])
    assert uncertainty.of_energy(stretched) > usual


@pytest.mark.slow
def test_the_calculator_gives_uncertainties(calibrated, doubt):
    model, _, _ = calibrated
    uncertainty, frames = doubt
    atoms = frames[0].copy()
    atoms.calc = calculator(model, dtype="float64")
    atoms.get_potential_energy()
    expected = uncertainty.of(atoms)
    assert atoms.calc.results["energy_uncertainty"] == pytest.approx(expected.energy)
    assert "forces_uncertainty" not in atoms.calc.results
    atoms.calc = calculator(model, dtype="float64", forces_uncertainty=True)
    atoms.get_potential_energy()
    assert np.allclose(atoms.calc.results["forces_uncertainty"], expected.forces)


def test_selected_structures_are_among_the_most_uncertain(doubt):
    uncertainty, frames = doubt
    chosen, sigma = choose(frames, uncertainty, 4, pool=0.25)
    assert len(set(chosen)) == 4 and chosen[0] == int(np.argmax(sigma))
    assert set(chosen) <= set(np.argsort(-sigma)[:10].tolist())


@pytest.mark.slow  # It compiles a program of its own.
def test_molecular_dynamics_logs_the_uncertainty_and_stops(doubt, tmp_path):
    uncertainty, frames = doubt
    config = MDConfig(temperature=300, steps=40, frame_interval=5, log_interval=5, stop_above=1e-9, stop_when_apart=False)
    log = tmp_path / "log.csv"
    with pytest.raises(UserError, match="needs a model with an uncertainty"):
        run_md(uncertainty.predictor, frames[0], config)
    result = run_md(uncertainty.predictor, frames[0], config, log=log, uncertainty=uncertainty)
    assert result.summary["stopped_above_at_step"] == 0
    rows = np.genfromtxt(log, delimiter=",", names=True, ndmin=1)
    assert rows["energy_uncertainty_eV"][0] == pytest.approx(uncertainty.of_energy(frames[0]), rel=1e-6)
    assert result.summary["steps"] < 40


def test_an_uncertainty_of_other_weights_is_refused(calibrated, tmp_path):
    model, _, _ = calibrated
    other = save(tmp_path / "other", 1)
    predictor = load(other, dtype="float64")
    assert find_uncertainty(other, predictor) is None
    with pytest.raises(UserError, match="no uncertainty was calibrated"):
        require_uncertainty(other, predictor)
    shutil.copy(model / "uncertainty.safetensors", other)
    with pytest.raises(UserError, match="belongs to other weights"):
        find_uncertainty(other, predictor)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    paths = [save(folder / f"member-{seed}", seed) for seed in range(3)]
    return make_committee(paths, folder / "committee"), paths


@pytest.mark.slow
def test_a_committee_predicts_the_mean(members, doubt):
    folder, paths = members
    atoms = doubt[1][0]
    predictions = [load(path, dtype="float64").predict_one(atoms) for path in paths]
    mean = load(folder, dtype="float64").predict_one(atoms)
    assert mean.energy == pytest.approx(np.mean([p.energy for p in predictions]), abs=1e-10)
    assert np.allclose(mean.forces, np.mean([p.forces for p in predictions], axis=0), atol=1e-10)


@pytest.mark.slow  # It compiles a program of its own.
def test_a_committee_is_uncertain_by_its_spread(members, calibrated, doubt):
    folder, paths = members
    calibrate(folder, str(calibrated[1]), dtype="float64", say=str)
    found = require_uncertainty(folder, load(folder, dtype="float64"))
    atoms = doubt[1][0]
    predictions = [load(path, dtype="float64").predict_one(atoms) for path in paths]
    sigma = found.of(atoms)
    assert sigma.energy == pytest.approx(found.spread.energy_factor * np.std([p.energy for p in predictions], ddof=1), rel=1e-8)
    spread = np.std([p.forces for p in predictions], axis=0, ddof=1)
    assert np.allclose(sigma.forces, found.spread.forces_factor * spread, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "said"), [({"cutoff": 4.0}, "their cutoffs differ"), ({"channels": 16}, "channels is 8 in model 1 and 16")]
)
def test_a_committee_of_different_models_is_one_clear_line(members, tmp_path, changes, said):
    _, paths = members
    with pytest.raises(UserError, match=said) as error:
        make_committee([paths[0], save(tmp_path / "other", 5, **changes)], tmp_path / "committee")
    assert "\n" not in str(error.value)


def test_a_committee_of_two_architectures_says_so_first(members, tmp_path):
    with pytest.raises(UserError, match=r"their architectures differ \(torchmd-et and equiformer\)"):
        make_committee([members[1][0], Path("organic-gfn2")], tmp_path / "committee")


@pytest.mark.slow
def test_too_few_labels_are_an_error(calibrated, tmp_path):
    data = write(tmp_path / "few.xyz", "H2O", 5, 0, OFFSETS)
    with pytest.raises(UserError, match="too few to calibrate"):
        calibrate(save(tmp_path / "model", 0), str(data), dtype="float64", say=str)


def test_the_file_beside_the_model_is_plain_numbers(calibrated):
    from safetensors import safe_open

    with safe_open(calibrated[0] / "uncertainty.safetensors", framework="numpy") as opened:
        content = json.loads(opened.metadata()["content"])
        assert content["kind"] == "last layer" and content["about"]["training"] == 32
        assert opened.get_tensor("whitening").shape == (8, 8)
    assert load_model(calibrated[0]).task.scale == 0.5


@pytest.mark.slow  # Four commands, each of which compiles programs of its own.
def test_the_commands_show_uncertainties(calibrated, doubt, tmp_path):
    from typer.testing import CliRunner

    from equiform.cli import app

    model, data, _ = calibrated

    def command(*words):
        result = CliRunner().invoke(app, ["--no-cache", *map(str, words)])
        assert result.exit_code == 0, result.output
        return result.stdout

    table = json.loads(command("evaluate", model, data, "--json", "--dtype", "float64", "--plot", tmp_path / "plot.png"))
    assert table["uncertainty"]["forces"]["unit"] == "eV/Å" and (tmp_path / "plot.png").is_file()
    command("predict", model, data, "-o", tmp_path / "out.extxyz", "--dtype", "float64")
    first = ase.io.read(tmp_path / "out.extxyz", 0)
    expected = doubt[0].of(doubt[1][0])
    assert first.info["energy_uncertainty"] == pytest.approx(expected.energy)
    assert np.allclose(first.arrays["forces_uncertainty"], expected.forces)
    said = command("select", data, "--count", 3, "--model", model, "-o", tmp_path / "chosen.extxyz", "--dtype", "float64")
    assert "wrote 3 of 40 structures" in said
    chosen = ase.io.read(tmp_path / "chosen.extxyz", ":")
    indices = choose(doubt[1], doubt[0], 3)[0]
    assert [atoms.info["candidate"] for atoms in chosen] == indices
    assert np.allclose(chosen[0].positions, doubt[1][indices[0]].positions)
    command(
        "md",
        model,
        chosen_start(chosen, tmp_path),
        "--temperature",
        300,
        "--steps",
        5,
        "--interval",
        5,
        "-o",
        tmp_path / "md.extxyz",
        "--dtype",
        "float64",
        "--no-stop-when-apart",
    )
    assert "energy_uncertainty_eV" in (tmp_path / "md.csv").read_text().splitlines()[0]


def chosen_start(frames, folder):
    path = folder / "start.xyz"
    ase.io.write(path, frames[0], format="extxyz")
    return path
