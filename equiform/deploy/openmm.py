"""A model inside OpenMM, as a `PythonForce`: whole systems, or the part of a mixed one that the model describes.

    E [kJ/mol] and F [kJ/mol/nm] = the predictor's, converted;   the box is OpenMM's, its vectors as rows

The force is serialised with the model's weights inside, so an XML file needs no other file to be read again (OpenMM stores
Python functions by pickle: read only XML files that you trust).

Source: OpenMM 8 documentation, `PythonForce`; openmm-ml, `MLPotentialImpl` (`equiform.deploy.openmm_ml`).
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from equiform.data.units import ENERGY
from equiform.deploy.engines import require
from equiform.deploy.predictor import Dtype, Predictor, load
from equiform.deploy.structures import symbols
from equiform.errors import UserError

if TYPE_CHECKING:
    import openmm
    from openmm.app import Topology

_NM = 10.0  # Å
_KJ_MOL = ENERGY["kJ/mol"]


class Computation:
    """Energy and forces of the atoms of one force; OpenMM calls it with its state.

    Attributes:
        numbers: Atomic numbers, in the order of the force's particles.
        periodic: Whether the box repeats.
    """

    def __init__(self, predictor: Predictor, numbers: Sequence[int], periodic: bool):
        self.numbers, self.periodic = np.array(numbers), periodic
        self._predictor: Predictor | None = predictor.with_own_capacity()
        self._stored: tuple[dict[str, bytes], Dtype] | None = None

    @property
    def predictor(self) -> Predictor:
        """The model, with a capacity of its own; read from the stored files on first use."""
        if self._predictor is None:
            assert self._stored is not None  # one of the two is there
            files, dtype = self._stored
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / Path(name).name).write_bytes(content)
                self._predictor = load(folder, dtype)
        return self._predictor

    def __call__(self, state: Any) -> tuple[float, Float[np.ndarray, "atoms 3"]]:
        """Energy in kJ/mol and forces in kJ/mol/nm."""
        from ase import Atoms

        atoms = Atoms(self.numbers, np.array(state.getPositions(asNumpy=True)._value) * _NM, pbc=self.periodic)
        if self.periodic:
            atoms.set_cell(np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) * _NM)
        prediction = self.predictor.predict_one(atoms)
        return prediction.energy / _KJ_MOL, prediction.forces * (_NM / _KJ_MOL)

    def __getstate__(self) -> dict[str, Any]:
        """The model as the files of a model folder: weights and configuration, no code."""
        from equiform.persist.modelfile import save_model

        predictor = self.predictor
        with tempfile.TemporaryDirectory() as folder, predictor.precision():
            model = Path(folder) / "model"
            save_model(model, predictor.task, predictor.reference_energies, predictor.metadata)
            files = {path.name: path.read_bytes() for path in sorted(model.iterdir())}
        return {"numbers": self.numbers.tolist(), "periodic": self.periodic, "stored": (files, predictor.dtype)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Nothing is loaded here: an exception in here would end the process, OpenMM does not expect one.
        self.numbers, self.periodic = np.array(state["numbers"]), bool(state["periodic"])
        self._stored, self._predictor = state["stored"], None


def force(
    model: str | Path | Predictor,
    topology: "Topology",
    *,
    atoms: Sequence[int] | None = None,
    dtype: Dtype = "float64",
    periodic: bool | None = None,
) -> "openmm.PythonForce":
    """A force of OpenMM that is the model's, on all atoms or on some.

    Args:
        model: The model's folder, or a predictor (which keeps its dtype).
        topology: OpenMM's topology: elements, and box vectors if the system is periodic.
        atoms: Indices of the atoms that the model describes; None: all.
        dtype: Precision of the computation.
        periodic: Whether the box repeats; None: if the topology has box vectors.

    Raises:
        UserError: OpenMM is not installed, an atom has no element or one that the model does not know, there are no atoms, or
            the model gives no energies or needs tags of atoms.
    """
    require("OpenMM")
    import openmm

    predictor = model if isinstance(model, Predictor) else load(model, dtype)
    numbers = _numbers(topology, atoms)
    predictor.require_energy()
    if predictor.task.model.traits.num_tags:
        raise UserError("this model needs a tag for each atom (OC20), which a topology does not have")
    unknown = sorted(set(numbers) - set(predictor.elements))
    if unknown:
        raise UserError(f"the topology has {symbols(unknown)}, but the model knows only {symbols(predictor.elements)}")
    repeats = topology.getPeriodicBoxVectors() is not None if periodic is None else periodic
    made = openmm.PythonForce(Computation(predictor, numbers, repeats))
    made.setName("equiform")
    made.setUsesPeriodicBoundaryConditions(repeats)
    if atoms is not None:
        made.setParticles(list(atoms))
    return made


def system(model: str | Path | Predictor, topology: "Topology", *, dtype: Dtype = "float64") -> "openmm.System":
    """A system of OpenMM in which the model is the only force.

    Masses are those of OpenMM's elements. Add a thermostat by the integrator, and a barostat as another force.

    Args:
        model: The model's folder, or a predictor (which keeps its dtype).
        topology: OpenMM's topology.
        dtype: Precision of the computation.

    Raises:
        UserError: As of `force`.
    """
    made = force(model, topology, dtype=dtype)
    import openmm

    whole = openmm.System()
    for atom in topology.atoms():
        whole.addParticle(atom.element.mass)
    vectors = topology.getPeriodicBoxVectors()
    if vectors is not None:
        whole.setDefaultPeriodicBoxVectors(*vectors)
    whole.addForce(made)
    return whole


def _numbers(topology: "Topology", atoms: Sequence[int] | None) -> list[int]:
    present = list(topology.atoms())
    if atoms is not None:
        outside = [index for index in atoms if not 0 <= index < len(present)]
        if outside:
            raise UserError(f"atom {outside[0]} is not in the topology, which has atoms 0 to {len(present) - 1}")
        present = [present[index] for index in atoms]
    if not present:
        raise UserError("there are no atoms for the model to act on")
    for atom in present:
        if atom.element is None:
            raise UserError(f"atom {atom.index} ({atom.name}) of the topology has no element; a model needs one")
    return [atom.element.atomic_number for atom in present]
