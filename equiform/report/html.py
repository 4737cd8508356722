"""The report of a run: one self-contained HTML page, and the table of errors that the terminal shows too."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiform.training.metrics import in_millis

QUANTITIES = {
    "energy_per_atom": "energy per atom",
    "forces": "force components",
    "stress": "stress components",
}
"""Display names of the errors; other quantities keep their own name. The total energy appears only in the papers' tables."""


@dataclass(frozen=True)
class ErrorRow:
    """One row of the table of errors, in display units."""

    data: str
    quantity: str
    mae: str
    rmse: str
    unit: str


@dataclass(frozen=True)
class Figure:
    """A plot and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Attributes:
        title: Heading.
        summary: Paragraphs that summarise the run.
        errors: The result of `evaluate` per data set.
        targets: Rows of (claim, measured, target, met).
        figures: Plots, in order.
        data: Lines of the data report.
        warnings: Warnings about the data.
        recipe: The effective recipe, YAML.
        facts: Name → value, for sizes, times and versions.
        commands: What can be done with the run, as commands.
    """

    title: str
    summary: Sequence[str] = ()
    errors: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    targets: Sequence[tuple[str, str, str, bool]] = ()
    figures: Sequence[Figure] = ()
    data: Sequence[str] = ()
    warnings: Sequence[str] = ()
    recipe: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def error_rows(errors: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[ErrorRow]:
    """The errors of several data sets, with electronvolts shown as millielectronvolts."""
    rows = []
    for name, quantities in errors.items():
        others = {key: key for key in quantities if key not in QUANTITIES and key != "energy"}
        for key, label in {**QUANTITIES, **others}.items():
            values = quantities.get(key)
            if not values or values.get("mae") is None or values["mae"] != values["mae"]:
                continue
            scale, unit = in_millis(str(values["unit"]))
            mae, rmse = _number(values["mae"] * scale), _number(values["rmse"] * scale)
            rows.append(ErrorRow(name, label, mae, rmse, unit))
    return rows


def write_report(report: Report, path: Path) -> Path:
    """Write the page; figures are embedded.

    Returns:
        The path of the page.
    """
    parts = [f"<h1>{_escape(report.title)}</h1>"]
    parts += [f"<p>{_escape(text)}</p>" for text in report.summary]
    if report.targets:
        parts.append(_table(("Check", "Measured", "Target", ""), [_target(row) for row in report.targets]))
    rows = error_rows(report.errors)
    if rows:
        parts.append("<h2>Errors</h2>")
        cells = [(row.data, row.quantity, row.mae, row.rmse, row.unit) for row in rows]
        parts.append(_table(("Data", "Quantity", "MAE", "RMSE", "Unit"), cells, numbers=(2, 3)))
    for figure in report.figures:
        encoded = base64.b64encode(figure.path.read_bytes()).decode()
        parts.append(
            f'<figure><img alt="{_escape(figure.caption)}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{_escape(figure.caption)}</figcaption></figure>"
        )
    if report.commands:
        parts.append(f"<h2>Go on</h2><pre>{_escape(chr(10).join(report.commands))}</pre>")
    if report.warnings:
        parts.append("<h2>Warnings about the data</h2><ul class=warn>")
        parts += [f"<li>{_escape(text)}</li>" for text in report.warnings]
        parts.append("</ul>")
    if report.data:
        parts.append(f"<h2>Data</h2><pre>{_escape(chr(10).join(report.data))}</pre>")
    if report.facts:
        parts.append("<h2>Run</h2>" + _table(("", ""), list(report.facts.items()), header=False))
    if report.recipe:
        parts.append(f"<h2>Recipe</h2><pre>{_escape(report.recipe)}</pre>")
    page = _PAGE.format(title=_escape(report.title), style=_STYLE, body="\n".join(parts))
    path.write_text(page, encoding="utf-8")
    return path


def _number(value: float) -> str:
    """Three significant digits, without an exponent in the usual range."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - _magnitude(value))
        return f"{value:.{digits}f}"
    return f"{value:.2e}"


def _magnitude(value: float) -> int:
    return int(f"{abs(value):e}".split("e")[1])


def _target(row: tuple[str, str, str, bool]) -> tuple[str, str, str, str]:
    claim, measured, target, met = row
    return claim, measured, target, "met" if met else "NOT MET"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), header: bool = True) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        kinds = [" class=n" if index in numbers else "" for index in range(len(row))]
        cells = [f"<{tag}{kind}>{_escape(text)}</{tag}>" for kind, text in zip(kinds, row)]
        return f"<tr>{''.join(cells)}</tr>"

    head = f"<thead>{line('th', names)}</thead>" if header else ""
    return f"<table>{head}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def _escape(text: str) -> str:
    return html.escape(str(text))


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .25rem .9rem .25rem 0; text-align: left; }
th, td { border-bottom: 1px solid #ddd; } .n { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { color: #555; font-size: .9rem; }
pre { background: #f6f6f6; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .82rem; line-height: 1.4; }
.warn { color: #8a3b00; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{style}</style></head>
<body>
{body}
</body>
</html>
"""
