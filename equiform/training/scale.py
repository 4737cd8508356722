"""The energy scale of a data set: what one unit of a freshly initialised model's output should be worth."""

import math

from equiform.data.dataset import Dataset


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
