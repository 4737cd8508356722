"""The table of uncertainties on real data: which frames are evaluated, and what a row says."""

import json

import ase.io
from ase import Atoms

from benchmarks import uncertainty


def test_the_hotter_frames_are_those_that_the_first_set_does_not_have(tmp_path):
    (tmp_path / "molecules").mkdir()
    frames = [Atoms("H", positions=[(0.1 * k, 0, 0)]) for k in range(12)]
    ase.io.write(tmp_path / "molecules" / "train_300K.xyz", frames[:8], format="extxyz")
    ase.io.write(tmp_path / uncertainty.MIXED, frames[4:], format="extxyz")
    ase.io.write(tmp_path / "test.xyz", frames[:3], format="extxyz")
    paths = uncertainty.evaluated(tmp_path, tmp_path / "test.xyz", tmp_path)
    places = {name: sorted(round(float(a.positions[0, 0]), 1) for a in ase.io.read(path, ":")) for name, path in paths.items()}
    assert places == {uncertainty.COLD: [0.0, 0.1, 0.2], uncertainty.HOT: [0.8, 0.9, 1.0, 1.1]}


def test_a_row_has_the_mean_and_the_spread_of_the_seeds(tmp_path):
    way = next(iter(uncertainty.WAYS))
    for seed, rmse in ((0, 0.020), (1, 0.022)):
        one = {"rmse": rmse, "expected": 0.03, "miscalibration": 0.1, "rank_correlation": 0.5, "count": 9, "unit": "eV/Å"}
        folder = tmp_path / way / f"seed{seed}"
        folder.mkdir(parents=True)
        found = {name: {"uncertainty": {"forces": one}} for name in (uncertainty.COLD, uncertainty.HOT)}
        (folder / "result.json").write_text(json.dumps(found))
    rows = list(uncertainty.table(tmp_path))[2:]
    spread = "30.0 ± 0.0 | 0.100 ± 0.000 | 0.50 ± 0.00"
    assert rows == [
        f"| {way} | 2 | {name} | forces, meV/Å | 21.0 ± 1.4 | {spread} |" for name in (uncertainty.COLD, uncertainty.HOT)
    ]
