"""A model as JAX MD takes potentials: `neighbor_fn, energy_fn = neighbor_list(predictor, numbers, box)`.

    neighbors = neighbor_fn.allocate(R)
    neighbors = neighbors.update(R)                  # in each step; allocate again after an overflow
    E = energy_fn(R, neighbor=neighbors)             # eV; jax.grad of it gives forces, a `perturbation` the stress

The list holds every periodic image within the cutoff, so cells may be small and skewed. Energies leave out the reference
energies of isolated atoms, a constant (`Predictor.reference_energy`) that would cost float32 its digits.

Source: JAX MD, `custom_partition.neighbor_list_multi_image`; boxes have lattice vectors as columns.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.deploy.engines import require
from equiform.deploy.predictor import Predictor
from equiform.deploy.structures import symbols
from equiform.errors import UserError
from equiform.graph import Graph

_OPEN = 1e3  # Å; the box of a structure that is not periodic only sets the first guess of the list's size


class EnergyFunction:
    """The interaction energy of one structure, eV; differentiable, and compiled with what calls it."""

    def __init__(self, predictor: Predictor, numbers: np.ndarray, fractional: bool, pbc: tuple[bool, ...]):
        self._potential, self._numbers = predictor.potential, numbers
        self._fractional, self._pbc = fractional, pbc

    def __call__(
        self,
        position: Float[Array, "atoms 3"],
        neighbor: Any,
        *,
        box: Float[Array, "3 3"] | None = None,
        perturbation: Float[Array, "3 3"] | None = None,
    ) -> Float[Array, ""]:
        """The energy, eV.

        Args:
            position: Fractional coordinates, or Å if the list was made so.
            neighbor: The neighbour list.
            box: Lattice vectors as columns, Å; None: the list's.
            perturbation: A deformation of space; JAX MD's `quantity.stress` differentiates by it, and is positive under
                compression.
        """
        from jax_md import space

        vectors = neighbor.box if box is None else box
        points = space.transform(vectors, position) if self._fractional else position
        points = points - self._wrapped(points, neighbor, vectors)
        if perturbation is not None:
            points, vectors = points @ perturbation.T, perturbation @ vectors
        count = len(self._numbers)
        real = neighbor.receivers < count
        order = jnp.argsort(jnp.where(real, neighbor.receivers, count))  # models need receivers in ascending order
        cell = vectors.T[None] if any(self._pbc) else jnp.zeros((1, 3, 3), points.dtype)
        graph = Graph(
            positions=points,
            species=jnp.asarray(self._numbers, jnp.int32),
            senders=jnp.minimum(neighbor.senders, count - 1)[order].astype(jnp.int32),
            receivers=jnp.minimum(neighbor.receivers, count - 1)[order].astype(jnp.int32),
            shifts=jnp.where(real[:, None], neighbor.shifts, 0)[order].astype(jnp.int32),
            cell=cell.astype(points.dtype),
            graph_index=jnp.zeros(count, jnp.int32),
            atom_mask=jnp.ones(count, bool),
            edge_mask=real[order],
            graph_mask=jnp.ones(1, bool),
        )
        return self._potential(graph, forces=False)["energy"][0]

    def _wrapped(self, points: Float[Array, "atoms 3"], neighbor: Any, box: Float[Array, "3 3"]) -> Float[Array, "atoms 3"]:
        """Lattice vectors by which atoms were moved back into the box since the list was built.

        JAX MD's `shift` wraps positions before the list is updated, and the images in the list are those of the positions
        that it was built from.
        """
        if not any(self._pbc):
            return jnp.zeros_like(points)
        first = neighbor.reference_position
        inverse = jnp.linalg.inv(box).T
        before = first if self._fractional else first @ jnp.linalg.inv(neighbor.reference_box).T
        whole = jnp.round(points @ inverse - before) * jnp.asarray(self._pbc, points.dtype)
        return jax.lax.stop_gradient(whole) @ box.T


def neighbor_list(
    predictor: Predictor,
    numbers: Sequence[int] | np.ndarray,
    box: Float[np.ndarray, "3 3"] | Float[Array, "3 3"] | None,
    *,
    pbc: Sequence[bool] = (True, True, True),
    fractional_coordinates: bool = True,
    skin: float = 0.5,
    capacity_multiplier: float = 1.25,
) -> tuple[Any, EnergyFunction]:
    """JAX MD's neighbour functions and the energy function of a model.

    Args:
        predictor: The model; in float64 only where JAX's 64-bit mode is on (`jax.config.update("jax_enable_x64", True)`).
        numbers: Atomic number of each atom.
        box: Lattice vectors as columns, Å (the transpose of ASE's cell); None: not periodic, positions in Å.
        pbc: Whether the structure repeats along each lattice vector.
        fractional_coordinates: Whether positions are fractional; Å otherwise.
        skin: Å beyond the cutoff, so that the list need not be rebuilt in each step.
        capacity_multiplier: Room for edges, in units of those of the first structure.

    Returns:
        `neighbor_fn` with `allocate` and `update`, and `energy_fn(position, neighbor=…, box=…)`.

    Raises:
        UserError: JAX MD is not installed, the box spans no volume, the model does not know an element, gives no energies,
            needs tags, or is in float64 while JAX is in 32-bit mode.
    """
    require("jax-md")
    from jax_md import custom_partition

    predictor.require_energy()
    if predictor.task.model.traits.num_tags:
        raise UserError("this model needs a tag for each atom (OC20), which JAX MD does not have")
    unknown = sorted({int(number) for number in numbers} - set(predictor.elements))
    if unknown:
        raise UserError(f"the structure has {symbols(unknown)}, but the model knows only {symbols(predictor.elements)}")
    dtype = jnp.dtype(predictor.dtype)
    if dtype == jnp.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise UserError('the model is in float64, but JAX is not: jax.config.update("jax_enable_x64", True) comes first')
    periodic = box is not None and any(pbc)
    lattice = np.eye(3) * _OPEN if box is None else np.asarray(box, np.float64)
    if not abs(np.linalg.det(lattice)) > 1e-6:
        raise UserError(f"the box spans no volume: {lattice.tolist()} (Å, lattice vectors as columns)")
    fractional = fractional_coordinates and box is not None
    repeats = tuple(map(bool, pbc)) if periodic else (False, False, False)
    neighbor_fn = custom_partition.neighbor_list_multi_image(
        None,
        jnp.asarray(lattice, dtype),
        predictor.cutoff,
        dr_threshold=skin,
        capacity_multiplier=capacity_multiplier,
        pbc=jnp.asarray(repeats),
        fractional_coordinates=fractional,
    )
    return neighbor_fn, EnergyFunction(predictor, np.asarray(numbers, np.int32), fractional, repeats)
