"""A model as TorchSim takes potentials: `torch_sim.integrate(system=atoms, model=TorchSimModel(predictor), …)`.

Nothing else imports this module, because its class derives from TorchSim's and so needs PyTorch. Structures of a batch go
through one program, as in `Predictor.predict`; arrays pass through NumPy.

Source: TorchSim, `torch_sim.models.interface.ModelInterface`, 0.3 to 0.6; cells have lattice vectors as columns, stresses are
positive under tension, as ours.
"""

from typing import Any

import ase
import numpy as np
import torch
from torch_sim.models.interface import ModelInterface

from equiform.deploy.predictor import Predictor
from equiform.errors import UserError

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TorchSimModel(ModelInterface):
    """Energies (eV), forces (eV/Å) and stresses (eV/Å³) of a batch of structures; zero stress without a full cell.

    Args:
        predictor: The model; its precision is that of the tensors.
        device: Where TorchSim keeps its tensors.

    Raises:
        UserError: The model gives no energies, or needs tags.
    """

    def __init__(self, predictor: Predictor, device: torch.device | str = "cpu"):
        super().__init__()
        predictor.require_energy()
        if predictor.task.model.traits.num_tags:
            raise UserError("this model needs a tag for each atom (OC20), which TorchSim does not have")
        self._predictor = predictor
        self._device, self._dtype = torch.device(device), _DTYPES[predictor.dtype]
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """The outputs of a state, or of a dictionary with its tensors.

        Args:
            state: `positions` (atoms, 3), `cell` (systems, 3, 3), `atomic_numbers`, `system_idx` (atoms), `pbc`.
        """
        value = state.__getitem__ if isinstance(state, dict) else lambda name: getattr(state, name)
        positions, cells, numbers = (_array(value(name)) for name in ("positions", "cell", "atomic_numbers"))
        systems = value("system_idx")
        index = np.zeros(len(positions), int) if systems is None else _array(systems)
        pbc = np.broadcast_to(_array(value("pbc")).astype(bool), 3)
        count = int(index.max()) + 1 if len(index) else 0
        structures = [
            ase.Atoms(numbers[index == k], positions[index == k], cell=cells[k].T if pbc.any() else None, pbc=pbc)
            for k in range(count)
        ]
        found = self._predictor.predict(structures)
        forces = np.zeros((len(positions), 3))
        for k, one in enumerate(found):
            forces[index == k] = one.forces
        stress = [np.zeros((3, 3)) if one.stress is None else one.stress for one in found]
        return {
            "energy": self._tensor(np.array([one.energy for one in found])),
            "forces": self._tensor(forces),
            "stress": self._tensor(np.array(stress).reshape(-1, 3, 3)),
        }

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=self._dtype, device=self._device)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
