"""Potential: per-atom model outputs → energy, forces, stress and other properties of a structure.

The energies here are *interaction* energies, E − Σ_i E0(Z_i): reference energies of thousands of eV would cost 1e-4 eV
of every float32 energy, so they are added on the host in float64 (`equiform.deploy.predictor`) and subtracted from the
labels before training (`equiform.data`).
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.so3.rotations import safe_unit
from equiform.graph import Graph
from equiform.nn.radial import polynomial_envelope


@runtime_checkable
class Model(Protocol):
    """What a potential asks of a model.

    Called with a graph it returns arrays per atom: `"energy"` (atoms) and whatever other readouts it has (scalars
    (atoms) or vectors (atoms, 3)). `key` switches dropout on; None means evaluation.
    """

    @property
    def config(self) -> Any: ...

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]: ...


class Potential(eqx.Module):
    """A model with its energy scale and conventions.

    E = scale · Σ_i (e_i − e_isolated(Z_i)) + shift, the subtraction only if `anchored`: then the energy of an isolated
    atom is exactly its reference energy. Conservative: forces are −∂E/∂positions, stress is ∂E/∂ε / volume.

    With `cohesion` each atom that has neighbours also has a constant energy, so that the model need not learn several eV of
    binding from nothing: Σ_i c(Z_i) (1 − exp(−2 n_i)), n_i = Σ_j φ(d_ij / cutoff) with the smooth envelope φ. It is zero for
    an isolated atom, smooth through the cutoff, and flat where an atom has a few neighbours.

    Attributes:
        model: The model.
        scale: eV per unit of the model's energy output.
        shift: eV per structure, added to the total (the reference's mean of the energies).
        elements: Atomic numbers whose isolated-atom output is subtracted.
        anchored: Whether it is subtracted.
        cohesion: c, eV, for each of `elements`; empty: none. Only with `anchored`.
        quantity: What the sum of the model's scalar readout stands for: the energy, or another property of a structure
            (`alpha`, `gap`, …), under whose name it is returned; it has then no forces. A model without a scalar readout
            gives its other readouts only (an N-body model: a vector per particle).
        unit: Of the quantity; where it is not eV, read eV in this docstring as that unit.
        scales: What one unit of each further readout of the model is worth, by name.
    """

    model: Model
    scale: float = eqx.field(static=True, default=1.0)
    shift: float = eqx.field(static=True, default=0.0)
    elements: tuple[int, ...] = eqx.field(static=True, default=())
    anchored: bool = eqx.field(static=True, default=False)
    cohesion: tuple[float, ...] = eqx.field(static=True, default=())
    quantity: str = eqx.field(static=True, default="energy")
    unit: str = eqx.field(static=True, default="eV")
    scales: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    def outputs(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Per-atom outputs of the model, the energy scaled (eV) and anchored."""
        if not self.anchored:
            outputs = dict(self.model(graph, key=key))
            if "energy" in outputs:
                outputs["energy"] = self.scale * outputs["energy"]
            return self._scaled(outputs)
        num_atoms = graph.species.shape[0]
        outputs = self.model(_with_isolated_atoms(graph, self.elements), key=key)
        isolated = outputs["energy"][num_atoms:]
        which = jnp.searchsorted(jnp.asarray(self.elements, graph.species.dtype), graph.species)
        kept = {name: values[:num_atoms] for name, values in outputs.items()}
        kept["energy"] = self.scale * (kept["energy"] - isolated[which])
        if any(self.cohesion):
            kept["energy"] += jnp.asarray(self.cohesion, kept["energy"].dtype)[which] * self._boundness(graph)
        return self._scaled(kept)

    def _boundness(self, graph: Graph) -> Float[Array, "atoms"]:
        """1 − exp(−2 n) with n the neighbours of an atom, each counted by the envelope of its distance."""
        distance = safe_unit(jnp.where(graph.edge_mask[:, None], graph.edge_vectors(), 0))[1]
        inside = graph.edge_mask & (distance > 0)
        counted = jnp.where(inside, polynomial_envelope(distance / self.model.config.cutoff), 0)
        number = jax.ops.segment_sum(counted, graph.receivers, graph.species.shape[0], indices_are_sorted=True)
        return -jnp.expm1(-2 * number)

    def _scaled(self, outputs: dict[str, Array]) -> dict[str, Array]:
        return outputs | {name: factor * outputs[name] for name, factor in self.scales if name in outputs}

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
            key: Randomness of dropout; None means evaluation.

        Returns:
            `energy` (graphs) in eV, without reference energies; `forces` (atoms, 3) in eV/Å; `stress` (graphs, 3, 3)
            in eV/Å³, positive under tension; every other readout of the model summed over atoms if it is named in
            its configuration as a sum, else per atom.
        """
        if not (forces or stress):
            return self._total(graph, key)[1]

        def energy_of(positions: Array, strain: Array) -> tuple[Array, dict[str, Array]]:
            return self._strained(graph, positions, strain if stress else None, key)

        argnums = (0, 1) if stress else (0,)
        slopes, result = jax.grad(energy_of, argnums=argnums, has_aux=True)(graph.positions, jnp.zeros_like(graph.cell))
        if forces:
            result["forces"] = jnp.where(graph.atom_mask[:, None], -slopes[0], 0)
        if stress:
            result["stress"] = _inverse_volume(graph) * slopes[1]
        return result

    def for_training(
        self,
        graph: Graph,
        *,
        forces: bool = True,
        stress: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> dict[str, Array]:
        """The same values as a call, with a cheaper derivative with respect to the parameters (and no other one).

        A loss L(E, F, σ) has the parameter gradient of the scalar Σ L_E E + v·∂E/∂(x, ε) with v = (−L_F, L_σ / volume) held
        fixed: the derivative of the gradient of E in the direction v, instead of a reverse pass over a reverse pass.
        """
        if not (forces or stress):
            return self._total(graph, key)[1]
        return _for_training(self, graph, key, forces, stress)

    def _strained(
        self, graph: Graph, positions: Array, strain: Array | None, key: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The total energy and all readouts with atoms and cell moved by a symmetric strain: what forces are taken of."""
        if strain is None:
            moved = graph.replace(positions=positions)
        else:
            deform = jnp.eye(3, dtype=positions.dtype)[None] + 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
            strained = jnp.einsum("ai,aij->aj", positions, deform[graph.graph_index])
            moved = graph.replace(positions=strained, cell=graph.cell @ deform)
        total, result = self._total(moved, key)
        if total is None:
            raise ValueError(f"this model gives no energy, so no forces; it gives {', '.join(sorted(result))}")
        return total, result

    def _total(self, graph: Graph, key: PRNGKeyArray | None) -> tuple[Float[Array, ""] | None, dict[str, Array]]:
        outputs = self.outputs(graph, key=key)
        if "energy" not in outputs:
            return None, outputs
        energy = graph.sum_over_atoms(outputs.pop("energy"))
        energy = jnp.where(graph.graph_mask, energy + self.shift, 0)
        return energy.sum(), {self.quantity: energy, **outputs}


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
    direction = [jnp.zeros_like(graph.positions), jnp.zeros_like(graph.cell)]
    if cotangents.get("forces") is not None:
        direction[0] = jnp.where(graph.atom_mask[:, None], -cotangents["forces"], 0)
    if cotangents.get("stress") is not None:
        direction[1] = _inverse_volume(graph) * cotangents["stress"]
    weights = {k: v for k, v in cotangents.items() if k not in ("forces", "stress") and v is not None}
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)

    def slope(positions: Array, strain: Array, weights: dict[str, Array]) -> Any:
        """The gradient of Σ E + Σ weights · readouts with respect to the parameters."""

        def scalar(arrays: Any) -> Array:
            total, result = eqx.combine(arrays, static)._strained(graph, positions, strain if stress else None, key)
            return total + sum((weights[name] * result[name]).sum() for name in weights)

        return jax.grad(scalar)(arrays)

    at = (graph.positions, jnp.zeros_like(graph.cell), jax.tree.map(jnp.zeros_like, weights))
    return jax.jvp(slope, at, (*direction, weights))[1]


