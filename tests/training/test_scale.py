"""The energy scale of a data set."""

import numpy as np

from equiform.data.dataset import Dataset
from equiform.training.scale import energy_scale
from tests.training.toys import molecule

NAN = float("nan")


def test_it_is_the_root_mean_square_force_component() -> None:
    rng = np.random.default_rng(0)
    forces = [rng.normal(size=(n, 3)) for n in (2, 5)]
    graphs = [molecule(rng, len(f), forces=f) for f in forces]
    graphs.append(molecule(rng, 3, forces=np.full((3, 3), NAN)))
    expected = np.sqrt((np.concatenate(forces) ** 2).mean())
    np.testing.assert_allclose(energy_scale(Dataset(graphs, 4.0)), expected, rtol=1e-12)


def test_without_forces_it_is_the_spread_of_the_energy_per_atom() -> None:
    rng = np.random.default_rng(0)
    graphs = [molecule(rng, 2, forces=np.full((2, 3), NAN), energy=energy) for energy in (1.0, 3.0, NAN)]
    np.testing.assert_allclose(energy_scale(Dataset(graphs, 4.0)), 0.5, rtol=1e-12)


def test_without_anything_to_learn_from_it_is_one() -> None:
    rng = np.random.default_rng(0)
    graph = molecule(rng, 2, forces=np.zeros((2, 3)), energy=0.0)
    assert energy_scale(Dataset([graph], 4.0)) == 1.0
    assert energy_scale(Dataset([], 4.0)) == 1.0
