"""Dataset: structures as host graphs with interaction energies, and their statistics."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
from jaxtyping import Float, Int

from equiform.data.formats.values import Weights
from equiform.data.pipeline.source import GraphSource
from equiform.errors import UserError
from equiform.fields import Axis, Field, declarations, find_field
from equiform.graph import Graph
from equiform.neighbors import Labels, graph_from_atoms

if TYPE_CHECKING:
    import ase


class Dataset(Sequence[Graph]):
    """A sequence of host graphs with labels (NaN = not given), and their statistics for training.

    Labels are `graph_fields["energy"]` (interaction energy, eV), `node_fields["forces"]` (eV/Å) and
    `graph_fields["stress"]` (eV/Å³). `node_fields["tags"]` is there if all structures have tags.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        cutoff: float | None,
        *,
        fields: Sequence[Field] = (),
        quantity: str = "energy",
    ):
        """Graphs that a source builds on access are not kept.

        Args:
            graphs: The structures.
            cutoff: Å; None: every node sees every other one.
            fields: Declarations of fields that are not among the common ones (`equiform.fields.DECLARED`), or differ.
            quantity: The main label, which a model learns.
        """
        self._graphs = graphs if isinstance(graphs, GraphSource) else list(graphs)
        self.cutoff, self.fields, self.quantity = cutoff, tuple(fields), quantity

    def __len__(self) -> int:
        return len(self._graphs)

    @overload
    def __getitem__(self, index: int) -> Graph: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Graph | Dataset":
        if isinstance(index, slice):
            return Dataset(self._graphs[index], self.cutoff, fields=self.fields, quantity=self.quantity)
        return self._graphs[index]

    @property
    def declared(self) -> Mapping[tuple[Axis, str], Field]:
        """Declarations of all fields that the structures may have."""
        return declarations(*self.fields)

    @property
    def target(self) -> Field:
        """The declaration of the main label.

        Raises:
            UserError: It is not declared.
        """
        declared = self.declared
        axis: Axis = "graphs" if ("graphs", self.quantity) in declared else "atoms"
        return find_field(self.quantity, axis, declared)

    @property
    def source(self) -> GraphSource | None:
        """The source that builds the graphs on access, if there is one."""
        return self._graphs if isinstance(self._graphs, GraphSource) else None

    @property
    def noised(self) -> bool:
        """Whether training redraws the graphs in every epoch."""
        return isinstance(self._graphs, GraphSource) and self._graphs.noised

    def drawn(self, index: int, seed: int, epoch: int) -> Graph:
        """The graph to train on in an epoch; it differs from epoch to epoch only where the data are noised."""
        return self._graphs.drawn(index, seed, epoch) if isinstance(self._graphs, GraphSource) else self._graphs[index]

    def gathered(self, indices: Sequence[int], draw: tuple[int, int] | None = None) -> list[Graph]:
        """The graphs of a batch in order, some put together already; with a seed and an epoch, those to train on."""
        if isinstance(self._graphs, GraphSource):
            return self._graphs.gathered(indices, draw)
        return [self._graphs[index] for index in indices]

    def column(self, label: str) -> Float[np.ndarray, "structures"]:
        """A label per structure; NaN where not given."""
        if isinstance(self._graphs, GraphSource):
            return np.asarray(self._graphs.labels.get(label, np.full(len(self), np.nan)), np.float64)
        missing = [np.nan]
        return np.array([float(graph.graph_fields.get(label, missing)[0]) for graph in self._graphs])

    @cached_property
    def num_atoms(self) -> Int[np.ndarray, "structures"]:
        """Atoms of each structure."""
        if isinstance(self._graphs, GraphSource):
            return self._graphs.num_atoms
        return np.array([len(graph.species) for graph in self._graphs], np.int64)

    @cached_property
    def num_edges(self) -> Int[np.ndarray, "structures"]:
        """Directed edges of each structure."""
        if isinstance(self._graphs, GraphSource):
            return self._graphs.num_edges
        return np.array([len(graph.senders) for graph in self._graphs], np.int64)

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        if isinstance(self._graphs, GraphSource):
            return self._graphs.elements
        return tuple(sorted({int(z) for graph in self._graphs for z in np.unique(graph.species)}))

    @cached_property
    def energy(self) -> Float[np.ndarray, "structures"]:
        """Interaction energies, eV; NaN where not given."""
        return self.column("energy")

    def has_label(self, name: str) -> bool:
        """Whether any structure has a label of that name."""
        stored = self._graphs
        if isinstance(stored, GraphSource) and name not in stored.node_labels:
            return bool(np.isfinite(stored.labels.get(name, np.nan)).any())
        fields = (graph.graph_fields.get(name, graph.node_fields.get(name)) for graph in self._graphs)
        return any(field is not None and bool(np.isfinite(np.asarray(field)).any()) for field in fields)

    @cached_property
    def _forces(self) -> Float[np.ndarray, "atoms 3"]:
        return self._gathered("forces", "node_fields", (3,))

    @cached_property
    def _stress(self) -> Float[np.ndarray, "structures 3 3"]:
        return self._gathered("stress", "graph_fields", (3, 3))

    def _gathered(self, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        if not self.has_label(name):
            return np.zeros((0, *shape))
        return np.concatenate([getattr(graph, kind)[name] for graph in self._graphs])

    @property
    def has_stress(self) -> bool:
        """Whether any structure has a stress."""
        return bool(np.isfinite(self._stress).any())

    @property
    def energy_rms(self) -> float:
        """Root mean square over structures of interaction energy per atom about its mean, eV; NaN without energies."""
        per_atom = self.energy / np.maximum(self.num_atoms, 1)
        return float(np.sqrt(_mean((per_atom - _mean(per_atom)) ** 2)))

    @property
    def forces_rms(self) -> float:
        """Root mean square of the force components, eV/Å; NaN without forces."""
        return float(np.sqrt(_mean(self._forces**2)))


def dataset_from_labels(
    structures: "Sequence[ase.Atoms]",
    labels: Sequence[Labels],
    cutoff: float,
    reference_energies: Mapping[int, float],
    *,
    weights: Sequence[Weights] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Subtract reference energies from labels in eV, and build neighbour lists of structures in Å.

    Tags of the atoms are kept if all structures have them: batches with other fields would need another compilation.

    Args:
        structures: The structures.
        labels: Their labels, total energies.
        cutoff: Å.
        reference_energies: eV by atomic number; an empty mapping subtracts nothing.
        weights: Weight of each in the loss: `graph_fields` named `energy_weight` and so on, where any is not 1.
        progress: Progress callback `(done, total)` in structures.

    Raises:
        UserError: An element has no reference energy.
    """
    graphs = []
    weighted = [kind for kind in Weights._fields if weights and any(getattr(weight, kind) != 1 for weight in weights)]
    tags = all(atoms.has("tags") for atoms in structures)
    for number, (atoms, label) in enumerate(zip(structures, labels, strict=True)):
        if label.energy is not None:
            label = label._replace(energy=interaction_energy(atoms, label.energy, reference_energies))
        graph = graph_from_atoms(atoms, cutoff, labels=label, tags=tags)
        if weights is not None and weighted:
            own = {f"{kind}_weight": np.array([getattr(weights[number], kind)]) for kind in weighted}
            graph = graph.replace(graph_fields=graph.graph_fields | own)
        graphs.append(graph)
        if progress is not None:
            progress(number + 1, len(structures))
    return Dataset(graphs, cutoff)


def interaction_energy(atoms: "ase.Atoms", energy: float, reference_energies: Mapping[int, float]) -> float:
    """E − Σ E0, eV.

    Raises:
        UserError: An element has no reference energy.
    """
    if not reference_energies:
        return energy
    species, counts = np.unique(atoms.numbers, return_counts=True)
    unknown = [int(z) for z in species if int(z) not in reference_energies]
    if unknown:
        from ase.data import chemical_symbols

        names = ", ".join(chemical_symbols[z] for z in unknown)
        known = ", ".join(chemical_symbols[z] for z in sorted(reference_energies))
        raise UserError(f"no reference energy for {names}; there are those of {known}")
    return energy - float(sum(n * reference_energies[int(z)] for z, n in zip(species, counts)))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
