"""Potential: per-atom model outputs → energy, forces, stress and other properties of a structure.

The energies here are *interaction* energies, E − Σ_i E0(Z_i): reference energies of thousands of eV would cost 1e-4 eV
of every float32 energy, so they are added on the host in float64 (`equiform.predictor`) and subtracted from the
labels before training (`equiform.data`).
"""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.graph import Graph


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

    Attributes:
        model: The model.
        scale: eV per unit of the model's energy output.
        shift: eV per structure, added to the total (the reference's mean of the energies).
        elements: Atomic numbers whose isolated-atom output is subtracted.
        anchored: Whether it is subtracted.
        quantity: What the sum of the model's scalar readout stands for: the energy, or another property of a structure
            (`alpha`, `gap`, …), under whose name it is returned; it has then no forces.
        unit: Of the quantity; where it is not eV, read eV in this docstring as that unit.
        scales: What one unit of each further readout of the model is worth, by name.
    """

    model: Model
    scale: float = eqx.field(static=True, default=1.0)
    shift: float = eqx.field(static=True, default=0.0)
    elements: tuple[int, ...] = eqx.field(static=True, default=())
    anchored: bool = eqx.field(static=True, default=False)
    quantity: str = eqx.field(static=True, default="energy")
    unit: str = eqx.field(static=True, default="eV")
    scales: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())

    def outputs(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Per-atom outputs of the model, the energy scaled (eV) and anchored."""
        if not self.anchored:
            outputs = dict(self.model(graph, key=key))
            outputs["energy"] = self.scale * outputs["energy"]
            return self._scaled(outputs)
        num_atoms = graph.species.shape[0]
        outputs = self.model(_with_isolated_atoms(graph, self.elements), key=key)
        isolated = outputs["energy"][num_atoms:]
        which = jnp.searchsorted(jnp.asarray(self.elements, graph.species.dtype), graph.species)
        kept = {name: values[:num_atoms] for name, values in outputs.items()}
        kept["energy"] = self.scale * (kept["energy"] - isolated[which])
        return self._scaled(kept)

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

        def energy_of(positions: Float[Array, "atoms 3"], strain: Float[Array, "graphs 3 3"]):
            deform = jnp.eye(3, dtype=positions.dtype)[None] + 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
            moved = graph.replace(
                positions=jnp.einsum("ai,aij->aj", positions, deform[graph.graph_index]) if stress else positions,
                cell=graph.cell @ deform if stress else graph.cell,
            )
            return self._total(moved, key)

        strain = jnp.zeros_like(graph.cell)
        argnums = (0, 1) if stress else (0,)
        gradients, result = jax.grad(energy_of, argnums=argnums, has_aux=True)(graph.positions, strain)
        if forces:
            result["forces"] = jnp.where(graph.atom_mask[:, None], -gradients[0], 0)
        if stress:
            volume = jnp.abs(jnp.linalg.det(graph.cell))[:, None, None]
            result["stress"] = jnp.where(volume > 0, gradients[1] / jnp.where(volume > 0, volume, 1), 0)
        return result

    def _total(self, graph: Graph, key: PRNGKeyArray | None) -> tuple[Float[Array, ""], dict[str, Array]]:
        outputs = self.outputs(graph, key=key)
        energy = graph.sum_over_atoms(outputs.pop("energy"))
        energy = jnp.where(graph.graph_mask, energy + self.shift, 0)
        return energy.sum(), {self.quantity: energy, **outputs}


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
