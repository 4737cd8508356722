"""The name `equiform` in openmm-ml: `MLPotential("equiform", modelPath="runs/data-1")`.

openmm-ml finds it by the entry point `openmmml.potentials`; nothing else imports this module, because its classes derive from
openmm-ml's.
"""

from collections.abc import Iterable
from typing import Any

import openmm
import openmm.app
from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

from equiform.deploy.openmm import force
from equiform.deploy.predictor import Dtype, Predictor, load
from equiform.errors import UserError


class EquiformPotential(MLPotentialImpl):
    """A model as a potential of openmm-ml: on whole systems, or on the atoms that a mixed one gives it."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    def addForces(
        self,
        topology: openmm.app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,  # openmm-ml's interface
    ) -> None:
        """Add the force; openmm-ml calls this."""
        made = force(
            self._predictor,
            topology,
            atoms=None if atoms is None else list(atoms),
            periodic=topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions(),
        )
        made.setForceGroup(forceGroup)
        system.addForce(made)

    def getMLLongRange(self) -> bool:
        """Interactions end at the model's cutoff, however many layers carry them on."""
        return False


class EquiformPotentialFactory(MLPotentialImplFactory):
    """Makes the potential from `modelPath` (or `predictor`) and `dtype`."""

    def createImpl(
        self,
        name: str,
        modelPath: str | None = None,
        predictor: Predictor | None = None,
        dtype: Dtype = "float64",
        **args: Any,  # openmm-ml's interface
    ) -> MLPotentialImpl:
        """The potential; openmm-ml calls this with the arguments of `MLPotential`.

        Raises:
            UserError: There is no model, or an argument that is not known.
        """
        if args:
            raise UserError(f"{', '.join(args)}: not known; MLPotential({name!r}) takes modelPath, predictor and dtype")
        if (modelPath is None) == (predictor is None):
            raise UserError(f'give a model: MLPotential({name!r}, modelPath="runs/data-1")')
        return EquiformPotential(predictor if predictor is not None else load(str(modelPath), dtype))
