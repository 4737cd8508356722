"""Describes what a path contains: a model, a run, or data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiform.data.formats.nbody import is_nbody_file
from equiform.data.formats.shipped import on_disk
from equiform.errors import UserError
from equiform.persist.find import find_model
from equiform.persist.shipped import shipped_models


@dataclass(frozen=True)
class About:
    """A human-readable description."""

    lines: list[str]
    warnings: list[str] = field(default_factory=list)


def about(path: Path, settings: Sequence[str] = ()) -> About:
    """Describe a data file, a model folder, a run folder, or simulated particles (one file or the folder of a set).

    Args:
        path: What to describe.
        settings: How to read a data file: `data.KEY=VALUE` as for training.

    Raises:
        UserError: It is none of these, or a setting is wrong.
    """
    if not path.exists() and str(path) in shipped_models():
        return About(_model(find_model(path)))
    path = Path(on_disk(str(path)))
    if (path / "run.json").is_file():
        return _run(path)
    if is_nbody_file(path) or (path.is_dir() and is_nbody_file(path / "train.npz")):
        return About(_particles(path))
    is_model = (path / "config.json").exists() or path.name in ("config.json", "weights.safetensors")
    if is_model:
        return About(_model(path))
    return _data(path, settings)


def _model(path: Path) -> list[str]:
    import jax
    from ase.data import chemical_symbols

    from equiform.deploy.structures import symbols
    from equiform.persist.modelfile import load_model
    from equiform.persist.parameters import num_parameters, split
    from equiform.tasks.energy import Potential
    from equiform.training.verdict import cautions_of, in_one_line

    loaded = load_model(path)
    task, config = loaded.task, loaded.task.model.config
    dtypes = ", ".join(sorted({str(array.dtype) for array in jax.tree.leaves(split(task.model)[0])}))
    energies = [f"{chemical_symbols[z]} {energy:.6f}" for z, energy in sorted(loaded.reference_energies.items())]
    lines = [
        f"model: {path}",
        f"architecture: {config.name}, {num_parameters(task.model):,} parameters ({dtypes})",
        f"elements: {symbols([number for number in task.known_elements if number > 0])}",
        f"cutoff: {'none' if config.traits.cutoff is None else f'{config.traits.cutoff:g} Å'}",
        f"task: {task.kind}; targets: {', '.join(f'{t.name} ({t.unit})' if t.unit else t.name for t in task.targets)}",
    ]
    if isinstance(task, Potential):
        lines.append(f"reference energies (eV): {', '.join(energies) or 'none'}")
        anchored = "yes" if task.anchored else "no"
        lines.append(f"energy scale: {task.scale:g} eV, shift: {task.shift:g} eV per structure")
        lines.append(f"isolated atoms at their reference energy: {anchored}")
    training = loaded.metadata.get("training") or {}
    if training:
        epochs = f", {training['epochs']:.3g} epochs" if training.get("epochs") is not None else ""
        lines.append(f"trained for {training.get('step', '?')} of {training.get('total_steps', '?')} steps{epochs}")
        if caution := in_one_line(cautions_of(training)):
            lines.append(f"caution: {caution}")
        lines += [f"validation {text}" for text in _errors({"": training.get("validation") or {}})]
    provenance = loaded.metadata.get("provenance") or {}
    if provenance:
        version = provenance.get("packages", {}).get("equiform", "?")
        created, device = provenance.get("created", "?"), provenance.get("device", "?")
        lines.append(f"created {created} by equiform {version} on {device}")
    source = (loaded.metadata.get("data") or {}).get("train")
    if source:
        lines.append(f"data: {source if isinstance(source, str) else ', '.join(source)}")
    lines.append("settings:")
    lines += [f"  {name}: {value}" for name, value in config.model_dump(mode="json").items() if name != "elements"]
    return lines


def _run(path: Path) -> About:
    import json

    from equiform.training.metrics import METRICS_FILE, read_metrics
    from equiform.training.run_folder import RunFolder

    run = RunFolder.open(path)
    lines = [f"run: {run.path}"]
    records = read_metrics(path) if (path / METRICS_FILE).is_file() else []
    if records:
        last = records[-1]
        lines.append(f"logged up to step {last['step']:,}, epoch {last['epoch']:.4g}")
    finished = path / "errors.json"
    if finished.is_file():
        lines += _errors(json.loads(finished.read_text(encoding="utf-8")))
        lines.append(f"report: {path / 'report.html'}")
    else:
        lines.append(f"not finished; resume with: equiform train --resume {path}")
    try:
        lines += ["", *_model(find_model(path))]
    except UserError as error:
        lines.append(str(error))
    lines += ["", "recipe:", *(f"  {line}" for line in run.recipe.splitlines())]
    return About(lines)


def _particles(path: Path) -> list[str]:
    from equiform.data.sets.nbody_samples import SPLITS, NBodySamples, simple_rules

    files = [path] if path.is_file() else [path / f"{split}.npz" for split in SPLITS]
    samples = {file: NBodySamples.read(file) for file in files if file.is_file()}
    first = next(iter(samples.values()))
    metadata = first.metadata
    ahead = first.horizon * metadata.get("steps_per_frame", 1)
    lines = [
        f"simulated particles: {path}",
        f"set: {metadata.get('set', '?')}, {metadata.get('about', '')}",
        f"task: {first.num_bodies} particles, from frame {metadata['start']} to {first.horizon} frames later ({ahead:,} steps)",
    ]
    for file, part in samples.items():
        rules = simple_rules(first, part)
        lines.append(f"{file.name}: {len(part):,} simulations of {part.trajectories.positions.shape[1]} frames")
        lines += [
            f"  {name}: mean squared error {rule.still:.4g} for no change, {rule.linear:.4g} for {rule.factor:.3g} v"
            for name, rule in rules.items()
        ]
    return lines


def _data(path: Path, settings: Sequence[str]) -> About:
    from equiform.data.formats.reading import read_labelled
    from equiform.data.pipeline.inspect import inspect
    from equiform.recipes.schema import data_settings

    reading = read_labelled(str(path), data_settings(settings, str(path)), labels_needed=False)
    report = inspect(reading, name=str(path))
    return About([f"data: {path}", *report.lines()], list(dict.fromkeys(report.warnings)))


def _errors(errors: dict[str, Any]) -> list[str]:
    from equiform.report.html import error_rows

    return [
        f"{row.data + ': ' if row.data else ''}{row.quantity}: MAE {row.mae}, RMSE {row.rmse} {row.unit}"
        for row in error_rows(errors)
    ]
