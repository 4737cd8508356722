"""TorchSim: its own validation of models, our numbers in a batch, and an NVE run."""

from importlib.util import find_spec

import numpy as np
import pytest
from ase.build import molecule

from equiform.deploy.predictor import Predictor
from equiform.tasks.energy import Potential
from tests.deploy.conftest import box
from tests.toy import ToyConfig, ToyModel

if find_spec("torch_sim") is None:
    pytest.skip("the extra torchsim is not installed (it brings PyTorch)", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchSim's own


def state_of(structures):
    import torch
    import torch_sim

    return torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


def test_their_validation_of_a_model_passes():
    import torch
    from torch_sim.models.interface import validate_model_outputs

    from equiform.deploy.torchsim import TorchSimModel

    every = Predictor(Potential(ToyModel(ToyConfig(elements=tuple(range(1, 87))))), dtype="float64")
    validate_model_outputs(TorchSimModel(every), torch.device("cpu"), torch.float64)


def test_a_batch_is_what_the_predictor_gives_one_by_one(predictor, crystal):
    from equiform.deploy.torchsim import TorchSimModel

    structures, model = [box(), crystal, box()], predictor()
    found = TorchSimModel(model)(state_of(structures))
    start = 0
    for place, atoms in enumerate(structures):
        one = model.predict_one(atoms)
        forces = found["forces"][start : start + len(atoms)].numpy()
        assert found["energy"][place].item() == pytest.approx(one.energy, rel=1e-10)
        np.testing.assert_allclose(forces, one.forces, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["stress"][place].numpy(), one.stress, rtol=0, atol=1e-10)
        start += len(atoms)


def test_a_molecule_has_no_stress(predictor):
    from equiform.deploy.torchsim import TorchSimModel

    atoms, model = molecule("CH3CH2OH"), predictor()
    found = TorchSimModel(model)(state_of([atoms]))
    assert found["energy"].item() == pytest.approx(model.predict_one(atoms).energy, rel=1e-10)
    assert not found["stress"].any()


def test_nve_keeps_the_energy(predictor, cluster):
    import torch
    from torch_sim.integrators.nve import nve

    from equiform.deploy.torchsim import TorchSimModel

    init, step = nve(TorchSimModel(predictor()), dt=torch.tensor(2e-3), kT=torch.tensor(0.01))  # Å √(u/eV)
    state = init(state_of([cluster]), seed=0)

    def total(state):
        return float(state.energy.sum() + 0.5 * (state.momenta**2 / state.masses[:, None]).sum())

    first = total(state)
    for _ in range(100):
        state = step(state)
    assert abs(total(state) - first) / len(cluster) < 1e-6
