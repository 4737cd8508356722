"""Predictions beside the labels that their structures came with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.formats.labels import LabelKeys
from equiform.neighbors import Labels

if TYPE_CHECKING:
    from ase import Atoms

    from equiform.deploy.predictor import Prediction


def errors_of(
    structures: "Sequence[Atoms]", labels: Sequence[Labels], predictions: "Sequence[Prediction]"
) -> dict[str, dict[str, Any]]:
    """Mean absolute and root mean square errors where there are labels, as those of `equiform evaluate`."""
    differences: dict[str, list[np.ndarray]] = {"energy_per_atom": [], "forces": [], "stress": []}
    for atoms, label, prediction in zip(structures, labels, predictions, strict=True):
        if label.energy is not None:
            differences["energy_per_atom"].append(np.array([(prediction.energy - label.energy) / len(atoms)]))
        if label.forces is not None:
            differences["forces"].append((prediction.forces - label.forces).ravel())
        if label.stress is not None and prediction.stress is not None:
            differences["stress"].append((prediction.stress - label.stress).ravel())
    units = {"energy_per_atom": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}
    errors = {}
    for name, parts in differences.items():
        values = np.concatenate(parts) if parts else np.zeros(0)
        values = values[np.isfinite(values)]
        if values.size:
            mae, rmse = float(np.abs(values).mean()), float(np.sqrt((values**2).mean()))
            errors[name] = {"mae": mae, "rmse": rmse, "unit": units[name]}
    return errors


def as_references(atoms: "Atoms", label: Labels, keys: LabelKeys) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The labels of a structure as `REF_forces` (a column), `REF_energy` and `REF_virial` (eV), in place of their own names.

    The virial is −volume · stress.
    """
    columns, entries = {}, {}
    for name in filter(None, (keys.energy, keys.forces, keys.stress)):
        atoms.info.pop(name, None)
        if name not in ("numbers", "positions"):
            atoms.arrays.pop(name, None)
    if label.forces is not None:
        columns["REF_forces"] = np.asarray(label.forces, float)
    if label.energy is not None:
        entries["REF_energy"] = float(label.energy)
    if label.stress is not None:
        entries["REF_virial"] = -atoms.get_volume() * np.asarray(label.stress, float)
    # What a structure calls that already, beside the label that was read, is another one, and stays.
    columns = {name: value for name, value in columns.items() if name not in atoms.arrays}
    return columns, {name: value for name, value in entries.items() if name not in atoms.info}
