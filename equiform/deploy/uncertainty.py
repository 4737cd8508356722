"""Uncertainties of ASE structures: standard deviations of energies (eV) and of force components (eV/Å)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.deploy.capacity import GrowingCapacity
from equiform.deploy.predictor import Predictor
from equiform.errors import UserError
from equiform.graph import Graph, batch, to_device
from equiform.models.api import DescribingModel
from equiform.persist.find import find_model
from equiform.persist.parameters import with_dtype
from equiform.persist.uncertainty import load_uncertainty
from equiform.runtime.compilation import jit
from equiform.tasks.energy import Potential
from equiform.tasks.uncertainty import Spread, structure_features

if TYPE_CHECKING:
    from ase import Atoms


class Uncertain(NamedTuple):
    """Standard deviations of a prediction.

    Attributes:
        energy: Of the energy of the structure, eV.
        forces: Of the force components, eV/Å.
    """

    energy: float
    forces: Float[np.ndarray, "atoms 3"]


class Uncertainty:
    """The expected errors of a predictor's energies and forces.

    Args:
        predictor: The model.
        spread: Its calibrated uncertainty.
    """

    def __init__(self, predictor: Predictor, spread: Spread):
        self.predictor, self.spread = predictor, spread
        with predictor.precision():
            self._raw = with_dtype(spread.with_factors(1.0, 1.0), predictor.dtype)
        self._capacity = GrowingCapacity()

    def of(self, atoms: "Atoms") -> Uncertain:
        """Of energy and forces."""
        graph = self._graph(atoms)
        with self.predictor.precision():
            energy, forces = _variances(self._raw, self.predictor.potential, graph)
        sigma = self.spread.forces_factor * np.sqrt(np.asarray(forces, np.float64)[: len(atoms)])
        return Uncertain(self.spread.energy_factor * float(energy[0]) ** 0.5, sigma)

    def of_energy(self, atoms: "Atoms") -> float:
        """Of the energy only, eV: for a last-layer uncertainty it costs less than a prediction."""
        graph = self._graph(atoms)
        with self.predictor.precision():
            return self.spread.energy_factor * float(_energy_variances(self._raw, self.predictor.potential, graph)[0]) ** 0.5

    def features(self, atoms: "Atoms") -> Float[np.ndarray, " features"]:
        """Mean descriptors of the atoms of a structure."""
        model = self.predictor.potential.model
        if not isinstance(model, DescribingModel):
            raise UserError(f"{type(model).__name__} models do not expose descriptors")
        graph = self._graph(atoms)
        with self.predictor.precision():
            return np.asarray(_features(model, graph), np.float64)[0] / max(len(atoms), 1)

    def of_each(self, structures: "Sequence[Atoms]", progress: Callable[[int, int], None] | None = None) -> list[Uncertain]:
        """Of many structures, one after another.

        Args:
            structures: The structures.
            progress: Progress callback `(done, total)` in structures.
        """
        found = []
        for number, atoms in enumerate(structures, start=1):
            found.append(self.of(atoms))
            if progress is not None:
                progress(number, len(structures))
        return found

    def _graph(self, atoms: "Atoms") -> Graph:
        graph = self.predictor.graph(atoms)
        capacity = self._capacity.fit(graph.capacity.atoms, graph.capacity.edges)
        with self.predictor.precision():
            return to_device(batch([graph], capacity), jnp.dtype(self.predictor.dtype))


def find_uncertainty(path: str | Path, predictor: Predictor) -> Uncertainty | None:
    """The uncertainty stored beside a model; None if there is none.

    Args:
        path: The model's folder, or a run folder.
        predictor: The model.

    Raises:
        UserError: It is damaged, or of other weights.
    """
    spread = load_uncertainty(find_model(Path(path)))
    return None if spread is None else Uncertainty(predictor, spread)


def require_uncertainty(path: str | Path, predictor: Predictor) -> Uncertainty:
    """The same, for what cannot be done without.

    Raises:
        UserError: There is none.
    """
    found = find_uncertainty(path, predictor)
    if found is None:
        raise UserError(f"{path}: no uncertainty was calibrated for this model; do it with: equiform uncertainty {path}")
    return found


@jit
def _variances(spread: Spread, potential: Potential, graph: Graph) -> tuple[Array, Array]:
    return spread.variances(potential, graph)


@jit
def _energy_variances(spread: Spread, potential: Potential, graph: Graph) -> Array:
    return spread.energy_variances(potential, graph)


@jit
def _features(model: DescribingModel, graph: Graph) -> Array:
    return structure_features(model, graph)
