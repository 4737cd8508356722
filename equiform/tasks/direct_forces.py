"""Forces as vectors that the model predicts, not as derivatives of an energy: cheaper, and not conservative."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from equiform.fields import find_field
from equiform.graph import Graph
from equiform.models.api import Model
from equiform.tasks.api import Target, Task

FORCES = "forces"


class DirectForces(Task):
    """A model whose vector `forces` is the force on each atom.

    There is no energy, the forces of a molecule need not sum to zero, and dynamics do not conserve anything; so such a model
    is for comparison with the conservative one, and nothing simulates with it.

    Attributes:
        model: The model; its traits name the vector.
        scale: eV/Å per unit of the model's output.
    """

    model: Model
    scale: float = eqx.field(static=True, default=1.0)
    kind: ClassVar[str] = "direct forces"

    def __check_init__(self) -> None:
        if not has_direct_forces(self.model):
            raise ValueError(f"{type(self.model).__name__} predicts no vector 'forces'; set model.vector_readouts=[forces]")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The forces."""
        return (Target(find_field(FORCES, "atoms")),)

    @property
    def known_elements(self) -> tuple[int, ...]:
        """The elements of the model."""
        return self.model.traits.elements

    def predict(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The forces (atoms, 3), eV/Å."""
        vectors = self.model(graph, key=key)[FORCES]
        return {FORCES: jnp.where(graph.atom_mask[:, None], self.scale * vectors, 0)}

    def for_training(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """See `predict`."""
        return self.predict(graph, wanted, key=key)

    def settings(self) -> dict[str, Any]:
        """The scale."""
        return {"scale": float(self.scale)}

    @classmethod
    def from_settings(cls, model: Model, settings: Mapping[str, Any]) -> "DirectForces":
        """The task with these settings."""
        return cls(model, scale=float(settings["scale"]))


def has_direct_forces(model: Model) -> bool:
    """Whether a model has a vector `forces`."""
    return any(field.name == FORCES for field in model.traits.vectors)
