"""Batches of equal size, planned so that padding and compilations are few.

A compiled program serves one capacity (atoms, edges, structures). A plan is a pure function of the sizes, the
seed and the epoch. Structures are shuffled and dealt in windows of some thirty batches; within a window the
largest remaining structure goes to the batch with the least work so far, and a few swaps fix what still
overflows. So nearly all batches have `batch_size` structures and nearly equal work, and one capacity serves
them all; it depends on the sizes alone, not on seed or epoch. Where sizes differ too much for that (batches
of one or two), structures are divided by size into a few groups with a capacity each; a budget of edges makes
more batches of fewer structures.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equiform.errors import UserError
from equiform.graph import Capacity

EDGE_BUDGET = 20_000
"""Edges of a batch that is only evaluated, unless a single structure has more: what fits into the memory of a small machine."""

_WINDOW = 32  # batches that are balanced against each other
_TOLERATED_WASTE = 0.10  # more than this and structures are grouped by size
MOST_GROUPS = 8
"""Most groups of like size, each with a capacity of its own, that structures are divided into."""


class Batching(NamedTuple):
    """How structures are put into batches, beyond their average number; fixed at the start of a run.

    Attributes:
        edges: Most edges of a batch, unless a single structure has more; None sets no limit.
        groups: Most groups of like size, each of which is padded and compiled for itself.
    """

    edges: int | None = None
    groups: int = MOST_GROUPS


NO_LIMITS = Batching()
"""Batches of `batch_size` structures, whatever their size."""


class PlannedBatch(NamedTuple):
    """One batch of an epoch.

    Attributes:
        indices: Structures of the data set.
        capacity: What the batch is padded to.
        num_atoms: Atoms in it.
        num_edges: Edges in it.
    """

    indices: tuple[int, ...]
    capacity: Capacity
    num_atoms: int
    num_edges: int


def plan_epoch(
    num_atoms: Int[np.ndarray, "structures"],
    num_edges: Int[np.ndarray, "structures"],
    *,
    batch_size: int,
    edge_budget: int | None = None,
    most_groups: int = MOST_GROUPS,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
) -> list[PlannedBatch]:
    """The batches of one epoch; every structure is in exactly one.

    Args:
        num_atoms: Atoms of each structure.
        num_edges: Edges of each structure.
        batch_size: Maximum number of structures of a batch; the number of batches is the same in every epoch.
        edge_budget: Maximum number of edges of a batch.
        most_groups: Maximum number of groups of similar size, each with its own capacity.
        seed: Seed.
        epoch: Counts epochs; each has its own shuffle.
        shuffle: False gives the same batches whatever the seed and epoch (for evaluation).

    Raises:
        UserError: The batch size or the budget is not positive, or a structure is larger than the budget; the message
            names the budget that is needed.
    """
    for name, value in (("batch_size", batch_size), ("edge_budget", edge_budget)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    sizes = np.stack([np.asarray(num_atoms, np.int64), np.asarray(num_edges, np.int64)], axis=1)
    if len(sizes) == 0:
        return []
    if edge_budget is not None:
        _check_budget(sizes, edge_budget)
    rng = np.random.default_rng([seed, epoch, 2] if shuffle else 3)
    plan = []
    for group, capacity, count in _groups(sizes.tobytes(), batch_size, float(edge_budget or np.inf), most_groups):
        for hand in _deal(sizes[group], count, np.array(capacity[:2]), rng):
            indices = group[hand[hand >= 0]]
            atoms, edges = (int(total) for total in sizes[indices].sum(axis=0))
            # A batch that no swap could fix gets one of a few larger capacities: rare, costs a compilation, never wrong.
            own = Capacity(_enlarged(capacity.atoms, atoms), _enlarged(capacity.edges, edges), capacity.graphs)
            plan.append(PlannedBatch(tuple(int(k) for k in indices), own, atoms, edges))
    if not shuffle:
        return plan
    return [plan[k] for k in rng.permutation(len(plan))]


def waste(plan: Sequence[PlannedBatch]) -> float:
    """The part of all atoms or of all edges that is padding, whichever is larger; 0 to 1."""
    if not plan:
        return 0.0
    real = np.array([(b.num_atoms, b.num_edges) for b in plan]).sum(axis=0)
    padded = np.array([b.capacity[:2] for b in plan]).sum(axis=0)
    return float((1 - real / padded)[real > 0].max(initial=0.0))


def capacities(plan: Sequence[PlannedBatch]) -> list[Capacity]:
    """The distinct capacities, largest first: one compilation each."""
    return sorted({planned.capacity for planned in plan}, reverse=True)


def _check_budget(sizes: Int[np.ndarray, "structures 2"], budget: int) -> None:
    too_large = np.flatnonzero(sizes[:, 1] > budget)
    if len(too_large):
        worst = too_large[np.argmax(sizes[too_large, 1])]
        atoms, edges = sizes[worst]
        raise UserError(
            f"{len(too_large)} structures are larger than the budget of {budget} edges; the largest, structure {worst}, has "
            f"{atoms} atoms and {edges} edges: edge_budget={edges} would do"
        )


class _Group(NamedTuple):
    """Structures of like size, the capacity of their batches, and how many."""

    members: Int[np.ndarray, "members"]
    capacity: Capacity
    num_batches: int


@functools.lru_cache(maxsize=8)
def _groups(packed_sizes: bytes, batch_size: int, edge_budget: float, most_groups: int) -> list[_Group]:
    """Groups from which batches are dealt; they depend on the sizes only, so that every epoch has the same capacities."""
    sizes = np.frombuffer(packed_sizes, np.int64).reshape(-1, 2)
    best = [_fit(np.arange(len(sizes)), sizes, batch_size, edge_budget)]
    least, fewest = _padding(best, sizes), best[0].num_batches
    for count in range(2, most_groups + 1):
        if least <= _TOLERATED_WASTE:
            break
        groups = [_fit(members, sizes, batch_size, edge_budget) for members in _by_size(sizes, count)]
        if sum(group.num_batches for group in groups) > 1.1 * fewest:
            break  # half-empty batches of small groups would cost more than they save
        wasted = _padding(groups, sizes)
        # A further compilation takes as long as some hundred steps: a step or two of each epoch must be saved by it.
        if wasted < least - max(0.01, 2 / fewest) * (count - len(best)):
            best, least = groups, wasted
    return best


def _padding(groups: Sequence[_Group], sizes: Int[np.ndarray, "structures 2"]) -> float:
    padded = sum(group.num_batches * np.array(group.capacity[:2]) for group in groups)
    real = sizes.sum(axis=0)
    return float((1 - real / np.maximum(padded, 1))[real > 0].max(initial=0.0))


def _fit(
    members: Int[np.ndarray, "members"],
    all_sizes: Int[np.ndarray, "structures 2"],
    batch_size: int,
    edge_budget: float,
) -> _Group:
    """Batches of equally many structures, and the capacity that (nearly) every deal fits."""
    sizes = all_sizes[members]
    count = -(-len(sizes) // batch_size)
    while True:
        per_batch = -(-len(sizes) // count)
        largest = _largest_load(sizes, count)
        # A little above the mean, so that swaps can fix the overflow of other shuffles.
        if count > 1:
            margin = 1.01 * sizes.sum(axis=0) / count
            largest = np.maximum(largest, np.minimum(margin, sizes.max(axis=0) * per_batch))
        if largest[1] <= edge_budget or count == len(sizes):
            break
        count = min(len(sizes), count + max(1, count // 50))
    atoms, edges = (max(_rounded(int(np.ceil(n))), 1) for n in largest)
    return _Group(members, Capacity(atoms, int(min(edges, edge_budget)), per_batch), count)


def _largest_load(sizes: Int[np.ndarray, "structures 2"], count: int) -> Float[np.ndarray, "2"]:
    """The most atoms and edges of a batch in a few trial deals."""
    if count == len(sizes):
        return sizes.max(axis=0).astype(float)
    padded = np.concatenate([sizes, np.zeros((1, 2), np.int64)])
    loads = [padded[_deal(sizes, count, None, np.random.default_rng([4, trial]))].sum(axis=1) for trial in range(3)]
    return np.concatenate(loads).max(axis=0).astype(float)


def _deal(
    sizes: Int[np.ndarray, "structures 2"],
    count: int,
    capacity: Int[np.ndarray, "2"] | None,
    rng: np.random.Generator,
) -> Int[np.ndarray, "batches slots"]:
    """Deal structures to `count` batches of nearly equal work, within the capacity where possible.

    All batches hold equally many or one less; an empty slot is −1.
    """
    work = (sizes / np.maximum(sizes.mean(axis=0), 1e-9)).sum(axis=1)
    order = rng.permutation(len(sizes))
    hands = []
    per_batch = -(-len(sizes) // count)
    # Blanks (−1, no work) fill up, so that all batches have per_batch members or one less.
    slots, work = _spread_blanks(order, count, per_batch), np.append(work, 0.0)
    full = count // _WINDOW
    head = full * _WINDOW * per_batch
    for cards in (slots[:head].reshape(full, _WINDOW * per_batch), slots[head:].reshape(1, -1)):
        if cards.size:
            hands.append(_deal_layers(cards, work, per_batch))
    dealt = np.concatenate(hands)
    if capacity is not None:
        _mend(dealt, sizes, capacity)
    return dealt


def _deal_layers(
    cards: Int[np.ndarray, "windows cards"], work: Float[np.ndarray, "structures"], per_batch: int
) -> Int[np.ndarray, "batches slots"]:
    """In each window one card to all batches, the largest to the one with least work; then the next layer."""
    windows = len(cards)
    ranked = np.take_along_axis(cards, np.argsort(-work[cards], axis=1, kind="stable"), axis=1)
    layers = ranked.reshape(windows, per_batch, -1)
    load = np.zeros((windows, layers.shape[2]))
    hand = np.empty((windows, layers.shape[2], per_batch), np.int64)
    rows = np.arange(windows)[:, None]
    for layer in range(per_batch):
        least = np.argsort(load, axis=1, kind="stable")
        hand[rows, least, layer] = layers[:, layer]
        load[rows, least] += work[layers[:, layer]]
    return hand.reshape(-1, per_batch)


def _spread_blanks(order: Int[np.ndarray, "structures"], count: int, per_batch: int) -> Int[np.ndarray, "slots"]:
    """Insert blanks (−1) evenly, so that every window of batches has about as many."""
    blanks = count * per_batch - len(order)
    if not blanks:
        return order
    slots = np.empty(count * per_batch, np.int64)
    where = (np.arange(blanks) * len(slots)) // blanks
    is_blank = np.zeros(len(slots), bool)
    is_blank[where] = True
    slots[is_blank] = -1
    slots[~is_blank] = order
    return slots


def _mend(
    dealt: Int[np.ndarray, "batches slots"],
    sizes: Int[np.ndarray, "structures 2"],
    capacity: Int[np.ndarray, "2"],
) -> None:
    """Swap structures between a batch that overflows and ones with room, in place, until all fit or none can."""
    padded = np.concatenate([sizes, np.zeros((1, 2), np.int64)])
    load = padded[dealt].sum(axis=1)
    for batch_number in np.flatnonzero((load > capacity).any(axis=1)):
        for other in np.argsort((load / capacity).max(axis=1), kind="stable")[:64]:
            if not (load[batch_number] > capacity).any():
                break
            if other == batch_number:
                continue
            mine, theirs = padded[dealt[batch_number]], padded[dealt[other]]
            change = theirs[None] - mine[:, None]  # gain of this batch from swapping slot i for their slot j
            here = ((load[batch_number] + change) / capacity).max(axis=2)
            there = ((load[other] - change) / capacity).max(axis=2)
            here = np.where(there <= 1, here, np.inf)
            i, j = np.unravel_index(np.argmin(here), here.shape)
            if here[i, j] >= (load[batch_number] / capacity).max():
                continue
            dealt[batch_number, i], dealt[other, j] = dealt[other, j], dealt[batch_number, i]
            load[batch_number] += change[i, j]
            load[other] -= change[i, j]


def _by_size(sizes: Int[np.ndarray, "structures 2"], count: int) -> list[Int[np.ndarray, "members"]]:
    """Divide into at most `count` groups of neighbouring work, so that padding to the largest of each costs least."""
    work = (sizes / np.maximum(sizes.mean(axis=0), 1e-9)).sum(axis=1)
    order = np.argsort(work, kind="stable")
    if count == 1:
        return [np.sort(order)]
    ends = np.unique(np.linspace(0, len(order), min(len(order), 128) + 1).astype(int))
    highest = work[order[ends[1:] - 1]]
    # cost[k, i]: least padded work of the first i blocks in k groups.
    cost = np.full((count + 1, len(ends)), np.inf)
    back = np.zeros((count + 1, len(ends)), int)
    cost[0, 0] = 0
    for k in range(1, count + 1):
        for i in range(1, len(ends)):
            options = cost[k - 1, :i] + (ends[i] - ends[:i]) * highest[i - 1]
            back[k, i] = int(np.argmin(options))
            cost[k, i] = options[back[k, i]]
    k = int(np.argmin(cost[:, -1]))
    groups, i = [], len(ends) - 1
    while k > 0:
        groups.append(np.sort(order[ends[back[k, i]] : ends[i]]))
        i, k = back[k, i], k - 1
    return groups


def _enlarged(capacity: int, needed: int) -> int:
    """The capacity, or as many tenths of it more as are needed: few sizes, however many batches overflow."""
    if needed <= capacity:
        return capacity
    return _rounded(-(-capacity * (10 + -(-10 * (needed - capacity) // capacity)) // 10))


def _rounded(number: int) -> int:
    """Rounded up by at most 1.6 %, so that similar data sets share a capacity."""
    step = 1 << max(number.bit_length() - 7, 0)
    return -(-number // step) * step
