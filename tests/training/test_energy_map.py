"""The linear map from the energies of a model trained on forces to labelled ones."""

import jax
import numpy as np
import pytest
from ase import Atoms

from equiform.data.formats.reading import label_structures
from equiform.data.pipeline.dataset import dataset_from_labels
from equiform.deploy.predictor import Predictor
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig
from equiform.tasks.energy import Potential
from equiform.training.energy_map import fit_energy_map

REFERENCE_ENERGIES, OFFSETS = {1: -10.0, 6: -50.0, 8: -100.0}, {1: -1.5, 6: -4.0, 8: -2.0}


def fitted(slope):
    """A potential, structures labelled with its energies times a slope and constants, and what is fitted to them."""
    config = TorchMDETConfig(elements=(1, 6, 8), channels=4, num_layers=1, num_heads=2, num_basis=4, cutoff=4.0)
    with jax.enable_x64(True):
        task = Potential(TorchMDET(config, key=jax.random.key(0)), elements=(1, 6, 8), anchored=True, cohesion=(0.0, 0.0, 0.0))
    before = Predictor(task, REFERENCE_ENERGIES, dtype="float64")
    rng = np.random.default_rng(1)
    structures = []
    for symbols in ("CH4", "CO", "CHO", "C2H2"):
        size = len(Atoms(symbols))
        # Corners of a cube of 1.1 Å: every atom is bound.
        corners = 1.1 * np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)[:size]
        for _ in range(3):
            atoms = Atoms(symbols, corners + 0.05 * rng.standard_normal((size, 3)))
            structures.append(atoms)
    predicted = before.predict(structures)
    for atoms, prediction in zip(structures, predicted):
        constants = sum(REFERENCE_ENERGIES[z] + OFFSETS[z] for z in atoms.numbers.tolist())
        atoms.info["energy"] = slope * prediction.interaction_energy + constants
    labels = label_structures(structures).labels
    dataset = dataset_from_labels(structures, labels, 4.0, REFERENCE_ENERGIES)
    found, mapped = fit_energy_map(task, dataset, dtype="float64")
    return structures, predicted, found, Predictor(mapped, REFERENCE_ENERGIES, dtype="float64")


@pytest.mark.slow
def test_a_shifted_potential_is_taken_back_to_its_labels():
    structures, predicted, found, after = fitted(1.0)
    assert found.alpha == pytest.approx(1, abs=1e-8)
    assert found.compositions == 4
    assert found.offsets == pytest.approx(OFFSETS, abs=0.02)  # a small ridge pulls them to zero
    # Offsets count bound atoms, 1 − exp(−2n) of them: none in an isolated atom, nearly all here.
    *energies, isolated = after.energy([*structures, Atoms("C")])
    assert isolated == pytest.approx(-50.0, abs=1e-9)
    wanted = np.array([atoms.info["energy"] for atoms in structures])
    assert np.abs(energies - wanted).max() < 1.0
    assert np.abs([prediction.energy for prediction in predicted] - wanted).max() > 3


@pytest.mark.slow
def test_the_slope_is_told_and_forces_are_not_scaled_by_it():
    structures, predicted, found, after = fitted(0.5)
    assert found.alpha == pytest.approx(0.5, abs=1e-8)
    for atoms, before in zip(structures[:3], predicted):
        # A tenth comes from the count of bound atoms, which in CH4 is nearly saturated; scaled forces would differ by half.
        assert np.abs(after.forces(atoms) - before.forces).max() < 0.2 * np.abs(before.forces).max()
