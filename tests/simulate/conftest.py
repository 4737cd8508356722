"""Small structures that are stable under the toy pair potential."""

from collections.abc import Callable
from typing import Any

import ase
import numpy as np
import pytest

from equiform.deploy.predictor import Predictor
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig, ToyModel

REFERENCE_ENERGIES = {1: -13.6, 6: -1029.5, 8: -2041.25}


@pytest.fixture
def predictor() -> Callable[..., Predictor]:
    """Makes a predictor of the toy potential: `predictor(dtype="float64", cutoff=4.0, depth=1.0)`."""

    def make(dtype: Any = "float64", cutoff: float = 4.0, depth: float | None = None) -> Predictor:
        import equinox as eqx
        import jax.numpy as jnp

        model = ToyModel(ToyConfig(cutoff=cutoff))
        if depth is not None:
            model = eqx.tree_at(lambda m: m.depth, model, jnp.asarray(depth))
        return Predictor(Potential(model), REFERENCE_ENERGIES, dtype=dtype)

    return make


@pytest.fixture
def cluster() -> ase.Atoms:
    """A pentagonal bipyramid, near its minimum."""
    angles = 2 * np.pi * np.arange(5) / 5
    ring = np.stack([1.02 * np.cos(angles), 1.02 * np.sin(angles), 0 * angles], axis=1)
    return ase.Atoms("C5HO", np.concatenate([ring, [[0, 0, 0.62], [0, 0, -0.62]]]))


@pytest.fixture
def crystal() -> ase.Atoms:
    """32 atoms, face-centred cubic, slightly sheared, some of them outside of the cell."""
    from ase.build import bulk

    atoms = bulk("C", "fcc", a=1.75, cubic=True) * (2, 2, 2)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.03, 1, 0], [0, 0.02, 1]], scale_atoms=True)
    atoms.positions[:3] += 2 * atoms.cell.array[0] - atoms.cell.array[1]
    return atoms
