"""Deep Sets: particles as a set; each is updated from itself and from the mean over all.

    h_i ← ReLU(h_i W + mean_j h_j V + b)      num_layers times, then a linear map to the vectors

The only symmetry is permutation equivariance.

Source: Zaheer et al., NeurIPS 2017 (arXiv:1703.06114), permutation-equivariant layers; as a baseline for N-body in Fuchs et
al., NeurIPS 2020, without sizes.
Differs: sizes are ours; there are skip connections from the second layer on.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from equiform.graph import Graph
from equiform.models.api import DescribingModel, all_decay
from equiform.models.particle_inputs import ParticleConfig, named_vectors, particle_inputs
from equiform.models.width import WidthFields
from equiform.nn.dense import Dense


class DeepSetsConfig(ParticleConfig):
    """Everything that determines a Deep Sets model's function and parameters."""

    width_fields: ClassVar[WidthFields] = {"channels": ()}

    name: Literal["deep-sets"] = "deep-sets"
    num_layers: int = Field(4, ge=1)
    channels: int = Field(128, ge=1)


class DeepSets(DescribingModel):
    """The model; call it on a graph. Equivariant under permutations; not under rotations."""

    layers: list["SetLayer"]
    out: Dense
    config: DeepSetsConfig = eqx.field(static=True)

    def __init__(self, config: DeepSetsConfig, *, key: PRNGKeyArray):
        keys, width = jax.random.split(key, config.num_layers + 1), config.channels
        self.config = config
        sizes = [config.num_inputs] + [width] * (config.num_layers - 1)
        self.layers = [SetLayer(size, width, key=k) for size, k in zip(sizes, keys)]
        self.out = Dense(width, 3 * len(config.vector_readouts), key=keys[-1])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The vectors (atoms, 3) by name.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        h = self.descriptors(graph)
        return named_vectors(self.out(h), self.config.vector_readouts)

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Features of each particle after the last layer; neither invariant nor equivariant under rotations."""
        h = particle_inputs(graph, self.config)
        for layer in self.layers:
            new = layer(h, graph)
            h = h + new if h.shape == new.shape else new
        return h

    def decay_mask(self) -> "DeepSets":
        """Weight-decay mask: all parameters."""
        return all_decay(self)


class SetLayer(eqx.Module):
    """h_i ↦ ReLU(h_i W + mean_j h_j V + b)."""

    own: Dense
    others: Dense

    def __init__(self, size_in: int, size_out: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.own = Dense(size_in, size_out, key=keys[0])
        self.others = Dense(size_in, size_out, bias=False, key=keys[1])

    def __call__(self, h: Float[Array, "atoms _"], graph: Graph) -> Float[Array, "atoms _"]:
        count = jnp.maximum(graph.sum_over_atoms(jnp.ones_like(h[:, :1])), 1)
        mean = graph.sum_over_atoms(h) / count
        return jax.nn.relu(self.own(h) + self.others(mean)[graph.graph_index])
