"""The abstract task: a model, the quantities predicted with it, their units, and how they are trained and reported.

Training, evaluation, model files and reports work on tasks: their targets have names, axes, units and representations.
Energy, property and motion are here; a task of another kind (radiance of rays, energies of spin lattices) is one more file.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from equiform.fields import Field
from equiform.graph import Graph
from equiform.models.api import Model


@dataclass(frozen=True)
class Target:
    """One quantity that a task predicts.

    Attributes:
        field: Its name, axis, representation and unit; labels are the field with that name.
        per_atom: Its error is also reported per atom, and usually enters the loss per atom.
    """

    field: Field
    per_atom: bool = False

    @property
    def name(self) -> str:
        """The name of the field."""
        return self.field.name

    @property
    def unit(self) -> str:
        """The unit of the field; empty if dimensionless."""
        return self.field.unit


class Task(eqx.Module):
    """A model and the meaning of its outputs; abstract.

    Attributes:
        model: The model.
        kind: The task's name in model files.
    """

    model: eqx.AbstractVar[Model]
    kind: ClassVar[str]

    @property
    @abstractmethod
    def targets(self) -> tuple[Target, ...]:
        """The predicted quantities, the main target first."""

    @property
    @abstractmethod
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers for which predictions can be made."""

    @abstractmethod
    def predict(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The targets of a batch by name.

        Args:
            graph: The batch.
            wanted: Names of the requested targets; others may be left out if they cost extra.
            key: PRNG key for dropout; None means evaluation.
        """

    @abstractmethod
    def for_training(self, graph: Graph, wanted: Collection[str], *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The same values, differentiable with respect to the parameters only, at the least cost."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything except the model, as plain values for JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls, model: Model, settings: Mapping[str, Any]) -> "Task":
        """The task with these settings.

        Raises:
            KeyError, TypeError, ValueError: They are not valid settings of this task.
        """

    @property
    def quantity(self) -> str:
        """The name of the main target."""
        return self.targets[0].name

    @property
    def unit(self) -> str:
        """The unit of the main target."""
        return self.targets[0].unit

    def target(self, name: str) -> Target:
        """A target by name.

        Raises:
            ValueError: The task has no such target.
        """
        for target in self.targets:
            if target.name == name:
                return target
        raise ValueError(f"the {self.kind} task has no target {name!r}; it has: {', '.join(t.name for t in self.targets)}")


def scaled(outputs: Mapping[str, Array], scales: tuple[tuple[str, float], ...]) -> dict[str, Array]:
    """Outputs in the units of their targets: those named in `scales` are multiplied by their factor."""
    return {**outputs, **{name: factor * outputs[name] for name, factor in scales if name in outputs}}
