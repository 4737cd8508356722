"""The plots and the report page of a training run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from equiform.report import plots
from equiform.report.html import Figure, Report, error_rows, write_report
from equiform.training.metrics import in_millis, read_metrics
from equiform.training.verdict import in_one_line

_PARITY_CAPTION = (
    "Predicted against reference values; the dashed line is perfect agreement. Below, the errors, and beside them their "
    "distribution in each data set."
)
_PATHS_CAPTION = (
    "Simulated particles, the best-predicted simulation first, the worst last: the true path from input (dot) to target "
    "(circle), and the predicted target (cross); blue and orange are the signs of the charge."
)
MOST_DRAWN = 300
"""Atoms of a structure that is drawn."""
TARGETS = {
    "energy_per_atom": ("Energy per atom", "eV/atom"),
    "forces": ("Force components", "eV/Å"),
    "stress": ("Stress components", "eV/Å³"),
}


@dataclass(frozen=True)
class Outcome:
    """The results of a training run.

    Attributes:
        folder: The run folder.
        model: The best model.
        errors: Errors by target, per data set.
        report: The HTML page.
        plots: PNG files by name.
        facts: Name → value, for the page.
        cautions: What must be said of the model before anything else; empty for one that is better than trivial rules.
    """

    folder: Path
    model: Path
    errors: Mapping[str, Mapping[str, Mapping[str, Any]]]
    report: Path
    plots: Mapping[str, Path]
    facts: Mapping[str, str] = field(default_factory=dict)
    cautions: Sequence[str] = ()


def write(
    run: Any,
    recipe: str,
    data: Any,
    evaluations: Mapping[str, Any],
    facts: Mapping[str, str],
    cautions: Sequence[str] = (),
    extra: Callable[[Outcome], Mapping[str, Any]] | None = None,
) -> Outcome:
    """Write `learning_curve.png`, `parity.png`, `errors.json` and `report.html` into the run folder.

    Args:
        run: The run folder.
        recipe: The effective recipe, YAML.
        data: The prepared data.
        evaluations: Errors and values per data set.
        facts: Name → value, for the page.
        cautions: What must be said of the model before anything else.
        extra: Called with the outcome; returns further `figures`, `targets`, `summary` for the page.
    """
    from equiform.runtime.files import write_atomically

    files = {"learning curve": run.path / "learning_curve.png", "parity": run.path / "parity.png"}
    units = {key: str(error["unit"]) for e in evaluations.values() for key, error in e.errors.items()}
    learning_curve(read_metrics(run.path), files["learning curve"], units)
    parity(evaluations, files["parity"])
    paths_plot = _trajectories(data, evaluations, run.path / "trajectories.png")
    if paths_plot is not None:
        files["trajectories"] = paths_plot
    errors = {name: evaluation.errors for name, evaluation in evaluations.items()}
    content = json.dumps(errors, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(run.path / "errors.json", content.encode())
    outcome = Outcome(
        folder=run.path,
        model=run.best,
        errors=errors,
        report=run.path / "report.html",
        plots=files,
        facts=facts,
        cautions=tuple(cautions),
    )
    more = dict(extra(outcome)) if extra else {}
    picture = _picture(data.train, run.path / "structure.png")
    figures = [
        *([] if picture is None else [picture]),
        Figure(files["learning curve"], "Loss and errors on the validation data while training."),
        Figure(files["parity"], _PARITY_CAPTION),
        *([] if paths_plot is None else [Figure(paths_plot, _PATHS_CAPTION)]),
        *more.get("figures", ()),
    ]
    rows = error_rows(errors)
    forces = next((row for row in rows if row.quantity.startswith("force")), None)
    line = in_one_line(cautions)
    summary = [f"{line[0].upper()}{line[1:]}."] if line else []
    summary.append(f"Trained on {len(data.train):,} structures; {'model' if cautions else 'best model'}: {run.best}")
    if forces:
        summary.append(f"Mean absolute error of a force component ({forces.data}): {forces.mae} {forces.unit}.")
    report = Report(
        title=f"Equiform: {run.path.name}",
        summary=[*summary, *more.get("summary", ())],
        errors=errors,
        targets=more.get("targets", ()),
        figures=figures,
        data=data.report.lines(),
        warnings=data.report.warnings,
        recipe=recipe,
        commands=_commands(run.path, errors),
        facts={**facts, **more.get("facts", {}), **_versions(run.provenance)},
    )
    write_report(report, outcome.report)
    return outcome


def _commands(folder: Path, errors: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What can be done with the run."""
    kinds = {name for found in errors.values() for name in found}
    lines = [f"equiform info {folder}"]
    if kinds & {"energy_per_atom", "forces"}:
        lines += [
            f"equiform evaluate {folder} DATA",
            f"equiform predict {folder} STRUCTURES -o predicted.extxyz",
            f"equiform md {folder} STRUCTURE --ensemble nvt --temperature 300 --time 10",
            f"equiform relax {folder} STRUCTURE -o relaxed.extxyz",
        ]
    elif "displacement" in kinds:
        lines += [f"equiform analyze trajectory {folder}", f"equiform predict {folder} STATES.npz -o later.npz"]
    else:
        lines.append(f"equiform predict {folder} STRUCTURES -o predicted.extxyz")
    return [*lines, f"equiform train {folder / 'recipe.yaml'} training.max_minutes=60 -o LONGER"]


