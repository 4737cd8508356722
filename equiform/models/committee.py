"""A committee (deep ensemble): several models of one architecture as one, which predicts their mean.

The members run side by side in one program (`vmap`); the spread of their energies and forces is an estimate of the error,
see `equiform.tasks.uncertainty`.

    e_i = Σ_k e_i^(k) / K

Source: Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017 (arXiv:1612.01474). Differs: members do not predict a variance of
their own, as usual for interatomic potentials.
"""

from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform.graph import Graph
from equiform.models.api import DescribingModel, Model, ModelConfig, Traits
from equiform.models.equiformer import Equiformer, EquiformerConfig
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig

_MEMBERS: dict[str, Any] = {"equiformer": Equiformer, "torchmd-et": TorchMDET}


class CommitteeConfig(ModelConfig):
    """The members' configuration, and their number."""

    name: Literal["committee"] = "committee"
    elements: tuple[int, ...] = Field(description="Atomic numbers; those of the members.")
    member: Annotated[EquiformerConfig | TorchMDETConfig, Field(discriminator="name")]
    members: int = Field(ge=2)

    @model_validator(mode="after")
    def _consistent(self) -> "CommitteeConfig":
        if self.elements != self.member.elements:
            raise ValueError(f"elements {self.elements} are not those of the members, {self.member.elements}")
        return self

    @property
    def traits(self) -> Traits:
        """The members' traits: a mean of equivariant outputs is equivariant."""
        return self.member.traits


class Committee(DescribingModel):
    """The model; call it on a graph. As equivariant as its members.

    Attributes:
        members: The members, their weights stacked.
    """

    members: DescribingModel
    config: CommitteeConfig = eqx.field(static=True)

    def __init__(self, config: CommitteeConfig, *, key: PRNGKeyArray):
        build = _MEMBERS[config.member.name]
        self.config = config
        self.members = _side_by_side([build(config.member, key=k) for k in jax.random.split(key, config.members)])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Mean outputs of the members.

        Args:
            graph: The batch.
            key: PRNG key for the members' dropout; None means evaluation.
        """
        arrays, static = eqx.partition(self.members, eqx.is_array)
        outputs = jax.vmap(lambda member: eqx.combine(member, static)(graph, key=key))(arrays)
        return {name: values.mean(axis=0) for name, values in outputs.items()}

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom: those of all members, one after another."""
        arrays, static = eqx.partition(self.members, eqx.is_array)
        features = jax.vmap(lambda member: eqx.combine(member, static).descriptors(graph), out_axes=1)(arrays)
        return features.reshape(len(features), -1)

    def decay_mask(self) -> "Committee":
        """The members' weight-decay mask."""
        arrays, static = eqx.partition(self.members, eqx.is_array)
        one: Any = eqx.combine(jax.tree.map(lambda leaf: leaf[0], arrays), static)
        return eqx.tree_at(lambda model: model.members, self, one.decay_mask())


def check_architecture(name: str) -> None:
    """Raise if no committee can be made of models of this architecture.

    Raises:
        ValueError: It names those of which it can.
    """
    if name not in _MEMBERS:
        raise ValueError(f"committees can be made of {', '.join(_MEMBERS)}, not of {name}")


def committee(models: list[Model]) -> Committee:
    """A committee of trained models.

    Args:
        models: Of one architecture, with the same configuration.

    Raises:
        ValueError: The configurations differ, or no committee can be made of this architecture.
    """
    first = models[0].config
    check_architecture(first.name)
    for number, model in enumerate(models[1:], start=2):
        ours, other = first.model_dump(), model.config.model_dump()
        differ = [name for name in sorted({*ours, *other}) if ours.get(name) != other.get(name)]
        if differ:
            name = differ[0]
            raise ValueError(f"{name} is {ours.get(name)!r} in model 1 and {other.get(name)!r} in model {number}")
    config = CommitteeConfig(elements=first.elements, member=first, members=len(models))
    # Only the tree is needed; its weights are replaced.
    empty = Committee(config, key=jax.random.key(0))
    return eqx.tree_at(lambda made: made.members, empty, _side_by_side(models))


def _side_by_side(models: list[Any]) -> Any:
    """Models as one, their weights stacked along a new first axis; constants are the same in all."""
    arrays = [eqx.filter(model, eqx.is_array) for model in models]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
    return eqx.combine(stacked, eqx.filter(models[0], eqx.is_array, inverse=True))
