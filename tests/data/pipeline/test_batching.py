"""Batch plans: complete, reproducible, of few capacities, with little padding."""

import tarfile

import numpy as np
import pytest

from equiform.data.pipeline.batching import capacities, plan_epoch, waste
from equiform.errors import UserError


def like_qm9(number, seed=0):
    """3 to 29 atoms and the share of pairs within 5 Å that such molecules have."""
    rng = np.random.default_rng(seed)
    atoms = np.clip(np.round(rng.normal(18, 3, number)), 3, 29).astype(int)
    return atoms, (atoms * (atoms - 1) * np.clip(rng.normal(0.8, 0.08, number), 0.3, 1)).astype(int)


def like_crystals(number, seed=0):
    """1 to 192 atoms, dense or not: heavy tails."""
    rng = np.random.default_rng(seed)
    atoms = np.clip(np.exp(rng.normal(3, 1, number)), 1, 192).astype(int)
    return atoms, (atoms * rng.normal(40, 15, number).clip(4, 100)).astype(int)


SETS = {
    "qm9": like_qm9(3000),
    "crystals": like_crystals(500),
    "one molecule": (np.full(101, 9), np.full(101, 72)),
    "no edges": (np.full(10, 1), np.zeros(10, int)),
    "one structure": (np.array([5]), np.array([20])),
    "a giant": (np.array([5] * 50 + [500]), np.array([20] * 50 + [30000])),
}
BUDGETS = [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 8}, {"batch_size": 1000}]
BUDGETS += [{"batch_size": 1000, "edge_budget": 40000}, {"batch_size": 8, "edge_budget": 50000}]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_every_structure_is_in_one_batch_that_holds_it(name, budget):
    atoms, edges = SETS[name]
    for epoch in range(2):
        plan = plan_epoch(atoms, edges, **budget, seed=1, epoch=epoch)
        assert sorted(k for planned in plan for k in planned.indices) == list(range(len(atoms)))
        for planned in plan:
            rows = list(planned.indices)
            assert (planned.num_atoms, planned.num_edges) == (atoms[rows].sum(), edges[rows].sum())
            assert planned.num_atoms <= planned.capacity.atoms and planned.num_edges <= planned.capacity.edges
            assert 1 <= len(rows) <= planned.capacity.graphs
            assert len(rows) <= budget.get("batch_size", np.inf)
            assert planned.capacity.edges <= budget.get("edge_budget", np.inf)


def test_is_a_pure_function_of_sizes_seed_and_epoch():
    atoms, edges = SETS["qm9"]
    plan = plan_epoch(atoms, edges, batch_size=8, seed=1, epoch=2)
    assert plan == plan_epoch(atoms.copy(), edges.copy(), batch_size=8, seed=1, epoch=2)
    assert plan != plan_epoch(atoms, edges, batch_size=8, seed=1, epoch=3)
    assert plan != plan_epoch(atoms, edges, batch_size=8, seed=2, epoch=2)
    still = plan_epoch(atoms, edges, batch_size=8, shuffle=False)
    assert still == plan_epoch(atoms, edges, batch_size=8, seed=5, epoch=6, shuffle=False)


@pytest.mark.parametrize("name", ["qm9", "crystals", "one molecule"])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_capacities_and_number_of_batches_are_the_same_in_every_epoch(name, batch_size):
    plans = [plan_epoch(*SETS[name], batch_size=batch_size, seed=seed, epoch=epoch) for seed in (0, 7) for epoch in range(8)]
    assert len({len(plan) for plan in plans}) == 1
    assert len({tuple(capacities(plan)) for plan in plans}) == 1


@pytest.mark.parametrize("batch_size", [2, 4, 8, 16, 32, 128])
def test_waste_is_under_15_percent_on_sizes_like_qm9(batch_size):
    plan = plan_epoch(*like_qm9(4000), batch_size=batch_size)
    assert waste(plan) < 0.15
    assert len(capacities(plan)) <= (1 if batch_size >= 8 else 6)
    sizes = [len(planned.indices) for planned in plan]
    assert min(sizes) >= batch_size - batch_size // 4 - 1


def test_one_capacity_without_waste_for_one_molecule():
    plan = plan_epoch(np.full(101, 9), np.full(101, 72), batch_size=10)
    assert len(plan) == 11 and len(capacities(plan)) == 1
    assert waste(plan) < 0.1  # 101 into 11 batches of 10 slots


def test_waste_counts_padding():
    plan = plan_epoch(np.array([2, 4]), np.array([2, 12]), batch_size=1)
    padded = sum(planned.capacity.edges for planned in plan)
    atoms = sum(planned.capacity.atoms for planned in plan)
    assert waste(plan) == pytest.approx(max(1 - 14 / padded, 1 - 6 / atoms))
    assert waste([]) == 0.0


def test_batches_differ_between_epochs():
    atoms, edges = SETS["qm9"]

    def pairs(epoch):
        plan = plan_epoch(atoms, edges, batch_size=8, epoch=epoch)
        return {(i, j) for planned in plan for i in planned.indices for j in planned.indices if i < j}

    first, second = pairs(0), pairs(1)
    # Chance alone repeats a pair with probability 7 / 3000.
    assert len(first & second) < 4 * len(first) * 7 / 3000


def test_too_small_a_budget_names_the_one_needed():
    atoms, edges = SETS["a giant"]
    with pytest.raises(UserError, match=r"structure 50, has 500 atoms and 30000 edges: edge_budget=30000 would do"):
        plan_epoch(atoms, edges, batch_size=8, edge_budget=1000)
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        plan_epoch(atoms, edges, batch_size=0)


def test_empty_set_has_no_batches():
    assert plan_epoch(np.zeros(0, int), np.zeros(0, int), batch_size=4) == []


@pytest.mark.slow
def test_waste_is_under_15_percent_on_qm9(shared_data):
    archive = shared_data / "qm9" / "dsgdb9nsd.xyz.tar.bz2"
    from equiform.neighbors import neighbor_list

    atoms, edges = [], []
    with tarfile.open(archive) as tar:
        for number, member in enumerate(tar):
            if number % 100 or (content := tar.extractfile(member)) is None:
                continue
            lines = content.read().decode().split("\n")
            rows = [line.split()[1:4] for line in lines[2 : 2 + int(lines[0])]]
            positions = np.array([[float(x.replace("*^", "e")) for x in row] for row in rows])
            atoms.append(len(positions))
            edges.append(len(neighbor_list(positions, None, False, 5.0)[0]))
    for batch_size in (1, 4, 32, 128):
        assert waste(plan_epoch(np.array(atoms), np.array(edges), batch_size=batch_size)) < 0.15


def test_few_batches_are_not_worth_many_compilations():
    sizes = like_crystals(135)
    assert len(capacities(plan_epoch(*sizes, batch_size=4))) <= 3
    assert len(capacities(plan_epoch(*(np.tile(n, 20) for n in sizes), batch_size=4))) > 4
