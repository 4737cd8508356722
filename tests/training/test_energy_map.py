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


@pytest.mark.slow
def test_a_scaled_and_shifted_potential_is_mapped_back_onto_its_labels():
    config = TorchMDETConfig(elements=(1, 6, 8), channels=4, num_layers=1, num_heads=2, num_basis=4, cutoff=4.0)
    with jax.enable_x64(True):
        task = Potential(TorchMDET(config, key=jax.random.key(0)), elements=(1, 6, 8), anchored=True, cohesion=(0.0, 0.0, 0.0))
    reference_energies, offsets = {1: -10.0, 6: -50.0, 8: -100.0}, {1: -1.5, 6: -4.0, 8: -2.0}
    before = Predictor(task, reference_energies, dtype="float64")
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
        constants = sum(reference_energies[z] + offsets[z] for z in atoms.numbers.tolist())
        atoms.info["energy"] = 0.5 * prediction.interaction_energy + constants
    labels = label_structures(structures).labels
    dataset = dataset_from_labels(structures, labels, 4.0, reference_energies)
    found, mapped = fit_energy_map(task, dataset, dtype="float64")
    assert found.alpha == pytest.approx(0.5, abs=1e-8)
    assert found.compositions == 4
    assert found.offsets == pytest.approx(offsets, abs=0.02)  # a small ridge pulls them to zero
    after = Predictor(mapped, reference_energies, dtype="float64")
    # Offsets count bound atoms, 1 − exp(−2n) of them: none in an isolated atom, nearly all here.
    *energies, isolated = after.energy([*structures, Atoms("C")])
    assert isolated == pytest.approx(-50.0, abs=1e-9)
    wanted = np.array([atoms.info["energy"] for atoms in structures])
    assert np.abs(energies - wanted).max() < 1.0
    assert np.abs([prediction.energy for prediction in predicted] - wanted).max() > 3
