"""Error against minutes: which runs there are, how the peers are started, what their workers write, and the plot."""

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms

from benchmarks import time_to_accuracy
from benchmarks.accuracy_sets import SETS, Split
from benchmarks.accuracy_worker import Budget, TimeIsOver, settings_file
from benchmarks.many_runs import plot_forces
from benchmarks.peer_process import PEERS
from benchmarks.time_to_accuracy import (
    OURS,
    WORKERS,
    Machine,
    Results,
    Run,
    _ours,
    _peer,
    collect,
    machines,
    ratio_table,
    runs,
    table,
)

FILES = Split(Path("/data/train.xyz"), Path("/data/validation.xyz"), Path("/data/test.xyz"))


def command(code: str) -> list[str]:
    python = Path("/peer/bin/python")
    return _peer(Run("ethanol", code, 3, (2.0, 0.5)), FILES, Path("/out"), {code: python}, Machine("processor", 1))


def test_every_peer_has_a_worker_and_an_environment():
    assert WORKERS.keys() <= PEERS.keys() and not WORKERS.keys() & OURS.keys()
    assert all(Path(time_to_accuracy.__file__).with_name(worker.file).is_file() for worker in WORKERS.values())


@pytest.mark.parametrize("code", list(WORKERS))
def test_workers_import_nothing_of_equiform(code):
    text = Path(time_to_accuracy.__file__).with_name(WORKERS[code].file).read_text(encoding="utf-8")
    assert "import accuracy_worker" in text and "equiform" not in text and "from benchmarks" not in text


@pytest.mark.parametrize("code", list(WORKERS))
def test_a_peer_gets_the_clock_the_result_the_test_frames_and_the_minutes(code):
    python, worker, *common = command(code)[:6]
    assert python == "/peer/bin/python" and Path(worker).name == WORKERS[code].file
    assert common == ["processor", "/out/result.json", "/data/test.xyz", "2,0.5"]
    assert not any("{" in argument for argument in command(code))


def test_what_a_peer_gets_of_the_run():
    assert command("nequip")[6:] == ["/data/train.xyz", "/data/validation.xyz", "3", "/out"]
    assert command("mace")[6:11] == [
        "--name=mace-3",
        "--seed=3",
        "--work_dir=/out/mace",
        "--train_file=/data/train.xyz",
        "--valid_file=/data/validation.xyz",
    ]


def test_equiform_runs_for_each_number_of_minutes_and_a_peer_once():
    found = list(runs(["ethanol"], ["defaults", "nequix"], [0], [1.0, 2.0]))
    assert [(run.code, run.minutes) for run in found] == [("defaults", (1.0,)), ("defaults", (2.0,)), ("nequix", (1.0, 2.0))]


def test_a_peer_without_cells_is_left_out_of_periodic_sets():
    assert SETS["silicon"].periodic and not WORKERS["torchmd"].periodic
    found = list(runs(["ethanol", "silicon"], ["torchmd", "nequip"], [0], [1.0]))
    assert [(run.set, run.code) for run in found] == [("ethanol", "torchmd"), ("ethanol", "nequip"), ("silicon", "nequip")]


def budget(folder: Path, minutes: str) -> Budget:
    return Budget(["wall", str(folder / "result.json"), str(folder / "test.xyz"), minutes, "own"])


def test_a_worker_evaluates_the_last_model_before_each_number_of_minutes(tmp_path):
    atoms = Atoms("H2", positions=[(0, 0, 0), (1, 0, 0)])
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = 1.0, np.zeros((2, 3))
    ase.io.write(tmp_path / "test.xyz", [atoms, atoms], format="extxyz")
    training = budget(tmp_path, "1,2,3")
    assert training.arguments == ["own"]
    training.best = [(70.0, 4.0), (110.0, 3.0), (150.0, 2.0)]  # the models are their energies
    training.write(lambda model: 7, lambda model: lambda atoms: (model, np.full((len(atoms), 3), 0.1)))
    expected = {limit: {"forces": 0.1, "energy_per_atom": error} for limit, error in (("2", 1.0), ("3", 0.5))}
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert found.pop("parameters") == 7 and found.pop("1") is None
    assert found.keys() == expected.keys() and all(found[limit] == pytest.approx(expected[limit]) for limit in found)


def test_training_ends_when_the_longest_time_is_over(tmp_path):
    training = budget(tmp_path, "0,1000")
    training.keep(lambda: "first")
    training.limits = [0.0]
    with pytest.raises(TimeIsOver):
        training.keep(lambda: "too late")
    reached = False
    with training.until_over():
        training.check()
        reached = True
    assert not reached and [model for _, model in training.best] == ["first"]


def test_time_that_is_given_back_is_not_charged(tmp_path):
    training = budget(tmp_path, "1")
    before = training.seconds()
    training.give_back(100.0)
    assert -100 <= training.seconds() - before < -90


def test_small_numbers_stay_numbers_in_a_file_of_settings(tmp_path):
    # Found when TorchMD-NET compared its smallest learning rate "1e-07", a string, with a number.
    settings = {"lr_min": 1e-7, "lr": 1e-3, "seed": 3, "run": ["train"], "tensor": None}
    path = settings_file(tmp_path / "peer", settings)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == settings


def test_the_clock_starts_before_anything_heavy():
    code = "import accuracy_worker, sys; sys.exit('numpy' in sys.modules or 'equiform' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(time_to_accuracy.__file__).parent, check=True, timeout=60)


