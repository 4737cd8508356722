"""The energy scale of a data set."""

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.training.scale import cohesion, energy_scale
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


def test_cohesion_is_found_from_compositions() -> None:
    rng = np.random.default_rng(0)
    graphs = []
    for atoms in (3, 4, 5, 6, 7) * 8:
        graph = molecule(rng, atoms)
        species = rng.choice([1, 6], atoms).astype(np.int32)
        energy = -2.0 * (species == 1).sum() - 7.0 * (species == 6).sum() + rng.normal(scale=0.01)
        graphs.append(graph.replace(species=species, graph_fields={"energy": np.array([energy])}))
    lone = molecule(rng, 1).replace(species=np.array([6], np.int32), graph_fields={"energy": np.zeros(1)})
    found = cohesion(Dataset([*graphs, lone], 4.0), (1, 6))
    np.testing.assert_allclose(found, (-2.0, -7.0), atol=0.05)


def test_one_composition_gives_the_mean_per_atom_and_no_labels_give_none() -> None:
    rng = np.random.default_rng(0)
    water = [molecule(rng, 3, energy=-9.0).replace(species=np.array([1, 8, 1], np.int32)) for _ in range(4)]
    np.testing.assert_allclose(cohesion(Dataset(water, 4.0), (1, 8)), (-3.0, -3.0), rtol=1e-9)
    assert cohesion(Dataset([molecule(rng, 3, energy=NAN)], 4.0), (1, 8)) == (0.0, 0.0)
