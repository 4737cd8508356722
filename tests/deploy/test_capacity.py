"""Sizes of batches from call to call: few programs."""

import numpy as np

from equiform.deploy.capacity import GrowingCapacity, UsedCapacities
from equiform.graph import Capacity


def test_capacity_grows_with_hysteresis():
    capacity = GrowingCapacity()
    sizes = {capacity.fit(atoms, 10 * atoms) for atoms in range(20, 101)}
    # Growth by a quarter at least: 20 → 100 in at most 1 + log(5)/log(1.25) ≈ 8.2 steps.
    assert 4 <= len(sizes) <= 9
    largest = capacity.fit(100, 1000)
    assert capacity.fit(50, 500) == largest
    assert capacity.fit(20, 200).atoms == 20


def test_batches_of_nearly_the_same_size_share_a_capacity():
    used = UsedCapacities()
    first = used.fit(Capacity(100, 1000, 3))
    assert first == (100, 1000, 3) and used.fit(Capacity(100, 900, 3)) == first
    grown = used.fit(Capacity(100, 1001, 3))
    assert grown.edges > 1050 and used.fit(Capacity(100, 1050, 3)) == grown
    assert used.fit(Capacity(100, 995, 3)) == first
    assert used.fit(Capacity(100, 1000, 4)).graphs == 4  # another number of structures is another program
    assert used.fit(Capacity(10, 100, 3)) == (10, 100, 3)  # much smaller: no use of so much padding


def test_dynamics_in_batches_compile_little(predictor, crystal, cluster):
    model, rng = predictor(cutoff=2.6), np.random.default_rng(0)
    for _ in range(12):
        for atoms in (crystal, cluster):
            atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
        model.predict([crystal, cluster, crystal])
    assert model.compilations <= 4  # with and without a cell, and once more edges
