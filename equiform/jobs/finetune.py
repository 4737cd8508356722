"""Fine-tuning: the data, the task and the settings of a run that starts from a trained model.

The model predicts interaction energies, E − Σ E0. At another level of theory the E0 are others, so they are refitted: the
least change of the old ones with which the old model's energies fit the new data best. What is then left is for training.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.prepared import PreparedData
from equiform.errors import UserError
from equiform.models import MODELS
from equiform.persist.find import find_model
from equiform.persist.modelfile import LoadedModel, load_model, save_model
from equiform.persist.transfer import with_elements
from equiform.recipes.schema import FineTuning, ModelChoice, Recipe
from equiform.tasks.energy import Potential
from equiform.training.config import TrainingConfig
from equiform.training.heads import of_old_level, two_heads
from equiform.training.recommended import BATCH_SIZE, EMA, OWN_SIZES, recommended
from equiform.training.run_folder import OLD_HEAD

START = "start"
"""Folder of the initial model in the run folder: a run resumes and compares without the model that it began from."""
OLD_DATA = "old data"
_SLOWER = 10
"""The learning rate is this much smaller than for training from nothing, except that of adapters."""


class Start(NamedTuple):
    """Where fine-tuning starts.

    Attributes:
        task: The old model, for the elements of the old and the new data.
        reference_energies: Refitted, eV by atomic number.
        old_references: The old model's.
        metadata: The old model's.
    """

    task: Potential
    reference_energies: dict[int, float]
    old_references: dict[int, float]
    metadata: dict[str, Any]


def base_model(tuning: FineTuning) -> LoadedModel:
    """The model to start from.

    Raises:
        UserError: There is none, or it does not give energies and forces.
    """
    loaded = load_model(find_model(Path(tuning.model)))
    if not isinstance(loaded.task, Potential):
        raise UserError(f"from={tuning.model}: it predicts {loaded.task.quantity}, and only potentials can be fine-tuned")
    if loaded.task.model.config.name not in MODELS:
        raise UserError(f"from={tuning.model}: it is a committee; fine-tune its members one by one")
    return loaded


def settings_of(recipe: Recipe, base: LoadedModel, say: Any) -> Recipe:
    """The recipe with the architecture of the old model, and settings for fine-tuning where it gives none.

    Raises:
        UserError: It asks for another architecture, or its data are a published set.
    """
    _check_replay(_tuning(recipe))
    if _tuning(recipe).keep_head:
        _check_heads(recipe)
    if not isinstance(recipe.data, DataConfig):
        raise UserError("fine-tuning needs files of structures (data.train), not a published set")
    given = [name for name in ("preset", "name", "width") if getattr(recipe.model, name) is not None]
    if given := given + list(recipe.model.fields):
        raise UserError(f"model.{given[0]} cannot be changed: the model is that of from={_tuning(recipe).model}; leave it out")
    if recipe.training.normalization != TrainingConfig().normalization:
        raise UserError("training.normalization cannot be changed in fine-tuning: the scale is that of the model; leave it out")
    config, adapters = base.task.model.config, recipe.training.adapters is not None
    update = _recommended(config, recipe.training)
    update.pop("learning_rate_steps", None)  # a tenth is low enough for any length
    if "learning_rate" in update and not adapters:
        update["learning_rate"] /= _SLOWER
    if update:
        text = ", ".join(f"training.{name}={value}" for name, value in update.items())
        part = "that" if adapters else "a tenth of that"
        say(f"settings: {text}, for fine-tuning (learning rate: {part} for training from nothing)")
    return recipe.model_copy(
        update={
            "model": ModelChoice(**config.model_dump(mode="json")),
            "training": recipe.training.model_copy(update=update),
        }
    )


def started(recipe: Recipe, base: LoadedModel, data: PreparedData, say: Any) -> tuple[Recipe, Start]:
    """The initial task, and the recipe with its elements and with the reference energies written out.

    Raises:
        UserError: An element is new, and neither given nor determined by the data is its reference energy.
    """
    old, section = base.reference_energies, recipe.data
    assert isinstance(section, DataConfig) and isinstance(base.task, Potential)
    task = _with_elements(base.task, data, recipe.training.seed)
    new = sorted(set(data.elements) - set(base.task.known_elements))
    if section.reference_energies == "none":
        raise UserError("data.reference_energies=none: a fine-tuned model needs reference energies; leave the setting out")
    measured = section.reference_energies not in ("auto", "fit") or data.references_from == "isolated atoms"
    if measured:
        values, how = {**old, **data.reference_energies}, f"not refitted: {data.references_from}"
    elif not data.train.has_label("energy"):
        if new:
            raise UserError(
                f"{_symbols(new)}: new to the model, and without energies there is no reference energy; {_give(new)}"
            )
        values, how = dict(old), "those of the old model: the new data have no energies"
    else:
        values, how = _refitted(task, base, data, new)
    if measured and new and task.cohesion:
        task = _with_cohesion(task, data, new)
    if new:
        say(f"new elements: {_symbols(new)}; their weights are initialised, all others are those of {_tuning(recipe).model}")
    shown = ", ".join(
        f"{_symbols([z])} {values[z]:.6g} (was {old[z]:.6g})" if z in old else _first(z, values[z]) for z in values
    )
    say(f"reference energies, eV: {shown or 'none'}; {how}")
    if values:
        named = {_symbols([z]): float(energy) for z, energy in sorted(values.items())}
        section = section.model_copy(update={"reference_energies": named})
    config = task.model.config
    recipe = recipe.model_copy(update={"data": section, "model": ModelChoice(**config.model_dump(mode="json"))})
    return recipe, Start(task, values, dict(old), base.metadata)


def about(recipe: Recipe, start: Start) -> dict[str, Any]:
    """The origin of a fine-tuned model, for its file."""
    old = {str(z): energy for z, energy in start.old_references.items()}
    adapters = {} if recipe.training.adapters is None else {"adapters": recipe.training.adapters}
    return {"finetune": {"from": _tuning(recipe).model, "old_reference_energies": old, **adapters}}


def save_start(run: Path, start: Start) -> None:
    """Write the initial model into the run folder."""
    save_model(run / START, start.task, start.reference_energies, start.metadata)


def load_start(run: Path, metadata: Mapping[str, Any]) -> Start:
    """The initial model of an interrupted run.

    Raises:
        UserError: It is not in the run folder.
    """
    loaded = load_model(run / START)
    assert isinstance(loaded.task, Potential)
    old = {int(z): float(energy) for z, energy in metadata["finetune"]["old_reference_energies"].items()}
    return Start(loaded.task, loaded.reference_energies, old, loaded.metadata)


def with_old_data(recipe: Recipe, data: PreparedData, start: Start) -> tuple[PreparedData, Dataset | None]:
    """The data with the replayed structures among those to train on, and the old test data, if there are any.

    Raises:
        UserError: A file cannot be read, has no labels, or has elements that the old model does not know.
    """
    tuning, section = _tuning(recipe), recipe.data
    assert isinstance(section, DataConfig)
    old_test = None
    if tuning.old_test is not None:
        old_test = _old_dataset(tuning.old_test, "finetune.old_test", start)
    if tuning.replay is None:
        return data, old_test
    if tuning.keep_head and not len(data.validation):
        raise UserError("finetune.keep_head needs a validation set of the new data; give data.validation a fraction or a file")
    replayed = _old_dataset(tuning.replay, "finetune.replay", start, own=tuning.replay_labels == "model")
    few = np.unique(np.linspace(0, len(replayed) - 1, min(len(replayed), tuning.replay_structures)).astype(int))
    old = [of_old_level(replayed[int(i)]) if tuning.keep_head else replayed[int(i)] for i in few]
    graphs = [*(data.train[i] for i in range(len(data.train))), *old]
    return replace(data, train=Dataset(_alike(graphs), data.train.cutoff)), old_test


def initial_task(recipe: Recipe, start: Start) -> Potential:
    """The task to train: the initial model, with two readouts if the old one is kept."""
    return two_heads(start.task) if _tuning(recipe).keep_head else start.task


def old_head(run: Path) -> Potential:
    """The model of the kept readout, at the end of a run."""
    task = load_model(run / f"best{OLD_HEAD}").task
    assert isinstance(task, Potential)
    return task


def _give(new: list[int]) -> str:
    given = ", ".join(f"{_symbols([z])}: …" for z in new)
    return f"add an isolated atom with its energy to the data, or give data.reference_energies={{{given}}} (eV)"


def _tuning(recipe: Recipe) -> FineTuning:
    assert recipe.finetune is not None
    return recipe.finetune


def _check_replay(tuning: FineTuning) -> None:
    for name in ("replay_structures", "replay_labels"):
        if tuning.replay is None and getattr(tuning, name) != FineTuning.model_fields[name].default:
            raise UserError(
                f"finetune.{name} says how old structures are replayed, and there are none: give finetune.replay=FILE"
            )


def _check_heads(recipe: Recipe) -> None:
    if _tuning(recipe).replay is None:
        raise UserError(
            "finetune.keep_head needs structures of the old level to train the old readout on: give finetune.replay=FILE (with "
            "finetune.replay_labels=model if they have no labels)"
        )
    for name in ("freeze", "adapters"):
        if getattr(recipe.training, name):
            raise UserError(f"finetune.keep_head cannot be combined with training.{name}; leave one of them out")
    if recipe.training.losses.energy is None:
        raise UserError("finetune.keep_head is for two levels of energies, and training.losses.energy is off; switch it on")


def _recommended(config: Any, training: TrainingConfig) -> dict[str, Any]:
    """The settings for training from nothing, of the preset that a model was built from, or else for any model."""
    from equiform.models.presets import preset

    of_data = {"elements", "average_degree", "average_atoms", "cutoff"}
    for name in OWN_SIZES:
        if preset(name, elements=config.elements).model_dump(exclude=of_data) == config.model_dump(exclude=of_data):
            return recommended(training, name)
    settings = {"batch_size": BATCH_SIZE, "learning_rate": TrainingConfig().learning_rate, "ema": EMA}
    return {name: value for name, value in settings.items() if name not in training.model_fields_set}


def _with_elements(task: Potential, data: PreparedData, seed: int) -> Potential:
    """The task for further elements: their cohesion is zero."""
    model = with_elements(task.model, data.elements, seed=seed)
    settings = task.settings()
    if task.anchored:
        elements = sorted({*task.elements, *data.elements})
        cohesion = dict(zip(task.elements, task.cohesion))
        settings["elements"] = elements
        settings["cohesion"] = [cohesion.get(z, 0.0) for z in elements] if task.cohesion else []
    return Potential.from_settings(model, settings)


def _with_cohesion(task: Potential, data: PreparedData, new: list[int]) -> Potential:
    """The task with the binding energy of new elements from the data, where their isolated atoms are known."""
    from equiform.training.scale import cohesion

    fitted = dict(zip(data.elements, cohesion(data.train, data.elements)))
    values = [fitted[z] if z in new else c for z, c in zip(task.elements, task.cohesion)]
    return Potential.from_settings(task.model, {**task.settings(), "cohesion": values})


def _refitted(task: Potential, base: LoadedModel, data: PreparedData, new: list[int]) -> tuple[dict[int, float], str]:
    """Reference energies E0 + δ: the smallest δ that minimises Σ ((E − E_model)/N − Σ n δ/N)² over the training structures."""
    from equiform.training.evaluate import evaluate_with_values

    found = evaluate_with_values(task, data.train, targets=("energy",)).values["energy_per_atom"]
    elements = list(data.elements)
    share = np.array(
        [(np.asarray(data.train[int(i)].species)[:, None] == np.array(elements)[None]).mean(axis=0) for i in found.structure]
    )
    # The change is counted from the old energies, of new elements from the fit to the data alone.
    begin = np.array([base.reference_energies.get(z, data.reference_energies[z]) for z in elements])
    subtracted = np.array([data.reference_energies[z] for z in elements])
    left = (found.reference - found.predicted).ravel() + share @ (subtracted - begin)
    if undetermined := [z for z in new if not _determined(share, elements.index(z))]:
        raise UserError(
            f"{_symbols(undetermined)}: new to the model, and the compositions of {len(share)} structures do not determine the "
            f"reference energy; {_give(undetermined)}"
        )
    change = np.linalg.lstsq(share, left, rcond=1e-8)[0]
    values = dict(base.reference_energies) | {z: float(e) for z, e in zip(elements, begin + change)}
    before, after = np.abs(left).mean(), np.abs(left - share @ change).mean()
    return dict(sorted(values.items())), (
        f"refitted to the old model's energies of {len(share)} new structures, which leaves {1000 * after:.4g} meV/atom of "
        f"{1000 * before:.4g}"
    )


def _determined(share: np.ndarray, column: int) -> bool:
    """Whether a column of a matrix is not a combination of the others on its rows."""
    others = np.delete(share, column, axis=1)
    rank = np.linalg.matrix_rank
    return bool(rank(share, tol=1e-6) > (rank(others, tol=1e-6) if others.size else 0))


def _old_dataset(path: str, key: str, start: Start, *, own: bool = False) -> Dataset:
    from equiform.data.formats.labels import LabelKeys
    from equiform.data.formats.reading import read_labelled, read_unlabelled, units_in
    from equiform.data.pipeline.dataset import dataset_from_labels
    from equiform.deploy.predictor import Predictor
    from equiform.deploy.structures import check_structure
    from equiform.neighbors import Labels

    trained = dict(start.metadata.get("data") or {})
    preferred = LabelKeys(trained.get("energy_key"), trained.get("forces_key"), trained.get("stress_key"))
    config, units = DataConfig(train=path), units_in(start.metadata)
    try:
        if own:
            reading = read_unlabelled(path, config, remembered=units)
        else:
            reading = read_labelled(path, config, remembered=units, preferred=preferred)
        for name, atoms in zip(reading.names, reading.structures):
            check_structure(atoms, start.task, name)
    except UserError as error:
        raise UserError(f"{key}={path}: {error}") from None
    labels = reading.labels
    if own:
        predictor = Predictor(start.task, start.old_references)
        labels = [Labels(p.energy, p.forces, p.stress) for p in predictor.predict(reading.structures, names=reading.names)]
    return dataset_from_labels(reading.structures, labels, start.task.model.traits.edge_cutoff, start.old_references)


def _alike(graphs: list[Any]) -> list[Any]:
    """Graphs that can share a batch: with the fields that all have, and loss weights of 1 where only others have some."""
    weights = {name for graph in graphs for name in graph.graph_fields if name.endswith("_weight")}
    shared = set.intersection(*(set(graph.node_fields) for graph in graphs))
    return [
        graph.replace(
            graph_fields={**{name: np.ones(1) for name in sorted(weights)}, **graph.graph_fields},
            node_fields={name: value for name, value in graph.node_fields.items() if name in shared},
        )
        for graph in graphs
    ]


def _first(number: int, energy: float) -> str:
    return f"{_symbols([number])} {energy:.6g} (new)"


def _symbols(numbers: list[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in numbers)
