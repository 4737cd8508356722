"""Motion: where simulated particles move, as vectors per particle: a displacement, a change of velocity."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from equiform.graph import Graph
from equiform.models.api import Model
from equiform.tasks.api import Target, Task, scaled

DISPLACEMENT, VELOCITY_CHANGE = "displacement", "velocity_change"
VECTORS = (DISPLACEMENT, VELOCITY_CHANGE)
"""The vectors of a motion; a model may predict one or both."""


class Motion(Task):
    """A model whose vectors are the motion of particles; it has no energy.

    Attributes:
        model: The model; its traits name the vectors.
        scales: Unit of each vector, by name; vectors without one are in the unit of their labels.
    """

    model: Model
    scales: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())
    kind: ClassVar[str] = "motion"

    def __check_init__(self) -> None:
        if not self.model.traits.vectors:
            raise ValueError(f"{type(self.model).__name__} predicts no vector per particle; set vector_readouts")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The model's vectors, the displacement first."""
        vectors = self.model.traits.vectors
        return tuple(Target(field) for field in sorted(vectors, key=lambda field: field.name != DISPLACEMENT))

    @property
    def known_elements(self) -> tuple[int, ...]:
        """The elements of the model; (0,) for particles without a type."""
        return self.model.traits.elements

    def predict(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The vectors (atoms, 3) by name."""
        outputs = self.model(graph, key=key)
        return scaled({target.name: outputs[target.name] for target in self.targets}, self.scales)

    def for_training(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """See `predict`."""
        return self.predict(graph, wanted, key=key)

    def settings(self) -> dict[str, Any]:
        """The scales."""
        return {"scales": {name: float(factor) for name, factor in self.scales}}

    @classmethod
    def from_settings(cls, model: Model, settings: Mapping[str, Any]) -> "Motion":
        """The task with these settings."""
        return cls(model, scales=tuple((str(name), float(factor)) for name, factor in settings["scales"].items()))
