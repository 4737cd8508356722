"""Errors of a model on a file of labelled structures: the command `equiform evaluate`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from equiform.data.config import DataConfig
from equiform.errors import UserError
from equiform.tasks.api import Task
from equiform.tasks.direct_forces import DirectForces
from equiform.tasks.energy import Potential
from equiform.training import verdict


class FileErrors(NamedTuple):
    """Errors of a model on a file, as printed by `equiform evaluate`."""

    errors: dict[str, dict[str, Any]]
    lines: list[str]
    warnings: list[str]


def evaluate_file(
    model: Path,
    data: Path,
    config: DataConfig,
    *,
    dtype: str = "float32",
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> FileErrors:
    """Errors of a model on a file of labelled structures.

    Names of labels that are not given are those the model was trained with, if the file has them. Units are as given, as the
    file says, or as they were given when the model was trained, in this order.

    Args:
        model: The model's folder, or a run folder.
        data: The file.
        config: How to read it.
        dtype: Precision of the computation.
        batch_size: Structures per batch, on average.
        progress: Progress callback `(done, total)`, in structures.

    Raises:
        UserError: Not a model, not readable data, no labels, or elements unknown to the model.
    """
    from equiform.data.formats.labels import FOR_TRAINING, LabelKeys
    from equiform.data.formats.reading import read_labelled, units_in
    from equiform.data.pipeline import belonging, plausibility
    from equiform.data.pipeline.check import usable
    from equiform.data.pipeline.dataset import dataset_from_labels
    from equiform.data.pipeline.unused import unused_inputs
    from equiform.deploy.structures import check_structure
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.training.evaluate import evaluate_with_values

    loaded = load_model(find_model(model))
    if not isinstance(task := loaded.task, Potential | DirectForces):
        raise UserError(f"{model} predicts {task.quantity} ({task.unit}), not energies and forces; use equiform predict")
    trained = dict(loaded.metadata.get("data") or {})
    preferred = LabelKeys(trained.get("energy_key"), trained.get("forces_key"), trained.get("stress_key"))
    warnings: list[str] = []
    try:
        reading = read_labelled(
            str(data), config, remembered=units_in(loaded.metadata), preferred=preferred, labels_needed=False
        )
        for name, atoms in zip(reading.names, reading.structures):
            check_structure(atoms, task, name)
        if reading.keys.energy is None and reading.keys.forces is None:
            raise UserError(f"{data}: {reading.keys.warnings[0]}")
    except UserError as error:
        raise UserError(re.sub(r"data\.(\w+)_key=", r"--\1-key ", str(error))) from None
    reading = usable(reading, name=str(data), skip_invalid=config.skip_invalid, warnings=warnings)
    structures, labels = reading.structures, reading.labels
    warnings += plausibility.unit_warnings(structures, labels)
    warnings += filter(None, [belonging.frame_warning(structures, labels, reading.names)])
    dataset = dataset_from_labels(structures, labels, task.model.traits.edge_cutoff, loaded.reference_energies)
    found = evaluate_with_values(
        task,
        dataset,
        batch_size=batch_size,
        dtype=dtype,
        progress=(lambda done: progress(done, len(dataset))) if progress else None,
    )
    errors = found.errors
    training = loaded.metadata.get("training") or {}
    doubts = verdict.cautions(training.get("epochs"), errors, verdict.rules_of(found.values))
    say = verdict.in_one_line if verdict.cautions_of(training) else verdict.on_other_data
    warnings += filter(None, [say(doubts)])
    lines = [f"{len(structures)} structures of {data}", *reading.keys.notes]
    said = list(reading.keys.warnings)
    for advice in FOR_TRAINING.values():
        said = [line.replace(f": {advice}", ", so they are not compared") for line in said]
    return FileErrors(_exactly(errors, task), lines, [*said, *reading.warnings, *unused_inputs(structures), *warnings])


def _exactly(errors: Mapping[str, Mapping[str, Any]], task: Task) -> dict[str, dict[str, Any]]:
    """Energy, forces and stress with `mae`, `rmse` and `unit`; null where the data has no labels."""
    from equiform.training.evaluate import error_name, error_unit

    found = {}
    for target in task.targets[:3]:
        error = errors.get(error_name(target), {})
        found[error_name(target)] = {"mae": error.get("mae"), "rmse": error.get("rmse"), "unit": error_unit(target)}
    return found
