"""The structures and the toy potential that dynamics is tested with."""

import ase
import numpy as np

from tests.simulate.conftest import cluster, crystal, predictor

__all__ = ["box", "cluster", "crystal", "predictor"]


def box() -> ase.Atoms:
    """In OpenMM's form of a box, with each side less than twice the cutoff."""
    cell = [[5.0, 0, 0], [0.9, 5.2, 0], [-0.8, 0.7, 5.1]]
    atoms = ase.Atoms("COHCH", np.random.default_rng(2).uniform(0, 5, (5, 3)), cell=cell, pbc=True)
    atoms.positions = np.array([[0, 0, 0], [1.4, 1.5, 0.2], [0.1, 1.4, 1.5], [2.8, 3.0, 3.1], [3.5, 0.4, 2.0]])
    return atoms
