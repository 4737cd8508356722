"""The report: numbers with units, escaped, self-contained; plots that survive missing and odd values."""

import base64
import re

import numpy as np
import pytest

from equiform.report import plots
from equiform.report.html import Figure, Report, error_rows, write_report


def errors(mae, unit="eV/Å"):
    return {"set": {"forces": {"mae": mae, "rmse": 2 * mae, "unit": unit}}}


@pytest.mark.parametrize(
    ("mae", "shown"), [(0.0451, "45.1"), (1.2345, "1234"), (0.0001234, "0.123"), (0.0, "0.00"), (4.5e-9, "4.50e-06")]
)
def test_errors_are_shown_in_milli_units_with_three_digits(mae, shown):
    (row,) = error_rows(errors(mae))
    assert (row.mae, row.unit) == (shown, "meV/Å")


def test_other_units_stay_and_missing_labels_are_left_out():
    (row,) = error_rows(errors(0.5, unit="D"))
    assert (row.mae, row.rmse, row.unit) == ("0.500", "1.00", "D")
    missing = {"forces": {"mae": None, "rmse": None, "unit": "eV/Å"}, "stress": {"mae": float("nan"), "unit": "x"}}
    assert error_rows({"set": missing}) == []


def test_the_page_embeds_figures_and_escapes_text(tmp_path):
    figure = plots.lines(tmp_path / "a.png", [plots.Panel("t", "x (s)", "y (m)", [plots.Curve("c", [1.0, 2.0], [1.0, 2.0])])])
    report = Report(
        title="<b>&",
        errors=errors(0.01),
        targets=[("claim", "1", "≤ 2", True), ("other", "3", "≤ 2", False)],
        figures=[Figure(figure, "what it shows")],
        warnings=["look <here>"],
        data=["lines"],
        recipe="a: 1",
        facts={"jax": "1"},
    )
    page = write_report(report, tmp_path / "r.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;&amp;" in page and "look &lt;here&gt;" in page
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(image) == figure.read_bytes()
    assert "NOT MET" in page and ">met<" in page


def test_plots_survive_missing_values_and_single_points(tmp_path):
    curve = plots.Curve("c", [1.0, 2.0, 3.0], [np.nan, 0.0, -1.0], marked=True)
    assert plots.lines(tmp_path / "a.png", [plots.Panel("t", "x", "y", [curve], log_y=True)]).stat().st_size
    one = {"a": np.array([1.0]), "b": np.array([np.nan]), "c": np.zeros(0)}
    panels = [plots.Parity("q", "eV", one, one), plots.Parity("q", "eV", {"a": np.zeros(0)}, {"a": np.zeros(0)})]
    assert plots.parity(tmp_path / "b.png", panels).stat().st_size
    assert plots.dynamics(tmp_path / "c.png", np.arange(3.0), np.ones(3), np.ones(3), 2, drift=0.0).stat().st_size


def test_large_parity_plots_are_thinned_but_their_error_is_of_all_points(tmp_path, monkeypatch):
    drawn = []
    from matplotlib.axes import Axes

    original = Axes.scatter

    def scatter(self, x, y, **options):
        if options["label"]:
            drawn.append((len(x), options["label"]))
        return original(self, x, y, **options)

    monkeypatch.setattr(Axes, "scatter", scatter)
    reference = np.linspace(0, 1, plots.MAX_POINTS + 5000)
    plots.parity(tmp_path / "a.png", [plots.Parity("q", "eV", {"s": reference}, {"s": reference + 0.25})])
    assert drawn == [(plots.MAX_POINTS, "s: MAE 0.25 eV")]
