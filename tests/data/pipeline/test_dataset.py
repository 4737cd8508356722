"""Data sets: interaction energies in float64, statistics, and clear refusals."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from equiform.data.formats.reading import label_structures
from equiform.data.pipeline.check import usable
from equiform.data.pipeline.dataset import Dataset, dataset_from_labels
from equiform.errors import UserError
from equiform.graph import Graph
from tests.data.samples import E0, labelled, molecules


def dataset(structures, cutoff, references, *, skip_invalid=False, warnings=None, **more):
    """What `prepare` makes of structures in memory."""
    found = [] if warnings is None else warnings
    reading = usable(label_structures(structures), name="data", skip_invalid=skip_invalid, warnings=found)
    return dataset_from_labels(reading.structures, reading.labels, cutoff, references, weights=reading.weights, **more)


def water(energy=None, forces=None, **keywords):
    atoms = Atoms("OH2", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], **keywords)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def test_reference_energies_are_subtracted_without_loss():
    structures = labelled(molecules(3, bound=-1e-7))
    data = dataset(structures, 4.0, E0)
    base = 2 * E0[6] + 6 * E0[1] + E0[8]
    np.testing.assert_allclose(data.energy, [a.calc.results["energy"] - base for a in structures], atol=1e-9)
    # float32 would have lost all of it: eps · 4,000 eV is 5e-4 eV.
    assert data.energy.dtype == np.float64


def test_is_a_sequence_of_graphs_with_sizes():
    structures = labelled(molecules(5))
    data = dataset(structures, 2.0, E0)
    assert len(data) == 5 and isinstance(data[0], Graph) and isinstance(data[1:3], Dataset)
    assert data.num_atoms.tolist() == [9] * 5
    assert data.num_edges.tolist() == [len(graph.senders) for graph in data]
    assert data.elements == (1, 6, 8)
    np.testing.assert_array_equal(data[2].positions, structures[2].positions)


def test_statistics_leave_out_missing_labels():
    structures = [water(-1.0, np.full((3, 3), 2.0)), water(-4.0), water(None, np.full((3, 3), -4.0))]
    data = dataset(structures, 3.0, {})
    assert data.energy_rms == pytest.approx(0.5)
    assert data.forces_rms == pytest.approx(np.sqrt((4 + 16) / 2))
    assert data.has_label("energy") and data.has_label("forces") and not data.has_stress


def test_element_without_reference_energy_is_named():
    structures = [water(-1.0)]
    with pytest.raises(UserError, match=r"no reference energy for O; there are those of H"):
        dataset(structures, 3.0, {1: -13.6})


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        (water(np.nan), "energy is NaN"),
        (water(np.inf), "energy is NaN or infinite"),
        (water(-1.0, np.full((3, 3), np.nan)), "forces are NaN"),
        (water(-1.0, cell=[0, 0, 0], pbc=True), "no volume"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, np.nan]], info={"energy": 1.0}), "position is NaN"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]], info={"energy": 1.0}), "atoms 0 and 1 overlap"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]], info={"energy": 1.0}), "overlap: 0.05 Å"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 5]], cell=[9, 9, 5.01], pbc=True, info={"energy": 1.0}), "overlap"),
        (Atoms("H", cell=[0.05, 3, 3], pbc=True, info={"energy": 1.0}), "its image overlap"),
        (Atoms("XH", positions=[[0, 0, 0], [0, 0, 1]], info={"energy": 1.0}), "no element"),
        (Atoms(info={"energy": 1.0}), "no atoms"),
    ],
)
def test_unusable_structure_is_named_or_left_out(atoms, said):
    structures = [water(-1.0), atoms, water(-2.0)]
    with pytest.raises(UserError, match=rf"data, structure 1 \(.*{said}.*skip_invalid"):
        dataset(structures, 3.0, {})
    warnings = []
    data = dataset(structures, 3.0, {}, skip_invalid=True, warnings=warnings)
    assert len(data) == 2 and "1 of 3 structures are left out" in warnings[0]


def test_close_but_possible_atoms_are_no_error():
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.3]], info={"energy": 1.0})
    assert len(dataset([atoms], 3.0, {})) == 1


def test_nothing_usable_is_an_error_also_when_skipping():
    with pytest.raises(UserError, match="none of 1 structures"):
        dataset([water(np.nan)], 3.0, {}, skip_invalid=True)


def test_lengths_in_bohr_are_converted():
    atoms = water(-1.0)
    atoms.positions /= 0.529177210903
    atoms.info["length_unit"] = "Bohr"
    (graph,) = dataset([atoms], 3.0, {})
    np.testing.assert_allclose(graph.positions, water(-1.0).positions, atol=1e-10)
    assert atoms.positions[1, 0] > 1.4, "the caller's structure was changed"


def test_progress_is_reported():
    calls = []
    structures = labelled(molecules(3))
    dataset(structures, 3.0, {}, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_tags_go_along_if_all_structures_have_them():
    structures = labelled(molecules(3))
    assert all("tags" not in graph.node_fields for graph in dataset(structures, 3.0, {}))
    for number, atoms in enumerate(structures):
        atoms.set_tags(number)
    for number, graph in enumerate(dataset(structures, 3.0, {})):
        assert graph.node_fields["tags"].tolist() == [number] * len(structures[number])
    del structures[1].arrays["tags"]
    assert all("tags" not in graph.node_fields for graph in dataset(structures, 3.0, {}))
