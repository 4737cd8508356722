"""Predictor: a trained model as a function of ASE structures.

This is where the reference energies come back: the model's interaction energies are float32 on the device,
the total energies float64 on the host. float64 predictions switch JAX's 64-bit mode on for the duration of a
call only.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.deploy.capacity import GrowingCapacity, UsedCapacities
from equiform.deploy.structures import check_overlap, check_structure, has_stress, name_of, symbols
from equiform.errors import UserError
from equiform.graph import Capacity, Graph, batch, to_device
from equiform.models.api import AttendingModel, DescribingModel
from equiform.runtime.compilation import jit
from equiform.runtime.processes import refuse_forked
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential

if TYPE_CHECKING:
    from ase import Atoms

Dtype = Literal["float32", "float64"]


class Prediction(NamedTuple):
    """Properties of one structure.

    Attributes:
        energy: Total energy with reference energies, eV.
        interaction_energy: The same without reference energies, eV.
        forces: (atoms, 3), eV/Å.
        stress: (3, 3), eV/Å³, positive under tension; None for a structure without a periodic cell.
    """

    energy: float
    interaction_energy: float
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "3 3"] | None


class Predictor:
    """Energies, forces and stresses of ASE structures.

    Each of `energy`, `forces`, `stress` takes one `Atoms` or a list of them (evaluated in batches) and
    returns one result or a list of them.

    Attributes:
        task: The model and what it gives, its weights in `dtype`.
        reference_energies: Energy of the isolated atom by atomic number, eV.
        metadata: Origin of the model, from its file.
        dtype: Of the computation.
        compilations: Number of programs compiled so far.
    """

    def __init__(
        self,
        task: Task,
        reference_energies: dict[int, float] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        dtype: Dtype = "float32",
    ):
        if dtype not in ("float32", "float64"):
            raise UserError(f"dtype must be float32 or float64, not {dtype!r}")
        self.dtype: Dtype = dtype
        self.reference_energies = dict(reference_energies or {})
        self.metadata = dict(metadata or {})
        self.compilations = 0
        self._capacity, self._batch_capacities = GrowingCapacity(), UsedCapacities()
        with self.precision():
            self.task = _cast(task, np.dtype(dtype))

    @property
    def cutoff(self) -> float:
        """The model's cutoff, Å.

        Raises:
            UserError: It has none, as with models of simulated particles.
        """
        cutoff = self.task.model.traits.cutoff
        if cutoff is None:
            raise UserError(f"{type(self.task.model).__name__} models have no cutoff; they are for simulated particles")
        return cutoff

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return self.task.known_elements

    @property
    def potential(self) -> Potential:
        """The model as a potential.

        Raises:
            UserError: It does not give energies and forces.
        """
        if not isinstance(self.task, Potential):
            given = ", ".join(f"{t.name} ({t.unit})" if t.unit else t.name for t in self.task.targets)
            raise UserError(f"this is a model of the {self.task.kind} task: it gives {given}, not energies and forces")
        return self.task

    def require_energy(self) -> None:
        """Refuse a model that does not give energies and forces.

        Raises:
            UserError: See `potential`.
        """
        _ = self.potential

    def with_own_capacity(self, headroom: float = 1.1) -> "Predictor":
        """The same model with its own capacity and count of compilations; nothing is copied.

        Args:
            headroom: See `GrowingCapacity`.
        """
        other = copy(self)
        other._capacity, other._batch_capacities = GrowingCapacity(headroom), UsedCapacities()
        other.compilations = 0
        return other

    def precision(self) -> AbstractContextManager[Any]:
        """JAX's 64-bit mode as this predictor needs it, for the duration of a `with` block.

        Raises:
            UserError: In a process that was forked after JAX had started.
        """
        refuse_forked()
        return jax.enable_x64(self.dtype == "float64")

    @overload
    def energy(self, atoms: "Atoms") -> float: ...
    @overload
    def energy(self, atoms: "Sequence[Atoms]") -> list[float]: ...
    def energy(self, atoms: "Atoms | Sequence[Atoms]") -> float | list[float]:
        """Total energy, eV."""
        return self._each(atoms, lambda prediction: prediction.energy)

    @overload
    def forces(self, atoms: "Atoms") -> np.ndarray: ...
    @overload
    def forces(self, atoms: "Sequence[Atoms]") -> list[np.ndarray]: ...
    def forces(self, atoms: "Atoms | Sequence[Atoms]") -> np.ndarray | list[np.ndarray]:
        """Forces (atoms, 3), eV/Å."""
        return self._each(atoms, lambda prediction: prediction.forces)

    @overload
    def stress(self, atoms: "Atoms") -> np.ndarray: ...
    @overload
    def stress(self, atoms: "Sequence[Atoms]") -> list[np.ndarray]: ...
    def stress(self, atoms: "Atoms | Sequence[Atoms]") -> np.ndarray | list[np.ndarray]:
        """Stress (3, 3), eV/Å³, positive under tension.

        Raises:
            UserError: A structure has no periodic cell.
        """
        for index, structure in enumerate(_as_list(atoms)):
            if not has_stress(structure):
                raise UserError(f"{name_of(structure, index)} has no periodic cell, so it has no stress")
        return self._each(atoms, lambda prediction: prediction.stress)

    @overload
    def predict(self, structures: "Atoms") -> Prediction: ...
    @overload
    def predict(
        self,
        structures: "Sequence[Atoms]",
        *,
        batch_size: int = 32,
        names: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]: ...
    def predict(
        self,
        structures: "Atoms | Sequence[Atoms]",
        *,
        batch_size: int = 32,
        names: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction | list[Prediction]:
        """Evaluate one structure, or many in batches.

        Args:
            structures: One structure or many.
            batch_size: Number of structures of mean size per batch; of large ones fewer fit.
            names: Their names in messages; by default their place in the list.
            progress: Progress callback `(done, total)` in structures.

        Returns:
            One prediction per structure, in their order; of one structure its prediction.

        Raises:
            UserError: A structure has elements that the model does not know, overlapping atoms, numbers that
                are not finite, or a periodic direction without a cell vector; or the model's answer is not
                finite.
        """
        if not isinstance(structures, Sequence):
            return self.predict_one(structures)
        self.require_energy()
        structures = list(structures)
        results: list[Prediction | None] = [None] * len(structures)
        done = 0
        for indices, predictions in self._batches(structures, batch_size, names):
            for index, prediction in zip(indices, predictions):
                results[index] = prediction
            done += len(indices)
            if progress is not None:
                progress(done, len(structures))
        return [result for result in results if result is not None]

    def scalars(
        self,
        structures: "Sequence[Atoms]",
        *,
        batch_size: int = 32,
        names: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """The task's main target, in its unit, of each structure: the energy or another property.

        Args: see `predict`.

        Raises:
            UserError: See `predict`.
        """
        structures = list(structures)
        called = names or [f"structure {index}" for index in range(len(structures))]
        graphs = [self.graph(atoms, name) for atoms, name in zip(structures, called)]
        results, done = np.zeros(len(structures)), 0
        for members, capacity in _packed(graphs, batch_size) if graphs else []:
            with self.precision():
                device = to_device(
                    batch([graphs[member] for member in members], self._batch_capacities.fit(capacity)), jnp.dtype(self.dtype)
                )
                values = np.asarray(_scalars(self.task, device), np.float64)[: len(members)]
            for member, value in zip(members, values):
                if not np.isfinite(value):
                    name = name_of(structures[member], called[member])
                    raise UserError(f"the model's {self.task.quantity} for {name} is not finite")
                results[member] = value + self.reference_energy(structures[member])
            done += len(members)
            if progress is not None:
                progress(done, len(structures))
        return results.tolist()

    def predict_one(self, atoms: "Atoms") -> Prediction:
        """Evaluate one structure, in a capacity that grows with hysteresis from call to call."""
        self.require_energy()
        graph = self.graph(atoms)
        capacity = self._capacity.fit(graph.capacity.atoms, graph.capacity.edges)
        return self._evaluate([graph], [atoms], [None], capacity)[0]

    def graph(self, atoms: "Atoms", index: int | str | None = None) -> Graph:
        """The host graph of a structure, after the checks that `predict` documents.

        Args:
            atoms: The structure.
            index: Its place in a list or its name, for messages.
        """
        from equiform.neighbors import graph_from_atoms

        check_structure(atoms, self.task, index)
        graph = graph_from_atoms(atoms, self.cutoff, tags=self.task.model.traits.num_tags > 0)
        check_overlap(atoms, graph, index)
        return graph

    def reference_energy(self, atoms: "Atoms") -> float:
        """Σ E0 of the structure's atoms, eV; zero for a model without reference energies."""
        if not self.reference_energies:
            return 0.0
        missing = sorted(set(atoms.numbers.tolist()) - set(self.reference_energies))
        if missing:
            raise UserError(f"the model has no reference energy for {symbols(missing)}")
        return float(sum(self.reference_energies[number] for number in atoms.numbers.tolist()))

    def descriptors(self, atoms: "Atoms") -> np.ndarray:
        """Invariant features of every atom, (atoms, features), in front of the readout.

        Raises:
            UserError: The model does not expose any.
        """
        model = self.task.model
        if not isinstance(model, DescribingModel):
            raise UserError(f"{type(model).__name__} models do not expose descriptors")
        return np.asarray(self._ask(model.descriptors, atoms)[1])

    def attention(self, atoms: "Atoms") -> dict[str, Any]:
        """Attention weights, with the edges that they belong to.

        Returns:
            `senders`, `receivers` (edges) and `shifts` (edges, 3), and `weights` as the model gives them.

        Raises:
            UserError: The model does not expose any.
        """
        model = self.task.model
        if not isinstance(model, AttendingModel):
            raise UserError(f"{type(model).__name__} models do not expose attention weights")
        graph, weights = self._ask(model.attention, atoms)
        return {
            "senders": np.asarray(graph.senders),
            "receivers": np.asarray(graph.receivers),
            "shifts": np.asarray(graph.shifts),
            "weights": jax.tree.map(np.asarray, weights),
        }

    def _ask(self, method: Callable[[Graph], Any], atoms: "Atoms") -> tuple[Graph, Any]:
        # Not padded: the answer then has exactly one row per atom or edge.
        graph = self.graph(atoms)
        with self.precision():
            return graph, jit(method)(to_device(graph, jnp.dtype(self.dtype)))

    def energies(self, atoms: "Atoms") -> np.ndarray:
        """Energy of every atom, eV, its reference energy included; their sum is the total energy.

        A model divides the energy among atoms as it likes: only the sum is a physical quantity.

        Raises:
            UserError: The model has one energy per structure only.
        """
        readout = self.potential.model.traits.scalar
        if readout is None or readout.axis != "atoms":
            raise UserError(f"{type(self.task.model).__name__} has one energy per structure, none per atom")
        graph = self.graph(atoms)
        capacity = self._capacity.fit(graph.capacity.atoms, graph.capacity.edges)
        with self.precision():
            device = to_device(batch([graph], capacity), jnp.dtype(self.dtype))
            values = np.asarray(_atomic_energies(self.potential, device), np.float64)[: len(atoms)]
        references = [self.reference_energies.get(number, 0.0) for number in atoms.numbers.tolist()]
        return values + self.potential.shift / max(len(atoms), 1) + np.array(references)

    def _each(self, atoms: "Atoms | Sequence[Atoms]", pick: Callable[[Prediction], Any]) -> Any:
        if isinstance(atoms, Sequence):
            return [pick(prediction) for prediction in self.predict(atoms)]
        return pick(self.predict_one(atoms))

    def _batches(
        self, structures: "list[Atoms]", batch_size: int, names: Sequence[str] | None
    ) -> Iterator[tuple[list[int], list[Prediction]]]:
        """Structures with and without stress go into batches of their own: they are different programs."""
        called = names or [f"structure {index}" for index in range(len(structures))]
        for stressed in (False, True):
            indices = [i for i, atoms in enumerate(structures) if has_stress(atoms) == stressed]
            if not indices:
                continue
            graphs = [self.graph(structures[i], called[i]) for i in indices]
            for members, capacity in _packed(graphs, batch_size):
                chosen = [indices[member] for member in members]
                yield (
                    chosen,
                    self._evaluate(
                        [graphs[member] for member in members],
                        [structures[i] for i in chosen],
                        [called[i] for i in chosen],
                        self._batch_capacities.fit(capacity),
                    ),
                )

    def _evaluate(
        self,
        graphs: list[Graph],
        structures: "list[Atoms]",
        indices: Sequence[str | None],
        capacity: Capacity,
    ) -> list[Prediction]:
        stressed = has_stress(structures[0])
        before = _traces
        with self.precision():
            device = to_device(batch(graphs, capacity), jnp.dtype(self.dtype))
            result = jax.tree.map(np.asarray, _compute(self.potential, device, stressed))
        self.compilations += _traces - before
        starts = np.cumsum([0] + [graph.capacity.atoms for graph in graphs])
        predictions = []
        for slot, (atoms, index) in enumerate(zip(structures, indices)):
            energy = float(result["energy"][slot])
            forces = result["forces"][starts[slot] : starts[slot + 1]].astype(np.float64)
            if not (np.isfinite(energy) and np.isfinite(forces).all()):
                raise UserError(
                    f"the model's energy or forces for {name_of(atoms, index)} are not finite: the structure is far outside "
                    "of what the model can describe"
                )
            stress = result["stress"][slot].astype(np.float64) if stressed else None
            predictions.append(Prediction(energy + self.reference_energy(atoms), energy, forces, stress))
        return predictions


