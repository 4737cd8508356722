"""A tiny smooth pair potential that satisfies the model protocol: for tests of everything that is not a model."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from equiform.graph import Graph
from equiform.models.api import E3, ENERGY, TAGS, Model, ModelConfig, Traits, all_decay


class ToyConfig(ModelConfig):
    name: Literal["toy"] = "toy"
    cutoff: float = 4.0
    elements: tuple[int, ...] = (1, 6, 8)
    num_tags: int = 0

    @property
    def traits(self) -> Traits:
        return Traits(
            symmetries=E3,
            outputs=(ENERGY,),
            needs=(TAGS,) if self.num_tags else (),
            num_tags=self.num_tags,
            elements=self.elements,
            cutoff=self.cutoff,
            edges_only=True,
        )


class ToyModel(Model):
    """e_i = ½ Σ_j depth · [(1 − e^{−width (r − r0)})² − 1] · (1 − (r/r_c)²)³, times 1 + its tag if there are tags."""

    depth: Array
    width: Array
    r0: Array
    config: ToyConfig = eqx.field(static=True)

    def __init__(self, config: ToyConfig | None = None, *, key: PRNGKeyArray | None = None):
        self.config = config or ToyConfig()
        self.depth, self.width, self.r0 = jnp.asarray(1.0), jnp.asarray(1.5), jnp.asarray(1.2)

    def __call__(self, graph: Graph, *, key: Any = None) -> dict[str, Array]:
        vectors = jnp.where(graph.edge_mask[:, None], graph.edge_vectors(), jnp.asarray([0.0, 1.0, 0.0]))
        r = jnp.sqrt((vectors**2).sum(-1))
        inside = graph.edge_mask & (r < self.config.cutoff)
        u = jnp.where(inside, r / self.config.cutoff, 1.0)
        morse = self.depth * ((1 - jnp.exp(-self.width * (r - self.r0))) ** 2 - 1)
        pair = jnp.where(inside, 0.5 * morse * (1 - u**2) ** 3, 0)
        energy = jax.ops.segment_sum(pair, graph.receivers, graph.species.shape[0])
        if self.config.num_tags:
            energy = energy * (1 + graph.node_fields["tags"].astype(energy.dtype))
        return {"energy": energy}

    def decay_mask(self) -> "ToyModel":
        return all_decay(self)