def test_the_cache_of_compiled_programs_is_off():
    # Compile time counts, and seeds and lengths share their programs.
    assert "--no-cache" in _ours(Run("ethanol", "defaults", 0, (2.0,)), FILES, Path("/out"), {}, Machine("processor", 1))


def test_a_finished_run_is_not_made_again(tmp_path, monkeypatch, capsys):
    made = []

    def make(run, *_):
        made.append(run)
        return {f"{limit:g}": {"forces": 0.02 / limit, "energy_per_atom": 0.001} for limit in run.minutes}

    monkeypatch.setattr(time_to_accuracy, "make", make)
    monkeypatch.setattr(time_to_accuracy, "split", lambda *_: FILES)
    command = ["time_to_accuracy", "-o", str(tmp_path), "--sets", "ethanol", "--codes", "defaults", "--minutes", "1", "2"]
    for seeds in (["0"], ["0", "1"]):
        monkeypatch.setattr(sys, "argv", [*command, "--seeds", *seeds])
        time_to_accuracy.main()
    assert made == [Run("ethanol", "defaults", seed, (limit,)) for seed in (0, 1) for limit in (1.0, 2.0)]
    assert capsys.readouterr().out.splitlines()[-1] == (
        "| ethanol | Equiform, defaults | 2 | **20.0 ± 0.0** (1.00) | **10.0 ± 0.0** (1.00) |"
    )


def test_the_lowest_force_error_is_bold():
    forces = {"mace": 0.03, "defaults": 0.02}
    found = {("ethanol", code, 5.0): [{"forces": force, "energy_per_atom": 0.0}] for code, force in forces.items()}
    assert table(found)[2:] == [
        "| ethanol | MACE | 1 | 30.0 (0.00) |",
        "| ethanol | Equiform, defaults | 1 | **20.0** (0.00) |",
    ]


def test_ratios_are_of_one_seed_on_one_machine(tmp_path):
    path = tmp_path / "results.jsonl"
    for machine, code, seed, forces in (
        ("slow", "mace", 0, 0.040),
        ("slow", "defaults", 0, 0.010),
        ("slow", "nequip", 0, 0.080),
        ("fast", "mace", 0, 0.020),
        ("fast", "mace", 1, 0.030),
        ("fast", "defaults", 0, 0.020),
        ("fast", "defaults", 2, 0.001),  # no seed 2 of MACE
    ):
        errors = {"5": {"forces": forces, "energy_per_atom": 0.0}}
        Results(path, "wall", machine).add(Run("ethanol", code, seed, (5.0,)), errors)
    assert machines(path) == ["slow", "fast"]
    assert ratio_table(path, "wall", "mace")[2:] == [
        "| ethanol | Equiform, defaults | 2 | 0.50 (0.25–1.00) |",
        "| ethanol | NequIP | 1 | 2.00 |",
    ]


def test_the_page_shows_the_committed_results():
    root = Path(time_to_accuracy.__file__).parents[1]
    page = (root / "docs" / "accuracy-per-minute.md").read_text(encoding="utf-8")
    results = root / "docs" / "data" / "time-to-accuracy.jsonl"
    assert machines(results)
    assert "\n".join(ratio_table(results, "processor", "mace")) in page
    for machine in machines(results):
        assert "\n".join(table(collect(Results(results, "processor", machine).read()))) in page


def test_seeds_are_collected_and_plotted_with_their_spread(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    results = Results(tmp_path / "results.jsonl", "wall", "here")
    for minutes, seed, forces in (((1.0, 2.0), 0, 0.010), ((2.0,), 1, 0.020), ((1.0, 2.0), 1, 0.014)):
        results.add(Run("ethanol", "nequip", seed, minutes), {"2": {"forces": forces, "energy_per_atom": 0.001}})
    for other in (Results(results.path, "processor", "here"), Results(results.path, "wall", "there")):
        other.add(Run("ethanol", "nequip", 2, (1.0, 2.0)), {"2": {"forces": 1.0, "energy_per_atom": 1.0}})
    found = collect(results.read())
    assert {key: len(errors) for key, errors in found.items()} == {("ethanol", "nequip", 2.0): 2}
    drawn = []
    plain = pyplot.Axes.errorbar
    monkeypatch.setattr(pyplot.Axes, "errorbar", lambda axis, *args, **style: drawn.append(args) or plain(axis, *args, **style))
    time_to_accuracy.plot(found, tmp_path / "curve.png", "wall")
    (minutes, means, spread), *others = drawn
    assert minutes == [2.0] and means == pytest.approx([12.0]) and spread == pytest.approx([8**0.5]) and not others
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_code_that_the_first_set_lacks_is_in_the_legend(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from matplotlib.figure import Figure

    legends = []
    monkeypatch.setattr(Figure, "legend", lambda figure, handles, labels, **style: legends.append(labels))
    found = {("silicon", "mace", 1.0): [30.0], ("ethanol", "mace", 1.0): [20.0], ("ethanol", "torchmd", 1.0): [25.0]}
    curves = {code: code.upper() for code in ("mace", "nequip", "torchmd")}
    plot_forces(found, curves, tmp_path / "curve.png", x_label="minutes", share_y=False)
    pyplot.close("all")
    assert legends == [["MACE", "TORCHMD"]]
