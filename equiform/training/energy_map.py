"""Energies of a potential that was trained on forces only: constants that take its energies to the labelled ones.

Forces fix the energy of a molecule up to a constant. E = E_model + Σ_z n_z c_z, with c_z by least squares. The slope α of
labelled over predicted energies of structures of one composition is a check: it is near 1 for the right forces.

Source: Feng et al. (PolyGET), arXiv:2309.00585, who fit a linear map of the model's output to the reference energies.
Differs: α is fitted within compositions, since the model's energies of different molecules are not determined by forces, and
is not applied: forces are −∂E/∂r, so it would scale them too, and errors of the predicted energies make it too small. There
is no constant per structure, so that energies stay extensive.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.training.evaluate import evaluate_with_values

_STRUCTURES = 2000


class EnergyMap(NamedTuple):
    """The fitted map.

    Attributes:
        alpha: α, a check only.
        offsets: c_z, eV, by atomic number.
        residual: Root mean square error of the mapped energies that were fitted, eV per atom.
        compositions: Number of compositions.
    """

    alpha: float
    offsets: dict[int, float]
    residual: float
    compositions: int


def fit_energy_map(
    task: Potential, dataset: Dataset, *, batch_size: int = 16, dtype: str = "float32"
) -> tuple[EnergyMap, Potential]:
    """Fit the constants on labelled structures, and build them into the potential.

    The offsets become part of `Potential.cohesion`, so that isolated atoms keep their reference energies.

    Args:
        task: An anchored potential whose model has one energy per atom.
        dataset: Structures with energies; at most 2000 of them are used, evenly spread.
        batch_size: Structures per batch, on average.
        dtype: Precision of the predictions.

    Raises:
        UserError: The potential is of another kind, or nothing has an energy.
    """
    if not is_mappable(task):
        raise UserError("energies can be mapped for anchored potentials with one energy per atom only")
    some = dataset[:: max(1, len(dataset) // _STRUCTURES)]
    values = evaluate_with_values(task, some, batch_size=batch_size, dtype=dtype, targets=["energy"]).values
    if "energy_per_atom" not in values:
        raise UserError("no training structure has an energy, which the linear map is fitted to")
    found = values["energy_per_atom"]
    table = np.asarray(task.elements)
    counts = np.array([(some[int(k)].species[:, None] == table[None]).sum(axis=0) for k in found.structure], float)
    atoms = counts.sum(axis=1)
    alpha, compositions = _slope(found.predicted * atoms, found.reference * atoms, counts)
    rest = (found.reference - found.predicted) * atoms
    # A ridge worth a hundredth of a structure: elements that always come together share their offset.
    ridge = 0.1 * np.eye(len(table))
    offsets = np.linalg.lstsq(np.concatenate([counts, ridge]), np.concatenate([rest, np.zeros(len(table))]), rcond=None)[0]
    residual = float(np.sqrt(np.mean(((rest - counts @ offsets) / atoms) ** 2)))
    old = np.asarray(task.cohesion) if task.cohesion else np.zeros(len(table))
    mapped = replace(task, cohesion=tuple((old + offsets).tolist()))
    return EnergyMap(alpha, dict(zip(task.elements, offsets.tolist())), residual, compositions), mapped


def is_mappable(task: Task) -> bool:
    """Whether a task is a potential that the map can be built into: anchored, with one energy per atom."""
    readout = task.model.traits.scalar
    return isinstance(task, Potential) and task.anchored and readout is not None and readout.axis == "atoms"


def _slope(predicted: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> tuple[float, int]:
    """α by least squares on deviations from the mean of each composition, and the number of compositions; 1 if none varies."""
    groups, index = np.unique(counts, axis=0, return_inverse=True)
    index = index.reshape(-1)
    size = np.bincount(index)
    x = predicted - (np.bincount(index, predicted) / size)[index]
    y = reference - (np.bincount(index, reference) / size)[index]
    return (float(x @ y / (x @ x)) if x @ x > 0 else 1.0), len(groups)
