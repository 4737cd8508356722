"""Potential, the energy task: per-atom energies of a model → energy, forces and stress of a structure.

The energies here are *interaction* energies, E − Σ_i E0(Z_i): reference energies of thousands of eV would cost 1e-4 eV
of precision in float32, so they are added on the host in float64 (`equiform.deploy.predictor`) and subtracted from the
labels before training (`equiform.data`).
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.edges import forces_from_edges, make_edges, motion_of_edges, virial_from_edges
from equiform.fields import DECLARED, find_field
from equiform.graph import Graph
from equiform.models.api import Model
from equiform.tasks.api import Target, Task, scaled

_ENERGY, _STRESS = find_field("energy", "graphs"), find_field("stress", "graphs")
_FORCES = find_field("forces", "atoms")


class Potential(Task):
    """A model with its energy scale and conventions.

    E = scale · Σ_i (e_i − e_isolated(Z_i)) + shift, the subtraction only if `anchored`: then the energy of an isolated
    atom is exactly its reference energy. Conservative: forces are −∂E/∂positions, stress is ∂E/∂ε / volume.

    With `cohesion` each atom that has neighbours also has a constant energy, so that the model need not learn several eV of
    binding from scratch: Σ_i c(Z_i) (1 − exp(−2 n_i)), n_i = Σ_j φ(d_ij / cutoff) with the smooth envelope φ. It is zero for
    an isolated atom, smooth through the cutoff, and saturates once an atom has a few neighbours.

    Attributes:
        model: The model.
        scale: eV per unit of the model's energy output.
        shift: eV per structure, added to the total (the reference's mean of the energies).
        elements: Atomic numbers whose isolated-atom output is subtracted.
        anchored: Whether to subtract it.
        cohesion: c, eV, for each of `elements`; empty: none. Only with `anchored`.
        scales: Unit of each further readout of the model, by name.
    """

    model: Model
    scale: float = eqx.field(static=True, default=1.0)
    shift: float = eqx.field(static=True, default=0.0)
    elements: tuple[int, ...] = eqx.field(static=True, default=())
    anchored: bool = eqx.field(static=True, default=False)
    cohesion: tuple[float, ...] = eqx.field(static=True, default=())
    scales: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())
    kind: ClassVar[str] = "energy"

    def __check_init__(self) -> None:
        if not self.model.traits.has_energy:
            given = ", ".join(field.name for field in self.model.traits.outputs)
            raise ValueError(f"{type(self.model).__name__} predicts no energy, so it is not a potential; it predicts {given}")

    @property
    def targets(self) -> tuple[Target, ...]:
        """Energy, forces, stress, and the model's further readouts."""
        others = (field for field in self.model.traits.outputs if field != self.model.traits.scalar)
        rest = (Target(DECLARED.get((field.axis, field.name), field)) for field in others)
        return (Target(_ENERGY, per_atom=True), Target(_FORCES), Target(_STRESS), *rest)

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers for which predictions can be made; for an anchored potential, those it is anchored for."""
        return self.elements if self.anchored else self.model.traits.elements

    def predict(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy, and forces and stress if requested; see `__call__`."""
        return self(graph, forces="forces" in wanted, stress="stress" in wanted, key=key)

    def settings(self) -> dict[str, Any]:
        """Scale, shift, elements, anchoring, cohesion and scales."""
        return {
            "scale": float(self.scale),
            "shift": float(self.shift),
            "elements": [int(element) for element in self.elements],
            "anchored": bool(self.anchored),
            "cohesion": [float(energy) for energy in self.cohesion],
            "scales": {name: float(factor) for name, factor in self.scales},
        }

    @classmethod
    def from_settings(cls, model: Model, settings: Mapping[str, Any]) -> "Potential":
        """The task with these settings."""
        return cls(
            model,
            scale=float(settings["scale"]),
            shift=float(settings["shift"]),
            elements=tuple(int(element) for element in settings["elements"]),
            anchored=bool(settings["anchored"]),
            cohesion=tuple(float(energy) for energy in settings["cohesion"]),
            scales=tuple((str(name), float(factor)) for name, factor in settings["scales"].items()),
        )

    @property
    def by_edges(self) -> bool:
        """Whether forces and stress are taken with respect to edge vectors: for models that read nothing else of positions."""
        return self.model.traits.edges_only

    def outputs(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Outputs of the model, with the energy (per atom, or per structure if the model pools) in eV and anchored."""
        if not self.anchored:
            outputs = dict(self.model(graph, key=key))
            return scaled(outputs | {"energy": self.scale * outputs["energy"]}, self.scales)
        sizes = {"atoms": graph.species.shape[0], "graphs": graph.graph_mask.shape[0]}
        outputs = self.model(_with_isolated_atoms(graph, self.elements), key=key)
        axes = {field.name: field.axis for field in self.model.traits.outputs}
        isolated = outputs["energy"][sizes[axes["energy"]] :]
        own = graph.species[:, None] == jnp.asarray(self.elements, graph.species.dtype)[None]  # atoms elements

        def of_species(values: Array) -> Float[Array, "atoms"]:
            # As a sum: the derivative of a gather would scatter every atom into a few addresses.
            return jnp.where(own, values[None], 0).sum(axis=1)

        readouts = {name: values[: sizes[axes[name]]] for name, values in outputs.items()}
        if axes["energy"] == "graphs":
            readouts["energy"] = self.scale * (readouts["energy"] - graph.sum_over_atoms(of_species(isolated)))
            return scaled(readouts, self.scales)
        readouts["energy"] = self.scale * (readouts["energy"] - of_species(isolated))
        if any(self.cohesion):
            cohesion = of_species(jnp.asarray(self.cohesion, readouts["energy"].dtype))
            readouts["energy"] += cohesion * self._boundness(graph)
        return scaled(readouts, self.scales)

    def _boundness(self, graph: Graph) -> Float[Array, "atoms"]:
        """1 − exp(−2 n), n the number of neighbours of an atom, each weighted by its envelope."""
        edges = make_edges(graph, self.model.traits.edge_cutoff, "smooth", zero_length=False)
        return -jnp.expm1(-2 * edges.sum_at_receivers(edges.weight))

    def __call__(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Array]:
        """Properties of every structure of a batch.

        Args:
            graph: The batch.
            forces: Also return forces.
            stress: Also return the stress; it needs cells of non-zero volume (zero is returned where there is none).
            key: PRNG key for dropout; None means evaluation.

        Returns:
            `energy` (graphs) in eV, without reference energies; `forces` (atoms, 3) in eV/Å; `stress` (graphs, 3, 3)
            in eV/Å³, positive under tension; every other readout of the model on the axis that its traits declare.
        """
        if not (forces or stress):
            return self._total(graph, key)[1]

        point, graph_at = self._coordinates(graph, stress)

        def energy_of(point: tuple[Array, ...]) -> tuple[Array, dict[str, Array]]:
            return self._energy(graph_at(*point), key)

        slopes, result = jax.grad(energy_of, has_aux=True)(point)
        if forces:
            force = forces_from_edges(slopes[0], graph) if self.by_edges else -slopes[0]
            result["forces"] = jnp.where(graph.atom_mask[:, None], force, 0)
        if stress:
            result["stress"] = _inverse_volume(graph) * (virial_from_edges(slopes[0], graph) if self.by_edges else slopes[1])
        return result

    def for_training(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The same values as `predict`, with a cheaper derivative with respect to the parameters only.

        A loss L(E, F, σ) has the parameter gradient of the scalar Σ L_E E + v·∂E/∂(x, ε) with v = (−L_F, L_σ / volume) held
        fixed: a forward-over-reverse derivative in the direction v instead of reverse over reverse.
        """
        forces, stress = "forces" in wanted, "stress" in wanted
        if not (forces or stress):
            return self._total(graph, key)[1]
        return _for_training(self, graph, key, forces, stress)

    def _coordinates(self, graph: Graph, stress: bool) -> tuple[tuple[Array, ...], Callable[..., Graph]]:
        """The variables that energies are differentiated by, and the graph as a function of them.

        Edge vectors, if the model reads nothing else: their derivatives with respect to positions and strain are then plain
        sums, not a scatter of every edge into its cell. Otherwise positions, and for the stress a symmetric strain that
        deforms positions and cell.
        """
        if self.by_edges:
            return (jnp.asarray(graph.edge_vectors()),), lambda vectors: graph.replace(vectors=vectors)
        if graph.vectors is not None:
            raise ValueError("this model reads positions, so there are no forces for a graph with given edge vectors")

        def moved(positions: Array, strain: Array | None = None) -> Graph:
            if strain is None:
                return graph.replace(positions=positions)
            deform = jnp.eye(3, dtype=positions.dtype)[None] + 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
            strained = jnp.einsum("ai,aij->aj", positions, deform[graph.graph_index])
            return graph.replace(positions=strained, cell=graph.cell @ deform)

        positions = jnp.asarray(graph.positions)
        return (positions, jnp.zeros_like(graph.cell)) if stress else (positions,), moved

    def _energy(self, graph: Graph, key: PRNGKeyArray | None) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The total energy, which forces are derivatives of, and all readouts."""
        return self._total(graph, key)

    def _total(self, graph: Graph, key: PRNGKeyArray | None) -> tuple[Float[Array, ""], dict[str, Array]]:
        outputs = self.outputs(graph, key=key)
        energy, readout = outputs.pop("energy"), self.model.traits.scalar
        if readout is not None and readout.axis == "atoms":
            energy = graph.sum_over_atoms(energy)
        energy = jnp.where(graph.graph_mask, energy + self.shift, 0)
        return energy.sum(), {"energy": energy, **outputs}


@eqx.filter_custom_vjp
def _for_training(potential: Potential, graph: Graph, key: PRNGKeyArray | None, forces: bool, stress: bool) -> dict[str, Array]:
    return potential(graph, forces=forces, stress=stress, key=key)


@_for_training.def_fwd
def _forward(perturbed: Any, potential: Potential, graph: Graph, key: Any, forces: bool, stress: bool) -> tuple[Any, None]:
    del perturbed
    return potential(graph, forces=forces, stress=stress, key=key), None


@_for_training.def_bwd
def _backward(
    residuals: None,
    cotangents: dict[str, Any],  # None where the loss does not depend on an output
    perturbed: Any,
    potential: Potential,
    graph: Graph,
    key: Any,
    forces: bool,
    stress: bool,
) -> Potential:
    del residuals, perturbed
    motion, strain = jnp.zeros_like(graph.positions), jnp.zeros_like(graph.cell)
    if cotangents.get("forces") is not None:
        motion = jnp.where(graph.atom_mask[:, None], -cotangents["forces"], 0)
    if cotangents.get("stress") is not None:
        strain = _inverse_volume(graph) * cotangents["stress"]
    direction = (motion_of_edges(motion, strain, graph),) if potential.by_edges else (motion, strain)[: 1 + stress]
    weights = {k: v for k, v in cotangents.items() if k not in ("forces", "stress") and v is not None}
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)
    point, graph_at = potential._coordinates(graph, stress)

    def slope(point: tuple[Array, ...], weights: dict[str, Array]) -> Any:
        """The gradient of Σ E + Σ weights · readouts with respect to the parameters."""

        def scalar(arrays: Any) -> Array:
            total, result = eqx.combine(arrays, static)._energy(graph_at(*point), key)
            return total + sum((weights[name] * result[name]).sum() for name in weights)

        return jax.grad(scalar)(arrays)

    return jax.jvp(slope, (point, jax.tree.map(jnp.zeros_like, weights)), (direction, weights))[1]


def _inverse_volume(graph: Graph) -> Float[Array, "graphs 1 1"]:
    """1 / volume, zero where there is no cell."""
    volume = jnp.abs(jnp.linalg.det(graph.cell))[:, None, None]
    return jnp.where(volume > 0, 1 / jnp.where(volume > 0, volume, 1), 0)


def _with_isolated_atoms(graph: Graph, elements: tuple[int, ...]) -> Graph:
    """Append one isolated atom per element, each in its own graph slot."""
    count, slots = len(elements), graph.graph_mask.shape[0]

    def extend(array: Any, rows: int, fill: Any = 0) -> Array:
        return jnp.concatenate([array, jnp.full((rows, *array.shape[1:]), fill, array.dtype)])

    index = jnp.arange(slots, slots + count, dtype=graph.graph_index.dtype)

    return Graph(
        positions=extend(graph.positions, count),
        species=jnp.concatenate([graph.species, jnp.asarray(elements, graph.species.dtype)]),
        senders=jnp.asarray(graph.senders),
        receivers=jnp.asarray(graph.receivers),
        shifts=jnp.asarray(graph.shifts),
        cell=extend(graph.cell, count),
        graph_index=jnp.concatenate([graph.graph_index, index]),
        atom_mask=extend(graph.atom_mask, count, True),
        edge_mask=jnp.asarray(graph.edge_mask),
        graph_mask=extend(graph.graph_mask, count, True),
        node_fields={name: extend(value, count) for name, value in graph.node_fields.items()},
        graph_fields={name: extend(value, count) for name, value in graph.graph_fields.items()},
        vectors=graph.vectors,
    )
