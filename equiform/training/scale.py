"""From a model to a task: the scale and shift of the model's output."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.models.api import Model
from equiform.tasks.api import Task
from equiform.tasks.direct_forces import FORCES, DirectForces, has_direct_forces
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.tasks.property import Property
from equiform.training.config import LossConfig, Normalization, TrainingConfig

COHESION_STRUCTURES = 2000


def initial_task(model: Model, config: TrainingConfig, train: Dataset, elements: Iterable[int]) -> Task:
    """The task to start training from, for the data set's main label and in its unit.

    Args:
        model: A freshly initialised model.
        config: Training settings, with the normalisation of the output.
        train: The training set: it defines the label, and scale and mean where they come from data.
        elements: Atomic numbers that energies can be predicted for.

    Raises:
        UserError: The model has no such output, or mean and standard deviation are requested but undefined.
    """
    label, requested, known = train.target, config.normalization, tuple(sorted(elements))
    scales = tuple(sorted(requested.readouts.items())) if isinstance(requested, Normalization) else ()
    try:
        if label.axis == "atoms":
            return Motion(model, scales=scales)
        if has_direct_forces(model):
            return _direct_forces(model, train)
        if requested == "anchored" and label.name == "energy":
            readout = model.traits.scalar
            additive = readout is not None and readout.axis == "atoms"
            binding = cohesion(train, known) if additive else ()
            return Potential(model, scale=energy_scale(train), elements=known, anchored=True, cohesion=binding)
        scale, shift = _mean_and_deviation(requested, train)
        if label.name == "energy":
            return Potential(model, scale=scale, shift=shift, elements=known, scales=scales)
        return Property(model, name=label.name, unit_name=label.unit, scale=scale, shift=shift, scales=scales)
    except ValueError as error:
        raise UserError(f"this model cannot learn {label.name!r}: {error}") from None


def _direct_forces(model: Model, train: Dataset) -> DirectForces:
    if not train.has_label(FORCES):
        raise UserError("model.vector_readouts=[forces] learns forces, and the training data have none; leave it out")
    return DirectForces(model, scale=energy_scale(train))


def _mean_and_deviation(requested: str | Normalization, train: Dataset) -> tuple[float, float]:
    if isinstance(requested, Normalization):
        return requested.std, requested.mean
    if requested == "none":
        return 1.0, 0.0
    values = train.column(train.quantity)
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.std() > 0:
        raise UserError(
            f"training.normalization=mean-std needs training structures with different {train.quantity}; {len(values)} have one"
        )
    # Unbiased, as in the published codes.
    return float(values.std(ddof=1)), float(values.mean())


def loss_terms_of(config: TrainingConfig, task: Task) -> dict[str, LossConfig]:
    """The terms of the loss; for standardised losses each weight is divided by the scale of its target."""
    terms = config.losses.terms()
    if task.quantity == FORCES:
        terms = {FORCES: terms.get(FORCES, LossConfig())}
    elif task.quantity != "energy":
        others = {name: term for name, term in terms.items() if name not in ("energy", "forces", "stress")}
        terms = {task.quantity: LossConfig(), **others}
    if not config.standardized_losses:
        return terms
    settings = task.settings()
    scales: Mapping[str, float] = settings["scales"]
    return {name: _rescaled(term, scales.get(name, settings.get("scale", 1.0))) for name, term in terms.items()}


def _rescaled(term: LossConfig, scale: float) -> LossConfig:
    if term.kind in ("mse", "huber"):
        raise UserError(f"training.standardized_losses needs losses linear in the error (l1, l2norm), not {term.kind}")
    final = None if term.final_weight is None else term.final_weight / scale
    return term.model_copy(update={"weight": term.weight / scale, "final_weight": final})


def cohesion(dataset: Dataset, elements: tuple[int, ...]) -> tuple[float, ...]:
    """Average contribution of an atom of each element to the interaction energy, eV; to be used as `Potential.cohesion`.

    The mean per atom plus a least-squares contribution of each element (the minimum-norm one where the compositions do not
    determine the elements separately).

    Args:
        dataset: The training set; at most `COHESION_STRUCTURES` of it are used.
        elements: Atomic numbers.
    """
    some = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), COHESION_STRUCTURES)).astype(int))
    energies = dataset.column("energy")[some]
    table = np.asarray(elements)
    counts = np.array([(dataset[int(i)].species[:, None] == table[None]).sum(axis=0) for i in some], float)
    # An atom without neighbours has no interaction energy, whatever its element.
    use = np.isfinite(energies) & (np.asarray(dataset.num_edges)[some] > 0)
    if not use.any():
        return (0.0,) * len(elements)
    energies, counts = energies[use], counts[use]
    mean = energies.sum() / counts.sum()
    # A ridge penalty worth a tenth of a structure keeps elements that are rare, or always occur together, near the mean.
    penalty = 0.1 * np.eye(len(elements))
    rows = np.concatenate([counts, penalty])
    excess = np.linalg.lstsq(rows, np.concatenate([energies - mean * counts.sum(axis=1), np.zeros(len(elements))]))[0]
    return tuple((mean + excess).tolist())


def energy_scale(dataset: Dataset) -> float:
    """Root mean square of a force component (eV/Å), taken as eV; to be used as `Potential.scale`.

    At initialisation a model predicts atomic energies of order one that vary over about an ångström, so its
    forces then have the magnitude of the data's. Without forces it is the root mean square of the interaction
    energy per atom around its mean; without any labels, or if all are equal, it is 1.

    Args:
        dataset: The training set.
    """
    for value in (dataset.forces_rms, dataset.energy_rms):
        if math.isfinite(value) and value > 0:
            return value
    return 1.0