def _inverse_volume(graph: Graph) -> Float[Array, "graphs 1 1"]:
    """1 / volume, zero where there is no cell."""
    volume = jnp.abs(jnp.linalg.det(graph.cell))[:, None, None]
    return jnp.where(volume > 0, 1 / jnp.where(volume > 0, volume, 1), 0)


def _with_isolated_atoms(graph: Graph, elements: tuple[int, ...]) -> Graph:
    """Append one atom without neighbours per element, in a graph slot of its own."""
    count, slots = len(elements), graph.graph_mask.shape[0]

    def extend(array: Any, rows: int, fill: Any = 0) -> Array:
        return jnp.concatenate([array, jnp.full((rows, *array.shape[1:]), fill, array.dtype)])

    return Graph(
        positions=extend(graph.positions, count),
        species=jnp.concatenate([graph.species, jnp.asarray(elements, graph.species.dtype)]),
        senders=jnp.asarray(graph.senders),
        receivers=jnp.asarray(graph.receivers),
        shifts=jnp.asarray(graph.shifts),
        cell=extend(graph.cell, 1),
        graph_index=extend(graph.graph_index, count, slots),
        atom_mask=extend(graph.atom_mask, count, True),
        edge_mask=jnp.asarray(graph.edge_mask),
        graph_mask=extend(graph.graph_mask, 1, True),
        node_fields={name: extend(value, count) for name, value in graph.node_fields.items()},
        edge_fields=dict(graph.edge_fields),
        graph_fields={name: extend(value, 1) for name, value in graph.graph_fields.items()},
    )
