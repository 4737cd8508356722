"""Results as plain arrays: CSV of runs and scans, NPZ of correlations."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equiform.runtime.files import explained, write_atomically
from equiform.simulate.monte_carlo.analysis import Correlations, Summary

ESTIMATED = ("acceptance", "energy", "specific_heat", "density", "magnetization", "staggered")


def columns(summary: Summary) -> dict[str, float]:
    """A summary as named numbers: `x` and `x_error` of each average, energies per site."""
    row: dict[str, float] = {"temperature": summary.temperature, "chemical_potential": summary.chemical_potential}
    row["steps"] = summary.steps
    for name, found in zip(ESTIMATED, _estimates(summary)):
        row |= {name: found[0], f"{name}_error": found[1]}
    row["free_energy_spread"] = summary.free_energy_spread
    for kind, values in (("tau", summary.times), ("r_hat", summary.r_hat)):
        row |= {f"{kind}_{name}": value for name, value in zip(("free_energy", "magnetization", "staggered"), values)}
    return row


def write_summaries(path: Path, summaries: Sequence[Summary]) -> Path:
    """A CSV file, one row a run."""
    text = io.StringIO()
    rows = [columns(summary) for summary in summaries]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with explained(f"cannot write {path}", "choose another folder"):
        write_atomically(path, text.getvalue().encode())
    return path


def write_correlations(path: Path, found: Correlations) -> Path:
    """An NPZ file of the structure factor and the correlation against distance."""
    content = io.BytesIO()
    np.savez(content, **found._asdict())
    with explained(f"cannot write {path}", "choose another folder"):
        write_atomically(path, content.getvalue())
    return path


def _estimates(summary: Summary) -> tuple[tuple[float, float], ...]:
    return (
        summary.acceptance,
        summary.energy,
        summary.specific_heat,
        summary.density,
        summary.magnetization,
        summary.staggered,
    )
