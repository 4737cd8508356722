"""The learning curves of fine-tuning: what each way trains, which frames are drawn, and the table."""

import json

import ase.io
import pytest
from ase import Atoms

from benchmarks.accuracy_sets import Split
from benchmarks.fine_tuning import BASE, TUNED, WAYS, collect, drawn, plot, settings, table


def test_every_way_but_the_default_starts_from_the_base_model():
    assert settings("defaults") == ["model=tiny"] and settings("tuned") == [f"from={BASE}"]
    assert all(settings(way)[0] == f"from={BASE}" for way in TUNED)
    assert any(entry.startswith("finetune.replay=") for entry in settings("readouts"))


def test_a_seed_draws_the_same_frames_and_a_fifth_of_them_for_validation(tmp_path):
    files = Split(*(tmp_path / f"{part}.xyz" for part in Split._fields))
    for path in files:
        ase.io.write(path, [Atoms("H", positions=[(k, 0, 0)]) for k in range(40)], format="extxyz")
    chosen = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        train, validation = drawn(files, 30, seed, tmp_path / name)
        chosen.append([atoms.positions[0, 0] for atoms in ase.io.read(train, ":")])
        assert len(ase.io.read(validation, ":")) == 6
    assert chosen[0] == chosen[1] != chosen[2] and len(set(chosen[0])) == 30


def test_the_table_has_a_row_for_each_way_and_the_spread_of_seeds(tmp_path):
    for way, seed, forces in (("defaults", 0, 40.0), ("tuned", 0, 10.0), ("tuned", 1, 12.0)):
        folder = tmp_path / "ethanol" / "30" / way / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(
            json.dumps({"forces": forces, "energy": 1.0, "seconds": 9.0} | ({"old": 70.0} if forces == 10 else {}))
        )
    found = collect(tmp_path)
    assert list(table(found)) == [
        "| set | training | seeds | 30 frames | old data |",
        "|---|---|---:|---:|---:|",
        f"| ethanol | {WAYS['defaults']} | 1 | 40.0 (1.00) | – |",
        f"| ethanol | {WAYS['tuned']} | 2 | 11.0 ± 1.4 (1.00 ± 0.00) | 70.0 |",
    ]
    pytest.importorskip("matplotlib")
    plot(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
