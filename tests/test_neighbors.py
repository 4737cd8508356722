"""Neighbour lists against a plain search over all images."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from equiform.errors import UserError
from equiform.neighbors import Labels, graph_from_atoms, neighbor_list


def all_pairs(positions, cell, pbc, cutoff):
    """Every image that could be within the cutoff, one by one."""
    cell = np.array(cell, float)
    reach = [0, 0, 0]
    if any(pbc):
        inverse = np.linalg.pinv(np.where(np.array(pbc)[:, None], cell, 0))
        spread = np.ptp(positions @ inverse, axis=0)
        reach = [int(np.ceil(spread[k] + cutoff * np.linalg.norm(inverse[:, k]))) + 1 if pbc[k] else 0 for k in range(3)]
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in reach)):
        vectors = positions[None] + np.array(shift) @ cell - positions[:, None]  # receiver, sender
        for receiver, sender in np.argwhere(np.linalg.norm(vectors, axis=-1) < cutoff).tolist():
            if sender != receiver or any(shift):
                found.add((receiver, sender, *shift))
    return found


def edges(*arguments):
    senders, receivers, shifts = neighbor_list(*arguments)
    listed = [tuple(row) for row in np.column_stack([receivers, senders, shifts]).tolist()]
    assert len(listed) == len(set(listed)), "an edge is listed twice"
    return listed


@pytest.mark.parametrize("pbc", list(itertools.product([True, False], repeat=3)))
def test_equals_plain_search_in_triclinic_cells(pbc):
    rng = np.random.default_rng(sum(2**k * p for k, p in enumerate(pbc)))
    tried = 0
    while tried < 12:
        cell = rng.normal(size=(3, 3)) * rng.choice([2.0, 4.0, 8.0])
        lengths = np.linalg.norm(cell, axis=1)
        if abs(np.linalg.det(cell / lengths[:, None])) < 0.3 or lengths.min() < 1.5:
            continue
        tried += 1
        # Atoms also far outside the cell; cells smaller than the cutoff; both handednesses.
        positions = rng.normal(size=(rng.integers(1, 9), 3)) * rng.choice([1.0, 5.0, 12.0])
        cutoff = rng.choice([1.0, 2.5, 4.0])
        assert set(edges(positions, cell, pbc, cutoff)) == all_pairs(positions, cell, pbc, cutoff)


def test_skewed_cell_equals_its_reduced_cell():
    reduced = np.array([[3.0, 0, 0], [0.4, 3.2, 0], [0.1, 0.3, 2.9]])
    skewed = np.array([[1, 0, 0], [4, 1, 0], [-3, 5, 1]]) @ reduced
    positions = np.array([[0.1, 0.2, 0.3], [1.5, 1.4, 1.6]])

    def vectors(cell):
        senders, receivers, shifts = neighbor_list(positions, cell, True, 5.0)
        return np.sort(np.linalg.norm(positions[senders] + shifts @ cell - positions[receivers], axis=1))

    np.testing.assert_allclose(vectors(skewed), vectors(reduced), atol=1e-10)


def test_atom_sees_its_own_images_but_not_itself():
    senders, receivers, shifts = neighbor_list(np.zeros((1, 3)), 2 * np.eye(3), True, 2.1)
    assert (senders == 0).all() and (receivers == 0).all()
    assert sorted(map(tuple, shifts.tolist())) == sorted(map(tuple, np.vstack([np.eye(3), -np.eye(3)]).astype(int).tolist()))


def test_pair_exactly_at_the_cutoff_is_no_edge():
    positions = np.array([[0.0, 0, 0], [3.0, 0, 0]])
    assert edges(positions, None, False, 3.0) == []
    assert len(edges(positions, None, False, np.nextafter(3.0, 4))) == 2


def test_is_sorted_by_receiver_sender_and_shift():
    rng = np.random.default_rng(0)
    listed = edges(rng.random((20, 3)) * 4, 4 * np.eye(3), True, 3.0)
    assert listed == sorted(listed)


def test_cell_vector_may_be_missing_where_nothing_repeats():
    positions = np.array([[0.0, 0, 0], [1.0, 0.5, 0]])
    cell = np.diag([2.5, 0, 0])
    assert set(edges(positions, cell, (True, False, False), 3.0)) == all_pairs(positions, cell, (True, False, False), 3.0)


@pytest.mark.parametrize("distance", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False)])
def test_atom_that_flew_away_changes_nothing(distance, pbc):
    # A spread of 1e6 Å crashes the search grid of the library itself (SIGFPE).
    rng = np.random.default_rng(1)
    near = rng.random((6, 3)) * 4
    cell = np.array([[4.0, 0, 0], [1.0, 4.0, 0], [0.5, 0.7, 5.0]])
    normal = np.cross(cell[0], cell[1]) / np.linalg.norm(np.cross(cell[0], cell[1]))
    together = np.vstack([near, near[:1] + distance * normal])
    alone = {edge for edge in edges(together, cell, pbc, 3.0) if 6 not in edge[:2]}
    assert alone == set(edges(near, cell, pbc, 3.0))


def test_no_cap_on_the_number_of_neighbours():
    listed = edges(np.zeros((1, 3)), 0.5 * np.eye(3), True, 4.0)
    grid = np.array(list(itertools.product(range(-8, 9), repeat=3)))
    assert len(listed) == ((grid**2).sum(axis=1) < 64).sum() - 1


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "cutoff", "said"),
    [
        ([[np.nan, 0, 0]], None, False, 3.0, "atom 0"),
        ([[0, 0, 0], [np.inf, 0, 0]], None, False, 3.0, "atom 1"),
        ([[0, 0, 0]], np.zeros((3, 3)), True, 3.0, "no volume"),
        ([[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], True, 3.0, "no volume"),
        ([[0, 0, 0]], np.diag([5.0, np.nan, 5.0]), True, 3.0, "no volume"),
        ([[0, 0, 0]], np.diag([5.0, 0, 5.0]), (True, True, False), 3.0, "along a, b"),
        ([[0, 0, 0]], None, False, 0.0, "cutoff"),
        ([[0, 0, 0]], None, False, np.nan, "cutoff"),
        (np.zeros((4, 3)), 1e-3 * np.eye(3), True, 5.0, "edges within"),
    ],
)
def test_impossible_input_says_why(positions, cell, pbc, cutoff, said):
    with pytest.raises(UserError, match=said):
        neighbor_list(np.array(positions, float), None if cell is None else np.array(cell, float), pbc, cutoff)


def test_graph_has_the_edges_and_the_cell_only_where_periodic():
    crystal = Atoms("NaCl", positions=[[0, 0, 0], [2.8, 0, 0]], cell=[5.6, 5.6, 5.6], pbc=True)
    graph = graph_from_atoms(crystal, 3.0)
    np.testing.assert_array_equal(graph.cell[0], crystal.cell.array)
    np.testing.assert_allclose(np.linalg.norm(graph.edge_vectors(), axis=1), 2.8, atol=1e-12)
    assert not graph.graph_fields and not graph.node_fields
    crystal.pbc = False
    assert not graph_from_atoms(crystal, 3.0).cell.any()


def test_missing_labels_are_nan():
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])
    graph = graph_from_atoms(atoms, 3.0, labels=Labels(energy=-1.5))
    assert graph.graph_fields["energy"].tolist() == [-1.5]
    assert np.isnan(graph.node_fields["forces"]).all() and np.isnan(graph.graph_fields["stress"]).all()
    assert graph.node_fields["forces"].shape == (2, 3) and graph.graph_fields["stress"].shape == (1, 3, 3)


def test_few_atoms_in_a_large_box_are_found_in_a_coarse_grid():
    rng = np.random.default_rng(0)
    points, cell = 50 + rng.random((30, 3)) * 6, 100 * np.eye(3)
    senders, receivers, shifts = neighbor_list(points, cell, True, 2.0)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = {(i, j) for i, j in zip(*np.nonzero((distances < 2.0) & ~np.eye(30, dtype=bool)))}
    assert set(zip(senders.tolist(), receivers.tolist())) == expected and not shifts.any()
    # An atom on the other side of the boundary.
    senders, receivers, shifts = neighbor_list(np.array([[0.2, 5, 5], [99.9, 5, 5]]), cell, True, 2.0)
    assert senders.tolist() == [1, 0] and shifts.tolist() == [[-1, 0, 0], [1, 0, 0]]


def test_positions_far_from_the_origin_keep_their_digits():
    atoms = bulk("Si", cubic=True)
    atoms.positions += 0.03 * np.random.default_rng(0).normal(size=(8, 3))
    near = graph_from_atoms(atoms.copy(), 3.0)
    atoms.positions += [1e4, -2e4, 3e4]
    atoms.positions[3] += 500 * atoms.cell.array[1]
    far = graph_from_atoms(atoms, 3.0)
    assert np.abs(far.positions).max() < 20
    lengths = [np.sort(np.linalg.norm(graph.edge_vectors(), axis=1)) for graph in (far, near)]
    np.testing.assert_allclose(*lengths, atol=1e-10)
    molecule = Atoms("H2", positions=[[1e4, 0, 0], [1e4, 0, 0.8]])
    graph = graph_from_atoms(molecule, 3.0)
    rounded = graph.positions.astype(np.float32)
    assert np.linalg.norm(rounded[1] - rounded[0]) == pytest.approx(0.8, abs=1e-7)
