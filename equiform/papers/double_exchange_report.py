"""Report of the study of self-learning Monte Carlo: Markdown, numbers and plots of the finished parts."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from equiform.papers.double_exchange import LargerRow, Progress, Row, Study, StudyConfig
from equiform.papers.double_exchange_plot import draw_larger, draw_study
from equiform.papers.double_exchange_tables import (
    chain_error,
    cost_table,
    larger_table,
    models_table,
    observables_table,
    power_laws,
    significance,
)
from equiform.runtime.files import to_json, write_atomically
from equiform.simulate.monte_carlo.estimates import Estimate, acceptance

LARGER = ("linear, 6 shells", "linear, 9 shells", "transformer, L = 1", "transformer, L = 3")
"""Models whose weights are applied to larger lattices."""

RESULTS, STUDY_PLOT, LARGER_PLOT = "results.json", "study.png", "larger.png"


def reports(folder: Path, config: StudyConfig, progress: Progress) -> Iterator[str]:
    """Run the study; yields the report after every finished part, and writes numbers and plots beside it."""
    study = Study(folder, config, progress)
    models, rows, larger = study.models(), [], []
    for row in study.rows(models):
        rows.append(row)
        yield _written(study, rows, larger)
    for row in study.larger({name: models[name] for name in LARGER if name in models}):
        larger.append(row)
        yield _written(study, rows, larger)


def report(study: Study, rows: Sequence[Row], larger: Sequence[LargerRow]) -> str:
    """All tables as Markdown."""
    local, milliseconds = study.local()
    sites = study.lattice.num_sites
    parts = [
        "## Models\n\n" + models_table(rows),
        "## Cost\n\n" + cost_table(local, sites, milliseconds, rows),
        "## Observables\n\n" + observables_table(local, rows),
    ]
    deep = [row for row in rows if "transformer" in row.name]
    lines = power_laws(rows) + [significance(one, two) for one, two in pairwise(deep)]
    lines += [significance(deep[0], row) for row in deep[2:]]
    lines += [significance(row, deep[-1]) for row in rows if row.name == "linear, 9 shells" and deep]
    parts += ["## Layers\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"] if lines else []
    parts += ["## Larger lattices\n\n" + larger_table(larger)] if larger else []
    return "\n".join(parts)


def results(rows: Sequence[Row], larger: Sequence[LargerRow]) -> dict[str, Any]:
    """The numbers of the tables."""
    return {
        "models": [
            {
                "model": row.name,
                "parameters": row.parameters,
                "mse_beta": row.errors,
                **_accepted(row.accepted),
                "tau_free_energy": _number(row.time),
                "milliseconds": _number(row.milliseconds),
                **{name: _pair(found) for name, found in zip(("energy", "magnetization", "staggered"), row.observables)},
            }
            for row in rows
        ],
        "larger": [
            {"model": row.name, "edge": row.edge, "proposal": row.proposal, "seeds": row.by_seed} | _accepted(row.accepted)
            for row in larger
        ],
    }


def _written(study: Study, rows: Sequence[Row], larger: Sequence[LargerRow]) -> str:
    write_atomically(study.folder / RESULTS, to_json(results(rows, larger)))
    draw_study(study.folder / STUDY_PLOT, rows)
    if larger:
        draw_larger(study.folder / LARGER_PLOT, larger)
    return report(study, rows, larger)


def _accepted(accepted: np.ndarray) -> dict[str, Any]:
    found = acceptance(accepted)
    errors = {"acceptance_error": found.error, "acceptance_error_of_chains": _number(chain_error(accepted))}
    return {"acceptance": found.value, **errors, "proposals": accepted.size}


def _pair(found: Estimate) -> list[float | None]:
    return [_number(found.value), _number(found.error)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
