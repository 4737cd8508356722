"""An ASE calculator around a trained model."""

from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from equiform.deploy.predictor import Dtype, Predictor, load
from equiform.deploy.structures import has_stress
from equiform.deploy.uncertainty import Uncertainty, find_uncertainty, require_uncertainty


class EquiformCalculator(Calculator):
    """Energy, forces and (for periodic cells) stress in ASE's conventions.

    The program is compiled for a capacity of atoms and edges that grows with hysteresis: when a structure
    outgrows it, by a quarter at least. So a long run, or a scan over sizes, needs a handful of compilations.

    Attributes:
        predictor: The model.

    Args:
        predictor: The model.
        headroom: Edges to leave room for at first, of those that are needed; more where a cell will shrink.
        uncertainty: Its expected errors: `results` then has `energy_uncertainty`, one standard deviation, eV.
        forces_uncertainty: Whether `results` has `forces_uncertainty` (eV/Å) too, which costs as much as dozens of predictions.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's interface

    def __init__(
        self,
        predictor: Predictor,
        headroom: float = 1.1,
        uncertainty: Uncertainty | None = None,
        forces_uncertainty: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        predictor.require_energy()
        # With its own capacity: another user of the predictor, with other structures, does not make it
        # grow.
        self.predictor = predictor.with_own_capacity(headroom)
        self.uncertainty, self.forces_uncertainty = uncertainty, forces_uncertainty

    @property
    def compilations(self) -> int:
        """Number of programs compiled since the calculator was made."""
        return self.predictor.compilations

    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; ASE does not count tags, which some models depend on."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and not np.array_equal(self.atoms.get_tags(), atoms.get_tags()):
            changes.append("tags")
        return changes

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = ("energy",),
        system_changes: Any = tuple(all_changes),
    ) -> None:
        """Evaluate everything at once, for ASE to cache."""
        super().calculate(atoms, properties, system_changes)
        structure: Any = self.atoms
        if "stress" in properties and not has_stress(structure):
            raise PropertyNotImplementedError("a structure without a periodic cell has no stress")
        prediction = self.predictor.predict_one(structure)
        self.results = {
            "energy": prediction.energy,
            "free_energy": prediction.energy,
            "forces": prediction.forces,
        }
        if self.uncertainty is not None:
            if self.forces_uncertainty:
                expected = self.uncertainty.of(structure)
                self.results |= {"energy_uncertainty": expected.energy, "forces_uncertainty": expected.forces}
            else:
                self.results["energy_uncertainty"] = self.uncertainty.of_energy(structure)
        if "energies" in properties:
            if (readout := self.predictor.potential.model.traits.scalar) is None or readout.axis != "atoms":
                raise PropertyNotImplementedError("this model has one energy per structure, none per atom")
            self.results["energies"] = self.predictor.energies(structure)
        if prediction.stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress)


def calculator(
    model: str | Path | Predictor, dtype: Dtype = "float32", *, forces_uncertainty: bool = False
) -> EquiformCalculator:
    """An ASE calculator from a model file or a predictor; of a calibrated model file with its uncertainty.

    Args:
        model: The model's folder, or a predictor (which keeps its dtype).
        dtype: Precision of the computation: "float32" or "float64".
        forces_uncertainty: See `EquiformCalculator`; needs a calibrated model file.

    Raises:
        UserError: Uncertainties of forces are requested of a model that has none.
    """
    if isinstance(model, Predictor):
        return EquiformCalculator(model)
    predictor = load(model, dtype)
    find = require_uncertainty if forces_uncertainty else find_uncertainty
    return EquiformCalculator(predictor, uncertainty=find(model, predictor), forces_uncertainty=forces_uncertainty)
