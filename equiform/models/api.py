"""The abstract model, the abstract configuration, and the traits that a configuration declares.

The rest of the library reads the traits, never a model's other attributes: its symmetries, outputs and required fields,
whether it is smooth at its cutoff, additive, or a function of edge vectors only. The conformance suite (`equiform.testing`)
selects its checks by them, and fails a model whose traits do not hold.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
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
"""Energy per atom: the readout of an additive model, summed over atoms by the task."""
POOLED_ENERGY = Field("energy", "graphs", "invariant")
"""Energy per structure, of a model whose readout is not a sum over atoms."""
TAGS = find_field("tags", "atoms")


@dataclass(frozen=True)
class Traits:
    """Properties of the function that a model's configuration declares.

    Attributes:
        symmetries: Symmetries under which it is equivariant; outputs transform by their representation.
        outputs: The outputs of a call: name, axis and representation, in the model's own units.
        needs: Node fields that must be in the graph.
        num_tags: Number of values of the field `tags` if it is needed; 0: it is not.
        elements: Atomic numbers that it distinguishes; (0,): nodes have no type.
        cutoff: Å; None: all nodes interact, at any distance.
        smooth: Outputs and their derivatives are continuous when an edge crosses the cutoff.
        additive: Outputs of two non-interacting groups of atoms are those of each alone.
        stable: Rounding errors are not amplified at symmetric geometries, where features vanish by symmetry.
        edges_only: Positions enter only through edge vectors, so derivatives can be taken with respect to those.
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
        """The vector outputs per atom."""
        return tuple(field for field in self.outputs if field.representation in ("polar", "axial") and field.axis == "atoms")

    @property
    def scalar(self) -> Field | None:
        """The invariant output, from which an energy or another property of a structure is computed."""
        return next((field for field in self.outputs if field.representation == "invariant"), None)

    @property
    def edge_cutoff(self) -> float:
        """The cutoff, Å.

        Raises:
            ValueError: The model has none.
        """
        if self.cutoff is None:
            raise ValueError("the model has no cutoff: all of its nodes interact, at any distance")
        return self.cutoff

    @property
    def has_energy(self) -> bool:
        """Whether the invariant output is an energy."""
        return self.scalar is not None and self.scalar.name == "energy"


class ModelConfig(BaseModel):
    """Everything that determines a model's function and parameters; abstract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    elements: tuple[int, ...]

    width_fields: ClassVar[WidthFields] = {}
    """Fields that `equiform.models.width.widened` scales, and the fields whose product divides each."""
    renamed_fields: ClassVar[dict[str, str]] = {}
    """Former field names, for recipes and model files of earlier versions; an empty new name: removed."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """The model's traits."""

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
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """Attributes that make up `embedding`, `blocks` and `readout`, for freezing. Of `blocks`, `x[:]` is stacked over all,
    `x[:-1]` over all but the last one, and `x[-1]` belongs to the last one."""

    @abstractmethod
    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The outputs that the traits declare, by name; padding rows may hold any finite value.

        Args:
            graph: The batch.
            key: PRNG key for dropout; None means evaluation.
        """

    @abstractmethod
    def decay_mask(self) -> "Model":
        """The model with each parameter replaced by True if it is under weight decay, else False."""

    @property
    def traits(self) -> Traits:
        """The traits of the configuration."""
        return self.config.traits


class DescribingModel(Model):
    """A model that exposes invariant features of each atom; abstract."""

    @abstractmethod
    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Features of each atom before the readout."""


class AttendingModel(DescribingModel):
    """A model that exposes the attention weights of edges; abstract."""

    @abstractmethod
    def attention(self, graph: Graph) -> list[Float[Array, "edges heads"]]:
        """Attention weights of every block, first to last."""


def all_decay(model: Any) -> Any:
    """A decay mask with True for every parameter."""
    return jax.tree.map(lambda _: True, model)
