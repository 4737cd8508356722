"""Estimates of the error of energies and forces: from the last features of one model, or from the spread of a committee.

Last-layer prediction rigidity (LLPR): were only the last, linear layer fitted, to energies E = w · F with F = Σ_i φ_i the sum
of the features of all atoms, the variance of a prediction would be

    σ_E² = α_E² Fᵀ (C + ς)⁻¹ F,     σ_x² = α_F² (∂F/∂x)ᵀ (C + ς)⁻¹ (∂F/∂x),     C = Σ_train F Fᵀ

The covariance C is of the training structures, α and ς are fitted to errors on validation structures
(`equiform.training.calibration`). With W Wᵀ = (C + ς)⁻¹ these are squared lengths of WᵀF and its derivatives.

Source: F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024), arXiv:2403.02251, eq. 24.
Differs: features in front of a readout that may have a hidden layer; forces and energies have a factor α each, and C is of
energies only.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.graph import Graph
from equiform.models.api import DescribingModel
from equiform.models.committee import Committee
from equiform.tasks.energy import Potential
from equiform.tasks.members import as_member


class Spread(eqx.Module):
    """Variances that grow with the expected error; abstract. Calibrated by two factors.

    Attributes:
        energy_factor: α_E, standard deviation of an energy per square root of its variance.
        forces_factor: α_F, of a force component.
    """

    energy_factor: eqx.AbstractVar[float]
    forces_factor: eqx.AbstractVar[float]

    @abstractmethod
    def with_factors(self, energy: float, forces: float) -> "Spread":
        """The same with other factors."""

    @abstractmethod
    def variances(self, task: Potential, graph: Graph) -> tuple[Float[Array, "graphs"], Float[Array, "atoms 3"]]:
        """Variances of energies and force components, in units of the squared factors. Invariant, and of each component."""

    @abstractmethod
    def energy_variances(self, task: Potential, graph: Graph) -> Float[Array, "graphs"]:
        """The first of `variances`, which costs much less than both."""


class LastLayer(Spread):
    """LLPR.

    Attributes:
        whitening: W, with W Wᵀ = (C + ς)⁻¹.
    """

    whitening: Float[Array, "features features"]
    energy_factor: float = eqx.field(static=True, default=1.0)
    forces_factor: float = eqx.field(static=True, default=1.0)

    def with_factors(self, energy: float, forces: float) -> "LastLayer":
        """The same with other factors."""
        return LastLayer(whitening=self.whitening, energy_factor=energy, forces_factor=forces)

    def variances(self, task: Potential, graph: Graph) -> tuple[Float[Array, "graphs"], Float[Array, "atoms 3"]]:
        """One reverse pass per feature."""
        model = _describing(task)

        def whitened(positions: Array) -> Array:
            return structure_features(model, graph.replace(positions=positions)) @ self.whitening

        values, pull = jax.vjp(whitened, jnp.asarray(graph.positions))

        def add(total: Array, row: Array) -> tuple[Array, None]:
            (slope,) = pull(jnp.broadcast_to(row, values.shape))
            return total + slope**2, None

        rows = jnp.eye(values.shape[1], dtype=values.dtype)
        forces, _ = jax.lax.scan(add, jnp.zeros_like(graph.positions), rows)
        return (values**2).sum(axis=1), jnp.where(graph.atom_mask[:, None], forces, 0)

    def energy_variances(self, task: Potential, graph: Graph) -> Float[Array, "graphs"]:
        """Only features, no derivatives."""
        return ((structure_features(_describing(task), graph) @ self.whitening) ** 2).sum(axis=1)


class MemberSpread(Spread):
    """Variance over the members of a committee, unbiased."""

    energy_factor: float = eqx.field(static=True, default=1.0)
    forces_factor: float = eqx.field(static=True, default=1.0)

    def with_factors(self, energy: float, forces: float) -> "MemberSpread":
        """The same with other factors."""
        return MemberSpread(energy, forces)

    def variances(self, task: Potential, graph: Graph) -> tuple[Float[Array, "graphs"], Float[Array, "atoms 3"]]:
        """Energies and forces of all members."""
        found = _of_members(task, graph, forces=True)
        return found["energy"].var(axis=0, ddof=1), found["forces"].var(axis=0, ddof=1)

    def energy_variances(self, task: Potential, graph: Graph) -> Float[Array, "graphs"]:
        """Energies of all members."""
        return _of_members(task, graph, forces=False)["energy"].var(axis=0, ddof=1)


def structure_features(model: DescribingModel, graph: Graph) -> Float[Array, "graphs features"]:
    """F = Σ_i φ_i: the features of each structure, zero for padding. Invariant."""
    return jnp.where(graph.graph_mask[:, None], graph.sum_over_atoms(model.descriptors(graph)), 0)


def _describing(task: Potential) -> DescribingModel:
    if not isinstance(task.model, DescribingModel):
        raise ValueError(f"{type(task.model).__name__} models do not expose features, which last-layer uncertainties need")
    return task.model


def _of_members(task: Potential, graph: Graph, *, forces: bool) -> dict[str, Array]:
    if not isinstance(task.model, Committee):
        raise ValueError(f"{type(task.model).__name__} is not a committee")
    arrays, static = eqx.partition(as_member(task), eqx.is_array)

    def one(member: Any) -> dict[str, Array]:
        return eqx.combine(member, static)(graph, forces=forces)

    found = jax.vmap(one)(arrays)
    return {name: found[name] for name in ("energy", "forces") if name in found}
