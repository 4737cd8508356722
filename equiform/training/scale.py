"""From a model to a task: what one unit of the model's output is worth, and what its zero is."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.models.api import Model
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.tasks.motion import Motion
from equiform.tasks.property import Property
from equiform.training.config import LossConfig, Normalization, TrainingConfig

COHESION_STRUCTURES = 2000


def initial_task(model: Model, config: TrainingConfig, train: Dataset, elements: Iterable[int]) -> Task:
    """The task to start training from: what the data set's main label is, in its unit.

    Args:
        model: Freshly initialised.
        config: Says how the output is normalised.
        train: Gives the label, and scale and mean where they come from data.
        elements: Atomic numbers that energies can be predicted for.

    Raises:
        UserError: The model has no such output, or mean and standard deviation are asked for and cannot be found.
    """
    label, wanted, known = train.target, config.normalization, tuple(sorted(elements))
    scales = tuple(sorted(wanted.readouts.items())) if isinstance(wanted, Normalization) else ()
    try:
        if label.axis == "atoms":
            return Motion(model, scales=scales)
        if wanted == "anchored" and label.name == "energy":
            readout = model.traits.scalar
            additive = readout is not None and readout.axis == "atoms"
            binding = cohesion(train, known) if additive else ()
            return Potential(model, scale=energy_scale(train), elements=known, anchored=True, cohesion=binding)
        scale, shift = _mean_and_deviation(wanted, train)
        if label.name == "energy":
            return Potential(model, scale=scale, shift=shift, elements=known, scales=scales)
        return Property(model, name=label.name, unit_name=label.unit, scale=scale, shift=shift, scales=scales)
    except ValueError as error:
        raise UserError(f"this model cannot learn {label.name!r}: {error}") from None


def _mean_and_deviation(wanted: str | Normalization, train: Dataset) -> tuple[float, float]:
    if isinstance(wanted, Normalization):
        return wanted.std, wanted.mean
    if wanted == "none":
        return 1.0, 0.0
    values = train.column(train.quantity)
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.std() > 0:
        raise UserError(
            f"training.normalization=mean-std needs training structures whose {train.quantity} differs; {len(values)} have one"
        )
    # Unbiased, as the published codes have it.
    return float(values.std(ddof=1)), float(values.mean())


def loss_terms_of(config: TrainingConfig, task: Task) -> dict[str, LossConfig]:
    """The terms of the loss; for standardised losses each weight is divided by what its target is standardised with."""
    terms = config.losses.terms()
    if task.quantity != "energy":
        kept = {name: term for name, term in terms.items() if name not in ("energy", "forces", "stress")}
        terms = {task.quantity: LossConfig(), **kept}
    if not config.standardized_losses:
        return terms
    settings = task.settings()
    scales: Mapping[str, float] = settings["scales"]
    return {name: _rescaled(term, scales.get(name, settings.get("scale", 1.0))) for name, term in terms.items()}


def _rescaled(term: LossConfig, scale: float) -> LossConfig:
    if term.kind in ("mse", "huber"):
        raise UserError(f"training.standardized_losses goes with losses that are lengths (l1, l2norm), not with {term.kind}")
    final = None if term.final_weight is None else term.final_weight / scale
    return term.model_copy(update={"weight": term.weight / scale, "final_weight": final})


def cohesion(dataset: Dataset, elements: tuple[int, ...]) -> tuple[float, ...]:
    """What an atom of each element contributes to the interaction energy on average, eV; to be used as `Potential.cohesion`.

    The mean per atom, and on top of it the least-squares share of each element (the smallest one where compositions do not
    tell the elements apart).

    Args:
        dataset: The training set; at most `COHESION_STRUCTURES` of it are looked at.
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
    # A tenth of a structure that shows nothing special keeps elements that are rare, or always together, near the mean.
    penalty = 0.1 * np.eye(len(elements))
    rows = np.concatenate([counts, penalty])
    share = np.linalg.lstsq(rows, np.concatenate([energies - mean * counts.sum(axis=1), np.zeros(len(elements))]))[0]
    return tuple((mean + share).tolist())


def energy_scale(dataset: Dataset) -> float:
    """Root mean square of a force component (eV/Å), taken as eV; to be used as `Potential.scale`.

    A model at initialisation gives atom energies of order one that change over about an ångström, so its
    forces then have the size of the data's. Without forces it is the root mean square of the interaction
    energy per atom around its mean; without any labels, or if all are equal, it is 1.

    Args:
        dataset: The training set.
    """
    for value in (dataset.forces_rms, dataset.energy_rms):
        if math.isfinite(value) and value > 0:
            return value
    return 1.0
