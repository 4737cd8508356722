"""Plots hide nothing: the smallest data set is on top, and legends are beside the data."""

import ase
import numpy as np
import pytest
from matplotlib.axes import Axes

from equiform.report import plots
from equiform.report.attention import AttentionStatistics, write_analysis


def test_the_smallest_data_set_is_drawn_last(tmp_path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    original = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **options: drawn.append(len(x)) or original(self, x, y, **options))
    values = {"a": np.arange(5.0), "b": np.arange(50.0), "c": np.arange(20.0)}
    plots.parity(tmp_path / "a.png", [plots.Parity("q", "eV", values, values)])
    assert drawn == [50, 50, 20, 20, 5, 5]  # each in the plot and in the errors below it


def test_every_data_set_has_a_distribution_of_its_errors(tmp_path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    original = Axes.hist
    monkeypatch.setattr(
        Axes, "hist", lambda self, x, **options: drawn.append((len(x), options["color"])) or original(self, x, **options)
    )
    reference = {"many": np.zeros(1000), "few": np.zeros(3), "none": np.zeros(0)}
    predicted = {"many": np.full(1000, 0.1), "few": np.full(3, 5.0), "none": np.zeros(0)}
    plots.parity(tmp_path / "a.png", [plots.Parity("q", "eV", reference, predicted)])
    assert drawn == [(1000, plots.COLOURS[0]), (3, plots.COLOURS[1])]


def test_numbers_of_an_attention_map_contrast_with_their_colour(tmp_path, monkeypatch: pytest.MonkeyPatch):
    written = {}
    original = Axes.text

    def write(self, x, y, text, **options):
        written[text] = options
        return original(self, x, y, text, **options)

    monkeypatch.setattr(Axes, "text", write)
    pairs, distances = np.array([[[1.0, 9.0], [0.0, 1.0]]] * 3), np.ones((3, 1, 40))
    counts = np.array([[[1.0, 1.0], [0.0, 1.0]]] * 3)
    statistics = AttentionStatistics(
        (1, 6), pairs[:, None], pairs[:, None], counts, np.ones(2), distances, distances[:, 0], np.linspace(0, 5, 41), 1
    )
    write_analysis(statistics, tmp_path, "title")
    assert (written["9.00"]["color"], written["1.00"]["color"]) == ("black", "white")
    assert "–" in written


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
