"""Property: one number per structure (polarisability, gap, length of a dipole, …) from a model's invariant readout.

P = scale · Σ_i s_i + shift      a readout per atom;      P = scale · s + shift      a readout per structure
"""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from equiform.fields import Field
from equiform.graph import Graph
from equiform.models.api import Model
from equiform.tasks.api import Target, Task, scaled


class Property(Task):
    """A model and the meaning of its invariant readout. It has no forces.

    Attributes:
        model: The model; its traits name the readout (`traits.scalar`).
        name: Name of the property and of its labels.
        unit_name: Its unit.
        scale: Unit of the readout, in the property's unit.
        shift: Added to it, the mean of the property over the training structures.
        scales: Unit of each further readout, by name.
    """

    model: Model
    name: str = eqx.field(static=True)
    unit_name: str = eqx.field(static=True, default="")
    scale: float = eqx.field(static=True, default=1.0)
    shift: float = eqx.field(static=True, default=0.0)
    scales: tuple[tuple[str, float], ...] = eqx.field(static=True, default=())
    kind: ClassVar[str] = "property"

    def __check_init__(self) -> None:
        if self.model.traits.scalar is None:
            raise ValueError(f"{type(self.model).__name__} has no invariant readout, so it predicts no property")

    @property
    def targets(self) -> tuple[Target, ...]:
        """The property, and the model's further readouts."""
        rest = self.model.traits.outputs
        main = Target(Field(self.name, "graphs", "invariant", self.unit_name))
        return (main, *(Target(field) for field in rest if field != self.model.traits.scalar))

    @property
    def known_elements(self) -> tuple[int, ...]:
        """The elements of the model."""
        return self.model.traits.elements

    def predict(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The property (graphs) and further readouts."""
        outputs = dict(self.model(graph, key=key))
        readout = self.model.traits.scalar
        assert readout is not None  # checked at construction
        value = self.scale * outputs.pop(readout.name)
        if readout.axis == "atoms":
            value = graph.sum_over_atoms(value)
        value = jnp.where(graph.graph_mask, value + self.shift, 0)
        return {self.name: value, **scaled(outputs, self.scales)}

    def for_training(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """See `predict`."""
        return self.predict(graph, wanted, key=key)

    def settings(self) -> dict[str, Any]:
        """Name, unit, scale, shift and scales."""
        scales = {name: float(factor) for name, factor in self.scales}
        numbers = {"scale": float(self.scale), "shift": float(self.shift)}
        return {"name": self.name, "unit": self.unit_name, **numbers, "scales": scales}

    @classmethod
    def from_settings(cls, model: Model, settings: Mapping[str, Any]) -> "Property":
        """The task with these settings."""
        return cls(
            model,
            name=str(settings["name"]),
            unit_name=str(settings["unit"]),
            scale=float(settings["scale"]),
            shift=float(settings["shift"]),
            scales=tuple((str(name), float(factor)) for name, factor in settings["scales"].items()),
        )
