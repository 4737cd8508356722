"""What every model is: one abstract class, one abstract configuration, and the traits that a configuration declares.

The rest of the house asks the traits, never a model's other attributes: which symmetries it has, what it gives and needs,
whether it is smooth at its cutoff, additive, a function of edge vectors only. The conformance suite (`equiform.testing`)
chooses its checks by them, and fails a model whose traits are not true.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, field_validator

from equiform.fields import Field, find_field
from equiform.graph import Graph
from equiform.models.width import WidthFields

Symmetry = Literal["permutations", "translations", "rotations", "reflections"]
E3: tuple[Symmetry, ...] = ("permutations", "translations", "rotations", "reflections")
SE3: tuple[Symmetry, ...] = ("permutations", "translations", "rotations")
ENERGY = Field("energy", "atoms", "invariant")
"""An energy per atom: the readout of an additive model, summed over atoms by the task."""
POOLED_ENERGY = Field("energy", "graphs", "invariant")
"""An energy per structure, of a model whose readout is no sum over atoms."""
TAGS = find_field("tags", "atoms")


@dataclass(frozen=True)
class Traits:
    """What a model's configuration declares about the function.

    Attributes:
        symmetries: What it is equivariant under; outputs transform as their representation says.
        outputs: What a call returns, by name, axis and representation, in the model's own units.
        needs: Fields of atoms that must be in the graph.
        num_tags: Number of values of the field `tags`, if that is needed; 0: it is not.
        elements: Atomic numbers that it tells apart; (0,): nodes have no type.
        cutoff: Å; None: nodes see each other however far they are.
        smooth: Outputs and their derivatives are continuous when an edge crosses the cutoff.
        additive: Outputs of two groups of atoms that do not see each other are those of each alone.
        stable: Rounding is not amplified at symmetric geometries, where features vanish by symmetry.
        edges_only: Positions enter by way of edge vectors only, so derivatives can be taken with respect to those.
    """

    symmetries: tuple[Symmetry, ...]
    outputs: tuple[Field, ...]
    needs: tuple[Field, ...] = ()
    num_tags: int = 0
    elements: tuple[int, ...] = (0,)
    cutoff: float | None = None
    smooth: bool = True
    additive: bool = True
    stable: bool = True
    edges_only: bool = False

    @property
    def vectors(self) -> tuple[Field, ...]:
        """The outputs that are a vector per atom."""
        return tuple(field for field in self.outputs if field.representation in ("polar", "axial") and field.axis == "atoms")

    @property
    def scalar(self) -> Field | None:
        """The invariant output, which an energy or another property of a structure is made of."""
        return next((field for field in self.outputs if field.representation == "invariant"), None)

    @property
    def edge_cutoff(self) -> float:
        """The cutoff, Å, of a model that has one.

        Raises:
            ValueError: It has none.
        """
        if self.cutoff is None:
            raise ValueError("the model has no cutoff: its nodes see each other however far they are")
        return self.cutoff

    @property
    def has_energy(self) -> bool:
        """Whether an output is an energy."""
        return self.scalar is not None and self.scalar.name == "energy"


class ModelConfig(BaseModel):
    """Everything that fixes a model's function and parameters; abstract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    elements: tuple[int, ...]

    width_fields: ClassVar[WidthFields] = {}
    """Fields that `equiform.models.width.widened` scales, and the fields whose product divides each."""
    renamed_fields: ClassVar[dict[str, str]] = {}
    """Former names of fields, for recipes and model files of earlier versions; an empty new name: no longer there."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What the configuration declares about the model."""

    @field_validator("elements")
    @classmethod
    def _distinct(cls, elements: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(elements)) != len(elements):
            raise ValueError(f"elements has repeated entries: {elements}")
        return elements


class Model(eqx.Module):
    """A function of a graph; abstract. Built as `Model(config, key=key)`.

    Attributes:
        config: The configuration.
    """

    config: eqx.AbstractVar[Any]

    @abstractmethod
    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The outputs that the traits declare, by name; rows of padding may hold anything finite.

        Args:
            graph: The batch.
            key: Randomness of dropout; None means evaluation.
        """

    @abstractmethod
    def decay_mask(self) -> "Model":
        """The model with True in the place of each parameter under weight decay and False in that of the others."""

    @property
    def traits(self) -> Traits:
        """What the configuration declares."""
        return self.config.traits


class DescribingModel(Model):
    """A model that has invariant features of each atom to show; abstract."""

    @abstractmethod
    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Features of each atom in front of the readout."""


class AttendingModel(DescribingModel):
    """A model that has attention weights of edges to show; abstract."""

    @abstractmethod
    def attention(self, graph: Graph) -> list[Float[Array, "edges heads"]]:
        """Attention weights of every block, first to last."""


def all_decay(model: Any) -> Any:
    """A decay mask with True for every parameter."""
    return jax.tree.map(lambda _: True, model)
