"""Sizes of batches from call to call: few of them, since each is a program to compile."""

from equiform.graph import Capacity


class GrowingCapacity:
    """A capacity for one structure after another, with hysteresis: few sizes, few compilations.

    It starts with exactly the atoms and a tenth more than the edges that are needed, leaves room for a
    quarter more whenever it is outgrown, and shrinks only when less than a third of it is in use. One graph
    slot is for padding.

    Args:
        headroom: Edges to start with, of those that are needed.
    """

    def __init__(self, headroom: float = 1.1) -> None:
        self._atoms, self._edges, self._latest, self._headroom = 0, 0, 0, headroom

    def fit(self, num_atoms: int, num_edges: int) -> Capacity:
        """The capacity to use for a structure of this size."""
        wasteful = 3 * num_atoms < self._atoms and 3 * num_edges < self._edges
        if not self._edges or wasteful:
            self._atoms, self._edges = num_atoms, int(self._headroom * num_edges) + 8
        elif num_atoms > self._atoms or num_edges > self._edges:
            # Where the number of atoms changes they get room as well, so that both grow with one compilation.
            if num_atoms != self._latest:
                self._atoms = max(self._atoms, int(1.25 * num_atoms))
            self._edges = max(self._edges, int(1.25 * num_edges) + 8)
        self._latest = num_atoms
        return Capacity(self._atoms, self._edges, 2)


class UsedCapacities:
    """The capacities of batches that were compiled, for calls again and again with nearly the same structures.

    A batch takes an earlier capacity that holds it and has at most a quarter more atoms and edges. If there is one that is
    too small by less than that, the new one has a tenth more edges, as the next call may need.
    """

    def __init__(self) -> None:
        self._used: list[Capacity] = []

    def fit(self, needed: Capacity) -> Capacity:
        """The capacity to use where this one is needed."""
        alike = [used for used in self._used if used.graphs == needed.graphs and _alike(used, needed)]
        holding = [used for used in alike if used.atoms >= needed.atoms and used.edges >= needed.edges]
        if holding:
            return min(holding)
        chosen = needed._replace(edges=int(1.1 * needed.edges) + 8) if alike else needed
        self._used.append(chosen)
        return chosen


def _alike(one: Capacity, other: Capacity) -> bool:
    return all(max(pair) <= 1.25 * min(pair) + 8 for pair in zip(one[:2], other[:2]))
