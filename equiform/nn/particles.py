"""What models that take coordinates as plain numbers see of a particle, and what is common to their configurations."""

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equiform.graph import Graph
from equiform.nn.fields import node_columns


class ParticleFields(BaseModel):
    """Fields of a configuration: what goes in and what comes out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    elements: tuple[int, ...] = Field((0,), description="Node types; particles have none.")
    cutoff: float = Field(1000.0, gt=0, description="Not used: every particle of a graph sees every other one.")
    node_scalars: tuple[str, ...] = Field(("charge",), description="Node fields with a number per node that are inputs.")
    node_vectors: tuple[str, ...] = Field(("velocity",), description="Node fields with a vector per node that are inputs.")
    vector_readouts: tuple[str, ...] = Field(("displacement", "velocity_change"), min_length=1, description="Vectors per node.")
    centred: bool = Field(False, description="Positions count from the mean of the graph, else from the origin, as walls do.")

    @model_validator(mode="after")
    def _consistent(self) -> "ParticleFields":
        if len(set(self.vector_readouts)) != len(self.vector_readouts):
            raise ValueError(f"vector_readouts has repeated entries: {self.vector_readouts}")
        return self

    @property
    def num_inputs(self) -> int:
        """Numbers that are known of a particle."""
        return 3 + len(self.node_scalars) + 3 * len(self.node_vectors)

    @property
    def symmetry(self) -> tuple[str, ...]:
        """What the function is equivariant under. Coordinates enter as numbers, so no rotation is among it."""
        return ("permutations", "translations") if self.centred else ("permutations",)


def particle_positions(graph: Graph, centred: bool) -> Float[Array, "atoms 3"]:
    """Positions from the origin, or from the mean of their graph."""
    if not centred:
        return jnp.asarray(graph.positions)
    number = jnp.maximum(graph.sum_over_atoms(jnp.ones_like(graph.positions[:, :1])), 1)
    positions = jnp.asarray(graph.positions)
    return positions - (graph.sum_over_atoms(positions) / number)[graph.graph_index]


def particle_inputs(graph: Graph, config: ParticleFields) -> Float[Array, "atoms inputs"]:
    """Position, vectors and scalars of each particle, side by side."""
    columns = [particle_positions(graph, config.centred)]
    columns += node_columns(graph, config.node_vectors, 3)
    columns += node_columns(graph, config.node_scalars, 1)
    return jnp.concatenate(columns, axis=1)


def named_vectors(values: Float[Array, "atoms outputs"], names: tuple[str, ...]) -> dict[str, Array]:
    """Three numbers for each readout, in order."""
    return {name: values[:, 3 * index : 3 * index + 3] for index, name in enumerate(names)}
