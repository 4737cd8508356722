"""`data`, `recipe run`, `table` and `analyze` on small files in the publishers' formats."""

import itertools
import json
import os
import signal

import numpy as np
import pytest

from equiform.cli import main
from equiform.data.sets import catalogue
from equiform.training.session import Session
from tests.data.published import write_md17

SMALL = [
    "data.split=random",
    "data.test_size=40",
    "training.epochs=2",
    "training.validate_every=20",
    "model.num_layers=1",
    "model.irreps=8x0e+4x1e",
    "model.irreps_sh=1x0e+1x1e",
    "model.irreps_head=4x0e+2x1e",
    "model.irreps_mlp=8x0e+4x1e",
    "model.irreps_feature=8x0e",
]


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(catalogue.ENVIRONMENT, raising=False)
    monkeypatch.chdir(tmp_path)
    write_md17(tmp_path / "published" / "rmd17_ethanol.npz", 1100, revised=True)
    rows = np.arange(1000, dtype=np.int32)
    np.savez(tmp_path / "published" / "splits_ethanol.npz", train_01=rows, test_01=rows[:100] + 1000)
    return tmp_path / "published"


def _interrupt_at(patch, validation):
    validate, count = Session.validate, itertools.count(1)

    def interrupted(session):
        if next(count) == validation:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(session)

    patch.setattr(Session, "validate", interrupted)


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["--no-cache", *map(str, words)])
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_a_set_is_fetched_from_a_folder_and_described(published, capsys):
    status, out, _ = run(capsys, "data", "fetch", "rmd17", "ethanol", "--from", published)
    assert status == 0 and "1,100 structures, ready in" in out
    status, out, _ = run(capsys, "data", "info", "rmd17", "ethanol", "--plots", "plots")
    assert status == 0 and "1 kcal/mol = 43.3641 meV" in out and "950 / 50 of its training rows / 100" in out
    # The revised labels of the made-up file have half the forces: the energy changes by twice their work.
    assert "ΔE = 2.000" in out and (published.parent / "plots" / "histograms.png").stat().st_size > 1000
    status, out, _ = run(capsys, "data", "info", "md17", "ethanol", "--from", published, "--json")
    content = json.loads(out)
    assert content["facts"]["structures"] == "1,100" and "ΔE = 1.000" in content["facts"]["energies and forces"]
    assert {row["name"]: row["unit"] for row in content["fields"]} == {"energy": "eV", "forces": "eV/Å"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "info", "qm9"], "qm9 is not available: run 'equiform data fetch qm9'"),
        (["data", "info", "qm8"], "did you mean 'qm9'"),
        (["recipe", "run", "qm9-alhpa"], "did you mean 'qm9-alpha'"),
        (["recipe", "run", "qm9-alpha", "data.targt=x"], "unknown key 'targt' in data; did you mean 'target'?"),
        (["recipe", "run", "md17-uracil-l2", "--from", "published"], "has no published file of md17-uracil"),
        (["table", "qm8"], "there is no table 'qm8'; did you mean 'qm9'?"),
        (["table", "qm9", "published"], "has no result of a table entry"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(published, capsys, words, message):
    status, _, err = run(capsys, *words)
    assert status == 1 and message in err and len(err.strip().splitlines()) == 1


def test_the_published_table_is_printed(capsys):
    status, out, _ = run(capsys, "table", "qm9")
    assert status == 0 and "PaiNN" in out and "0.046" in out
    status, out, _ = run(capsys, "table", "oc20", "--json")
    rows = {row["method"]: row["cells"] for row in json.loads(out)["rows"]}
    assert rows["Equiformer (published)"]["val/val_id"] == "0.5088"


@pytest.mark.slow  # Compiles a model twice.
def test_an_entry_is_reproduced_twice_the_same_and_stands_in_the_table(published, capsys, monkeypatch):
    values = []
    for name in ("a", "b"):
        words = ["recipe", "run", "rmd17-ethanol-l2", "--scaled", "--from", "published", "-o", name, *SMALL]
        if name == "b":
            with monkeypatch.context() as patch:  # The second run is interrupted at its second validation.
                _interrupt_at(patch, validation=2)
                status, _, err = run(capsys, *words)
            assert status == 128 + signal.SIGTERM
            assert f"resume with: equiform recipe run --resume {published.parent / name}" in err
            (published.parent / name / "interrupted.json").write_text('{"minutes": 60}')
            words = ["recipe", "run", "--resume", name]
        status, out, _ = run(capsys, *words)
        assert status == 0 and (name == "b" or ("NOT the full protocol" in out and "training.epochs=2" in out))
        assert "validation error, first → best" in out and "scaled: 950 / 50 / 40 structures, 2 epochs" in out
        result = json.loads((published.parent / name / "benchmark.json").read_text())
        first, best, _ = result["progress"]["forces"]
        assert best < first and result["form"] == "scaled" and (result["minutes"] > 60) == (name == "b")
        values.append(result["values"])
    assert values[0] == values[1]
    errors = json.loads((published.parent / "a" / "errors.json").read_text())["test"]
    assert values[0]["energy"] == [pytest.approx(1e3 * errors["energy"]["mae"]), "meV"]
    status, out, _ = run(capsys, "table", "rmd17", "a", "b", "--curves", "curves.png")
    assert (published.parent / "curves.png").stat().st_size > 5000
    assert status == 0 and "Equiformer, L = 2 (ours, scaled)" in out and "± 0" in out
    status, _, err = run(capsys, "table", "md17", "a")
    assert status == 1 and "belongs to the table rmd17" in err
    status, out, _ = run(capsys, "analyze", "attention", "a", "rmd17:ethanol", "--structures", "5", "-o", "seen", "--json")
    assert status == 0 and json.loads(out)["elements"] == ["H", "O"]
