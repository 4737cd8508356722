"""Transformer and perceptron of moving particles, the baselines of GATr's n-body experiment: tokens of plain numbers.

    token_i = (m_i, p_i, v_i);   p_i' or p_i' − p_i = network(tokens)_i

Published are raw coordinates in and absolute positions out. With `centred` positions count from the mean of the graph, and with
`output = "displacement"` the network predicts the change: the same transformer with both is far better (docs/results.md).
Rotations are no symmetry; `training.random_rotations` augments the data with them. A perceptron's tokens have places.

Source: Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), authors' code, release 1.4.3; sizes in `models/token_baselines`.
Differs: nothing in the published form.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from equiform.graph import Graph
from equiform.models.api import Model, Symmetry, Traits, all_decay
from equiform.models.particle_inputs import ParticleConfig, particle_inputs, particle_positions
from equiform.models.particle_rows import by_graph, from_rows, rows_of
from equiform.models.token_baselines import TokenMLP, TokenMLPConfig, TokenTransformer, TokenTransformerConfig
from equiform.models.width import WidthFields


class TokenMotionConfig(ParticleConfig):
    """Everything that determines the function and parameters of a baseline."""

    width_fields: ClassVar[WidthFields] = {"channels": ("num_heads",)}

    name: Literal["token-motion"] = "token-motion"
    network: Literal["transformer", "mlp"] = Field(
        default="transformer", description="All tokens attend, or all stand side by side."
    )
    output: Literal["position", "displacement"] = Field(
        default="position", description="Whether the network predicts the change."
    )
    vector_readouts: tuple[str, ...] = Field(("displacement",), min_length=1, max_length=1, description="Name of the readout.")
    channels: int = Field(default=384, ge=1)
    num_blocks: int = Field(default=10, ge=1, description="Blocks of the transformer.")
    num_heads: int = Field(default=8, ge=1, description="Heads of the transformer.")
    num_bodies: int = Field(default=4, ge=1, description="Particles of every graph, for the perceptron.")

    @property
    def layers(self) -> TokenTransformerConfig | TokenMLPConfig:
        """The network's configuration."""
        if self.network == "mlp":
            return TokenMLPConfig.model_validate(
                {"num_tokens": self.num_bodies, "in_channels": self.num_inputs, "channels": self.channels}
            )
        return TokenTransformerConfig.model_validate(
            {
                "in_channels": self.num_inputs,
                "channels": self.channels,
                "num_blocks": self.num_blocks,
                "num_heads": self.num_heads,
            }
        )

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        symmetries: tuple[Symmetry, ...] = ("permutations",) if self.network == "transformer" else ()
        return self.particle_traits((*symmetries, "translations") if self.centred else symmetries)


class TokenMotion(Model):
    """The model; call it on a graph. Equivariant under permutations (the transformer) and, if centred, translations."""

    network: TokenTransformer | TokenMLP
    config: TokenMotionConfig = eqx.field(static=True)

    def __init__(self, config: TokenMotionConfig, *, key: PRNGKeyArray):
        sizes = config.layers
        self.config = config
        self.network = TokenMLP(sizes, key=key) if isinstance(sizes, TokenMLPConfig) else TokenTransformer(sizes, key=key)

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The displacement (atoms, 3); of a perceptron, not a number beyond `num_bodies` particles.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        config = self.config
        inputs = particle_inputs(graph, config)
        if isinstance(self.network, TokenMLP):
            groups = rows_of(graph, config.num_bodies)
            rows = jnp.where(groups.filled[..., None], inputs[groups.rows], 0)
            rows = jnp.pad(rows, [(0, 0), (0, config.num_bodies - rows.shape[1]), (0, 0)])
            out = from_rows(self.network(rows), groups)
            out = jnp.where(((groups.slot < config.num_bodies) | ~groups.present)[:, None], out, jnp.nan)
        else:
            out = by_graph(self._attended, graph, inputs)
        if config.output == "position":
            out = out - particle_positions(graph, config.centred)
        return {config.vector_readouts[0]: out}

    def decay_mask(self) -> "TokenMotion":
        """Weight-decay mask: all parameters."""
        return all_decay(self)

    def _attended(
        self, inputs: Float[Array, "rows slots inputs"], segments: Int[Array, "rows slots"]
    ) -> Float[Array, "rows slots 3"]:
        assert isinstance(self.network, TokenTransformer)
        return self.network(inputs, segments=segments)