def _picture(dataset: Any, path: Path) -> Figure | None:
    """The first training structure; None for particles, and for structures too large to be seen."""
    from ase import Atoms

    graph = dataset[0]
    if dataset.cutoff is None or len(graph.species) > MOST_DRAWN or np.min(graph.species, initial=1) < 1:
        return None
    cell = np.asarray(graph.cell)[0]
    atoms = Atoms(np.asarray(graph.species), np.asarray(graph.positions), cell=cell, pbc=bool(cell.any()))
    return Figure(plots.structure(path, atoms), f"The first training structure: {atoms.get_chemical_formula()}.")


def _targets(known: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Title and unit of every plotted quantity: energy, forces and stress, and other quantities under their own names."""
    return {**TARGETS, **{key: (key, unit) for key, unit in known.items() if key not in TARGETS and key != "energy"}}


def _trajectories(data: Any, evaluations: Mapping[str, Any], path: Any) -> Any:
    """Plot of the paths of simulated particles in the first N-body test set; None without one."""
    from equiform.data.sets.nbody_samples import NBodySamples
    from equiform.report.trajectories import by_simulation, trajectories

    for name, dataset in data.tests.items():
        source = dataset.source
        if isinstance(source, NBodySamples) and "displacement" in evaluations[name].values:
            return trajectories(path, source, by_simulation(evaluations[name], source)["displacement"])
    return None


def learning_curve(records: list[dict[str, Any]], path: Any, units: Mapping[str, str] = MappingProxyType({})) -> None:
    """Training and validation loss, and validation errors, over epochs."""
    train = [record for record in records if record["kind"] == "train"]
    validation = [record for record in records if record["kind"] == "validation"]
    losses = [plots.Curve("training", _column(train, "epoch"), _column(train, "loss"))]
    if validation:
        curve = plots.Curve("validation", _column(validation, "epoch"), _column(validation, "loss"), marked=True)
        losses.append(curve)
    panels = [plots.Panel("Loss", "epoch", "loss (weighted sum)", losses, log_y=True)]
    for key, (title, unit) in _targets(units).items():
        factor, shown = in_millis(unit)
        values = factor * _column(validation, f"{key}_mae")
        if np.isfinite(values).any():
            curve = plots.Curve(title, _column(validation, "epoch"), values, marked=True)
            panels.append(plots.Panel(title, "epoch", f"validation MAE ({shown})", [curve], log_y=True))
    plots.lines(path, panels)


def parity(evaluations: Mapping[str, Any], path: Any) -> None:
    """Predicted against reference values of every target that has labels."""
    panels = []
    units = {key: str(error["unit"]) for e in evaluations.values() for key, error in e.errors.items()}
    for key, (title, unit) in _targets(units).items():
        factor, shown = in_millis(unit)
        values = {name: e.values[key] for name, e in evaluations.items() if key in e.values}
        if values:
            reference = {name: value.reference for name, value in values.items()}
            predicted = {name: value.predicted for name, value in values.items()}
            if key == "energy_per_atom":
                title, unit = "Interaction energy per atom", unit
            panels.append(plots.Parity(title, unit, reference, predicted, shown, factor))
    plots.parity(path, panels)


def _column(records: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if record.get(name) is None else record[name] for record in records], float)


def _versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: provenance.get(key) for key in ("created", "device", "num_cores", "platform", "python")}
    facts["git commit"] = provenance.get("git_commit")
    facts |= provenance.get("packages", {})
    return {key.replace("_", " "): str(value) for key, value in facts.items() if value is not None}
