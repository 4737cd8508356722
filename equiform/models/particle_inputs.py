"""Inputs and common configuration of models that take coordinates as plain numbers."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field, model_validator

from equiform import fields
from equiform.graph import Graph
from equiform.models.api import ModelConfig, Symmetry, Traits
from equiform.nn.fields import node_columns


class ParticleConfig(ModelConfig):
    """Configuration of the inputs and outputs; abstract."""

    renamed_fields: ClassVar[dict[str, str]] = {"cutoff": ""}

    elements: tuple[int, ...] = Field((0,), description="Node types; particles have none.")
    node_scalars: tuple[str, ...] = Field(("charge",), description="Scalar node fields used as inputs.")
    node_vectors: tuple[str, ...] = Field(("velocity",), description="Vector node fields used as inputs.")
    vector_readouts: tuple[str, ...] = Field(("displacement", "velocity_change"), min_length=1, description="Vectors per node.")
    centred: bool = Field(False, description="Positions relative to the mean of the graph, else to the origin, as walls are.")

    @model_validator(mode="after")
    def _consistent(self) -> "ParticleConfig":
        if len(set(self.vector_readouts)) != len(self.vector_readouts):
            raise ValueError(f"vector_readouts has repeated entries: {self.vector_readouts}")
        return self

    @property
    def num_inputs(self) -> int:
        """Number of input values per particle."""
        return 3 + len(self.node_scalars) + 3 * len(self.node_vectors)

    @property
    def traits(self) -> Traits:
        """The model's traits. Coordinates enter as plain numbers, so rotations are not a symmetry."""
        return self.particle_traits(("permutations", "translations") if self.centred else ("permutations",))

    def particle_traits(self, symmetries: tuple[Symmetry, ...], *, scalars: bool = True) -> Traits:
        """The traits of a model of particles with these symmetries, with or without the scalars as inputs."""
        needs = [fields.Field(name, "atoms", "invariant") for name in self.node_scalars if scalars]
        needs += [fields.Field(name, "atoms", "polar") for name in self.node_vectors]
        outputs = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        return Traits(symmetries, outputs, tuple(needs), elements=self.elements, additive=False)


def particle_positions(graph: Graph, centred: bool) -> Float[Array, "atoms 3"]:
    """Positions relative to the origin, or to the mean of their graph."""
    if not centred:
        return jnp.asarray(graph.positions)
    count = jnp.maximum(graph.sum_over_atoms(jnp.ones_like(graph.positions[:, :1])), 1)
    positions = jnp.asarray(graph.positions)
    return positions - (graph.sum_over_atoms(positions) / count)[graph.graph_index]


def particle_inputs(graph: Graph, config: ParticleConfig) -> Float[Array, "atoms inputs"]:
    """Position, vectors and scalars of each particle, concatenated."""
    columns = [particle_positions(graph, config.centred)]
    columns += node_columns(graph, config.node_vectors, 3)
    columns += node_columns(graph, config.node_scalars, 1)
    return jnp.concatenate(columns, axis=1)


def named_vectors(values: Float[Array, "atoms outputs"], names: tuple[str, ...]) -> dict[str, Array]:
    """Three numbers for each readout, in order."""
    return {name: values[:, 3 * index : 3 * index + 3] for index, name in enumerate(names)}
