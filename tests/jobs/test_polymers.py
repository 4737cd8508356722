"""Making the polymer set: resumed, extended, collected; labels by ASE's EMT, which needs no further package."""

import json

import pytest
from ase.io import read

from equiform.data.sets.config import SetConfig
from equiform.data.sets.polymers_prepare import prepare_polymers
from equiform.errors import UserError
from equiform.jobs.polymers import PolymerConfig, make_polymers

CONFIG = {
    "families": ("PE",),
    "conformers": 4,
    "frames": 2,
    "classical_frames": 2,
    "classical_interval": 3,
    "equilibration": 2,
    "interval": 2,
    "method": "ase.calculators.emt:EMT",
}


def test_a_stopped_set_resumes_to_the_same_frames(tmp_path):
    pytest.importorskip("rdkit")
    config = PolymerConfig(**CONFIG)
    done = []
    statistics = make_polymers(config, tmp_path / "whole", progress=lambda *now: done.append(now))
    assert statistics["train"]["trajectories"] == 6  # three conformers, moved by MMFF94 and by the method
    assert statistics["validation"]["trajectories"] == 1 and statistics["longer"]["trajectories"] == 1
    assert done[-1][:2] == (8, 8)
    frames = read(tmp_path / "whole" / "train.extxyz", ":")
    assert {(a.info["family"], a.info["split"], a.info["method"]) for a in frames} == {("PE", "train", CONFIG["method"])}
    assert statistics == json.loads((tmp_path / "whole" / "statistics.json").read_text())

    make_polymers(PolymerConfig(**{**CONFIG, "conformers": 1}), tmp_path / "parts")
    (tmp_path / "parts" / "trajectories" / "PE-train-method-000.extxyz").unlink()  # as if killed before it was written
    make_polymers(config, tmp_path / "parts")
    for split in ("train", "validation", "longer"):
        assert (tmp_path / "parts" / f"{split}.extxyz").read_bytes() == (tmp_path / "whole" / f"{split}.extxyz").read_bytes()

    with pytest.raises(UserError, match=r"other settings \(frames = 2 there, 3 now\)"):
        make_polymers(PolymerConfig(**{**CONFIG, "frames": 3}), tmp_path / "whole")


def test_the_reserved_seed_is_refused():
    with pytest.raises(UserError, match="seed 7 is reserved"):
        PolymerConfig(seed=7)


def test_a_set_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="make it with: equiform data make polymers"):
        prepare_polymers(SetConfig(set="polymers", folder=str(tmp_path)), 5.0)
