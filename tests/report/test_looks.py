"""Plots hide nothing: the smallest data set is on top, and legends are beside the data."""

import ase
import numpy as np
import pytest
from matplotlib.axes import Axes

from equiform.report import plots


def test_the_smallest_data_set_is_drawn_last(tmp_path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    original = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **options: drawn.append(len(x)) or original(self, x, y, **options))
    values = {"a": np.arange(5.0), "b": np.arange(50.0), "c": np.arange(20.0)}
    plots.parity(tmp_path / "a.png", [plots.Parity("q", "eV", values, values)])
    assert drawn == [50, 20, 5]


def test_a_legend_is_above_its_panel(tmp_path, monkeypatch: pytest.MonkeyPatch):
    places = []
    original = Axes.legend
    monkeypatch.setattr(
        Axes, "legend", lambda self, **options: places.append(options["bbox_to_anchor"]) or original(self, **options)
    )
    curves = [plots.Curve(name, np.arange(1.0, 5.0), np.arange(1.0, 5.0)) for name in ("training", "validation")]
    plots.lines(tmp_path / "a.png", [plots.Panel("t", "x", "y", curves)])
    plots.parity(tmp_path / "b.png", [plots.Parity("q", "eV", {"a": np.arange(3.0)}, {"a": np.arange(3.0)})])
    assert len(places) == 2 and all(height > 1 for _, height in places)


def test_a_crystal_is_drawn_with_its_cell(tmp_path):
    crystal = ase.Atoms("CO", [[0, 0, 0], [1.2, 0, 0]], cell=[3, 3, 3], pbc=True)
    molecule = ase.Atoms("CO", [[0, 0, 0], [1.2, 0, 0]])
    sizes = [plots.structure(tmp_path / f"{n}.png", atoms).stat().st_size for n, atoms in enumerate((crystal, molecule))]
    assert sizes[0] != sizes[1] and min(sizes) > 1000
