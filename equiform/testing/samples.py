"""Random inputs for a task's model, and its compiled outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from equiform.fields import Field
from equiform.graph import Capacity, Graph, batch, fully_connected_edges, make_graph, to_device
from equiform.neighbors import neighbor_list
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential


@dataclass(frozen=True)
class Check:
    """One check of the suite.

    Attributes:
        function: Raises `AssertionError` with the measured error.
        applies: Whether it applies to a task, by its traits.
    """

    function: Callable[[Any], None]
    applies: Callable[[Task], bool]

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__


def is_potential(task: Task) -> bool:
    """Whether the task has energies and forces."""
    return isinstance(task, Potential)


def always(task: Task) -> bool:
    """True for every task."""
    return True


def elements_of(task: Task) -> np.ndarray:
    """Some elements that the model knows, hydrogen to oxygen where it can; 0 for nodes without a type."""
    known = [z for z in task.model.traits.elements if z > 0]
    return np.array([z for z in (1, 6, 8, 7) if z in known] or known[:4] or [0])


def molecule(task: Task, num_atoms: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Å) and species of a random compact molecule of the model's elements, no two atoms closer than 0.9 Å."""
    rng = np.random.default_rng(seed)
    species = rng.choice(elements_of(task), num_atoms)
    positions: list[np.ndarray] = []
    while len(positions) < num_atoms:
        trial = rng.normal(size=3) * 1.6
        if all(np.linalg.norm(trial - other) > 0.9 for other in positions):
            positions.append(trial)
    return np.array(positions), species


def node_fields(task: Task, num_atoms: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values of the fields that the model needs; tags cycle through their values."""
    rng, traits = np.random.default_rng([seed, 5]), task.model.traits
    fields: dict[str, np.ndarray] = {}
    for field in traits.needs:
        if field.name == "tags":
            fields["tags"] = np.arange(num_atoms) % traits.num_tags
        else:
            fields[field.name] = rng.normal(size=(num_atoms, *(field.shape or ())))
    return fields


def graph_of(
    task: Task,
    positions: np.ndarray,
    species: np.ndarray,
    cell: np.ndarray | None = None,
    *,
    fields: dict[str, np.ndarray] | None = None,
) -> Graph:
    """A host graph with the model's cutoff (fully connected without one); periodic if a cell is given.

    Args:
        task: The task.
        positions: Å.
        species: Atomic numbers.
        cell: Å, rows.
        fields: Node fields; None: those of `node_fields`.
    """
    fields = node_fields(task, len(species)) if fields is None else fields
    cutoff = task.model.traits.cutoff
    if cutoff is None:
        return make_graph(positions, species, *fully_connected_edges(len(species)), node_fields=fields)
    box, periodic = np.zeros((3, 3)) if cell is None else cell, np.full(3, cell is not None)
    senders, receivers, shifts = neighbor_list(positions, box, periodic, cutoff)
    return make_graph(positions, species, senders, receivers, shifts=shifts, cell=cell, node_fields=fields)


def sample(task: Task, num_atoms: int = 7, seed: int = 0) -> Graph:
    """The host graph of a random molecule, or of random particles."""
    positions, species = molecule(task, num_atoms, seed)
    return graph_of(task, positions, species, fields=node_fields(task, num_atoms, seed))


def evaluate(task: Task, graph: Graph, *, stress: bool = False) -> dict[str, np.ndarray]:
    """Compiled outputs of a host graph, in the precision of the model's parameters.

    The graph is padded to a common capacity, so that all checks share a compiled program.
    """
    size = graph.capacity
    capacity = Capacity(max(16, size.atoms), max(192, size.edges), max(4, size.graphs))
    results = _compiled(task, to_device(batch([graph], capacity), precision(task)), stress)
    sizes = {"atoms": size.atoms, "graphs": size.graphs}
    return {name: np.asarray(value)[: sizes[task.target(name).field.axis]] for name, value in results.items()}


@eqx.filter_jit
def _compiled(task: Task, graph: Graph, stress: bool) -> dict[str, jax.Array]:
    wanted = [target.name for target in task.targets if target.name != "stress" or stress]
    return task.predict(graph, wanted)


def fields_of(task: Task, results: dict[str, np.ndarray]) -> dict[str, Field]:
    """The declarations of the evaluated targets."""
    return {name: task.target(name).field for name in results}


def precision(task: Task) -> np.dtype:
    """The precision of the model's parameters; float64 without any."""
    leaves = (leaf.dtype for leaf in jax.tree.leaves(task) if eqx.is_inexact_array(leaf))
    return np.dtype(next(leaves, np.dtype(np.float64)))


def single(task: Task) -> Task:
    """The task with its parameters in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(np.float32) if eqx.is_inexact_array(leaf) else leaf, task)


def close(got: Any, expected: Any, tolerance: float, what: str) -> None:
    """Assert that two arrays differ by no more than a tolerance anywhere."""
    error = np.abs(np.asarray(got) - np.asarray(expected)).max()
    assert error <= tolerance, f"{what}: differs by {error:.2e}, allowed {tolerance:.0e}"
