"""The list holds every pair for as long as it is said to, and its room grows rarely."""

import numpy as np
import pytest

from equiform.neighbors import neighbor_list
from equiform.simulate.md.integrator import split
from equiform.simulate.md.verlet_list import EdgeCapacity, VerletList, moved_home


def _pairs(senders, receivers, shifts):
    return {(int(s), int(r), *map(int, n)) for s, r, n in zip(senders, receivers, shifts)}


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True)])
def test_no_pair_is_missed_while_atoms_move_half_the_skin(crystal, pbc):
    cell, pbc = crystal.cell.array, np.array(pbc)
    pairs = VerletList(cell, pbc, 2.2, 0.6, np.dtype(np.float64))
    candidates = pairs.build(split(crystal.positions, np.float64))
    mask = np.asarray(candidates.mask)
    listed = _pairs(*(np.asarray(x)[mask] for x in (candidates.senders, candidates.receivers, candidates.shifts)))
    rng = np.random.default_rng(0)
    for _ in range(5):
        steps = rng.normal(size=crystal.positions.shape)
        steps *= float(candidates.max_displacement) / np.linalg.norm(steps, axis=1, keepdims=True)
        assert _pairs(*neighbor_list(crystal.positions + steps, cell, pbc, 2.2)) <= listed
    assert np.all(np.diff(candidates.receivers) >= 0)


def test_a_small_molecule_gets_all_pairs_for_ever(cluster):
    pairs = VerletList(np.zeros((3, 3)), np.zeros(3, bool), 4.0, 1.0, np.dtype(np.float32))
    candidates = pairs.build(split(cluster.positions, np.float32))
    assert np.isinf(candidates.max_displacement)
    assert candidates.mask.sum() == 42
    assert pairs.capacity == (42, 42)


def test_atoms_are_brought_home_along_periodic_directions_only(crystal):
    pbc = np.array([True, False, True])
    cell = crystal.cell.array.copy()
    pairs = VerletList(cell, pbc, 2.2, 0.6, np.dtype(np.float64))
    far = crystal.positions + np.array([[3, 0, -2]]) @ cell + [0, 50, 0]
    images = pairs.wrap(far)
    assert np.array_equal(images[:, 1], np.zeros(len(far)))
    home = moved_home(split(far, np.float64), images, cell, np.float64)
    again = pairs.wrap(np.asarray(home.high))
    assert np.array_equal(again, np.zeros_like(again))
    assert np.allclose(np.asarray(home.high) + images @ cell, far, rtol=0, atol=1e-12)


def test_room_grows_by_a_quarter_and_never_shrinks():
    capacity, seen = EdgeCapacity(), set()
    for need in [*range(1000, 3000, 10), 500]:
        capacity = capacity.grown(need, need // 2)
        assert capacity.listed >= need
        assert capacity.active >= need // 2
        seen.add(capacity)
    assert len(seen) <= 12
    assert capacity.grown(500, 0) == capacity


def test_like_structures_begin_with_the_same_room():
    rooms = [EdgeCapacity().grown(need, need // 2) for need in range(1000, 1060)]
    assert len(set(rooms)) <= 3  # a run of each would be compiled three times at most
    assert all(1.05 * need <= room.listed <= 1.25 * need for need, room in zip(range(1000, 1060), rooms))