def load(path: str | Path, dtype: Dtype = "float32") -> Predictor:
    """Load a trained model.

    Args:
        path: The model's folder, or a run folder (its best model).
        dtype: Precision of the computation: "float32" or "float64".
    """
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model

    loaded = load_model(find_model(Path(path)))
    return Predictor(loaded.task, loaded.reference_energies, loaded.metadata, dtype=dtype)


_traces = 0


@jit
def _compute(potential: Potential, graph: Graph, stress: bool) -> dict[str, Array]:
    global _traces
    _traces += 1
    result = potential(graph, forces=True, stress=stress)
    return {name: result[name] for name in ("energy", "forces", "stress") if name in result}


@jit
def _atomic_energies(potential: Potential, graph: Graph) -> Array:
    return potential.outputs(graph)["energy"]


@jit
def _scalars(task: Task, graph: Graph) -> Array:
    return task.predict(graph, (task.quantity,))[task.quantity]


def _cast(task: Task, dtype: np.dtype) -> Task:
    """The task with its floating-point arrays as `dtype`, and without 64-bit integers in 32-bit mode."""

    def cast(leaf: Any) -> Any:
        if not eqx.is_array_like(leaf) or not hasattr(leaf, "dtype"):
            return leaf
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.asarray(leaf).astype(dtype))
        if leaf.dtype == np.int64 and dtype == np.float32:
            return jnp.asarray(np.asarray(leaf).astype(np.int32))
        return leaf

    return jax.tree.map(cast, task)


def _packed(graphs: list[Graph], batch_size: int) -> list[tuple[list[int], Capacity]]:
    from equiform.data.pipeline.batching import EDGE_BUDGET, plan_epoch

    num_edges = np.array([graph.capacity.edges for graph in graphs])
    plan = plan_epoch(
        np.array([graph.capacity.atoms for graph in graphs]),
        num_edges,
        batch_size=min(batch_size, len(graphs)),
        edge_budget=max(EDGE_BUDGET, int(num_edges.max())),
        seed=0,
        epoch=0,
        shuffle=False,
    )
    return [([int(i) for i in planned.indices], planned.capacity) for planned in plan]


def _as_list(atoms: "Atoms | Sequence[Atoms]") -> "Sequence[Atoms]":
    return atoms if isinstance(atoms, Sequence) else [atoms]
