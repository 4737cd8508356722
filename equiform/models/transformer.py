"""Two transformers over particles as plain tokens: the Set Transformer and a standard encoder, baselines without geometry.

Each particle is a token of its position, velocity and charge, as plain numbers. All tokens of a graph attend to each other.

    "set":    y = LN(x + Attention(x)),   x = LN(y + ReLU(Dense y))                               set attention blocks
    "plain":  x = x + Attention(LN x),    x = x + Dense GELU Dense LN x                           pre-norm encoder

The only symmetry is permutation equivariance; `training.random_rotations` augments the data with random orientations.

Source: Lee et al., ICML 2019 (arXiv:1810.00825); Vaswani et al., NeurIPS 2017; the Set Transformer as a baseline for N-body
in Fuchs et al., NeurIPS 2020, without sizes.
Differs: sizes are ours; sets are small, so attention is among all tokens, without inducing points.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform.graph import Graph
from equiform.models.api import DescribingModel, all_decay
from equiform.models.particle_inputs import ParticleConfig, named_vectors, particle_inputs
from equiform.models.width import WidthFields
from equiform.nn.dense import MLP, Dense
from equiform.nn.radial import LayerNorm
from equiform.nn.token_attention import Groups, attend, group_tokens, heads_apart


class TransformerConfig(ParticleConfig):
    """Everything that determines a transformer's function and parameters."""

    width_fields: ClassVar[WidthFields] = {"channels": ("num_heads",)}

    name: Literal["transformer"] = "transformer"
    block: Literal["set", "plain"] = Field("plain", description="Set attention blocks, or a standard pre-norm encoder.")
    num_layers: int = Field(4, ge=1)
    channels: int = Field(64, ge=1)
    num_heads: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> "TransformerConfig":
        if self.channels % self.num_heads:
            raise ValueError(f"channels ({self.channels}) must be divisible by num_heads ({self.num_heads})")
        return self


class Transformer(DescribingModel):
    """The model; call it on a graph. Equivariant under permutations; not under rotations."""

    embedding: Dense
    blocks: list["Block"]
    norm: LayerNorm | None
    out: Dense
    config: TransformerConfig = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        keys, width = jax.random.split(key, config.num_layers + 2), config.channels
        self.config = config
        self.embedding = Dense(config.num_inputs, width, key=keys[0])
        self.blocks = [Block(config, key=k) for k in keys[2:]]
        self.norm = LayerNorm(width) if config.block == "plain" else None
        self.out = Dense(width, 3 * len(config.vector_readouts), key=keys[1])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The vectors (atoms, 3) by name.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        return named_vectors(self.out(self.descriptors(graph)), self.config.vector_readouts)

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Features of each particle after the last block; neither invariant nor equivariant under rotations."""
        tokens = (jnp.asarray(graph.graph_index), jnp.asarray(graph.atom_mask))
        groups = group_tokens(tokens, num_groups=graph.graph_mask.shape[0])
        x = self.embedding(particle_inputs(graph, self.config))
        for block in self.blocks:
            x = block(x, groups)
        return x if self.norm is None else self.norm(x)

    def decay_mask(self) -> "Transformer":
        """Weight-decay mask: all parameters."""
        return all_decay(self)


class Block(eqx.Module):
    """One block of either kind."""

    query: Dense
    keys: Dense
    values: Dense
    mix: Dense
    feed_forward: MLP | Dense
    norms: tuple[LayerNorm, LayerNorm]
    num_heads: int = eqx.field(static=True)

    def __init__(self, config: TransformerConfig, *, key: PRNGKeyArray):
        keys, width = jax.random.split(key, 5), config.channels
        self.query, self.keys, self.values, self.mix = (Dense(width, width, kind="xavier", key=k) for k in keys[:4])
        if config.block == "plain":
            self.feed_forward = MLP(width, 2 * width, width, kind="xavier", key=keys[4])
        else:
            self.feed_forward = Dense(width, width, kind="xavier", key=keys[4])
        self.norms, self.num_heads = (LayerNorm(width), LayerNorm(width)), config.num_heads

    def __call__(self, x: Float[Array, "atoms channels"], groups: Groups) -> Float[Array, "atoms channels"]:
        first, second = self.norms
        if isinstance(self.feed_forward, MLP):
            x = x + self._attention(first(x), groups)
            return x + self.feed_forward(second(x), jax.nn.gelu)
        x = first(x + self._attention(x, groups))
        return second(x + jax.nn.relu(self.feed_forward(x)))

    def _attention(self, x: Float[Array, "atoms channels"], groups: Groups) -> Float[Array, "atoms channels"]:
        q, k, v = (heads_apart(layer(x), self.num_heads) for layer in (self.query, self.keys, self.values))
        return self.mix(attend(q, k, v, groups, groups))
