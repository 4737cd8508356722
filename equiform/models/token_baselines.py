"""What GATr is compared with: a transformer and a perceptron on tokens of plain numbers. Not equivariant under rotations.

Transformer, permutation equivariant:

    x = Dense(tokens)
    x = x + Dense Attention(LN x),   x = x + Dense GELU Dense LN x             LN without parameters, GELU exact
    out = Dense(x)

Perceptron: Dense GELU … Dense on all tokens of a set side by side; nothing is permutation equivariant.

Source: the baselines of Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), in the authors' code, release 1.4.3. Published sizes:
transformer 11,827,587 parameters (n-body) and 1,674,563 (arteries), perceptron 163,596.
"""

from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equiform.nn import init
from equiform.nn.dense import MLP, Dense
from equiform.nn.dense_attention import DEFAULT, Execution, Mask, attention
from equiform.nn.multivector import scalar_norm


class TokenTransformerConfig(BaseModel):
    """Everything that fixes the transformer's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["token-transformer"] = "token-transformer"
    in_channels: int = Field(default=7, ge=1)
    out_channels: int = Field(default=3, ge=1)
    channels: int = Field(default=384, ge=1)
    num_blocks: int = Field(default=10, ge=1)
    num_heads: int = Field(default=8, ge=1)
    multi_query: bool = Field(default=False, description="Keys and values shared by all heads.")

    @model_validator(mode="after")
    def _divisible(self) -> "TokenTransformerConfig":
        if self.channels % self.num_heads:
            raise ValueError(f"channels ({self.channels}) must be divisible by num_heads ({self.num_heads})")
        return self


class TokenTransformer(eqx.Module):
    """The transformer; call it with an array of tokens."""

    linear_in: Dense
    blocks: "TransformerBlock"
    linear_out: Dense
    config: TokenTransformerConfig = eqx.field(static=True)

    def __init__(self, config: TokenTransformerConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, config.num_blocks + 2)
        self.config = config
        self.linear_in = Dense(config.in_channels, config.channels, key=keys[0])
        self.blocks = init.stack([TransformerBlock(config, key=k) for k in keys[2:]])
        self.linear_out = Dense(config.channels, config.out_channels, key=keys[1])

    def __call__(
        self,
        tokens: Float[Array, "batch tokens in_channels"],
        *,
        mask: Mask | None = None,
        segments: Int[Array, "batch tokens"] | None = None,
        execution: Execution = DEFAULT,
    ) -> Float[Array, "batch tokens out_channels"]:
        """Numbers of each token.

        Args:
            tokens: Coordinates and whatever else a token has, as numbers.
            mask: True where a token is seen, or what is added to the logits.
            segments: The set that each token belongs to.
            execution: Kernel and memory.
        """

        def step(x: Array, block: TransformerBlock) -> tuple[Array, None]:
            return block(x, mask, segments, execution), None

        step = jax.checkpoint(step) if execution.rematerialise else step
        return self.linear_out(jax.lax.scan(step, self.linear_in(tokens), self.blocks)[0])


class TransformerBlock(eqx.Module):
    """Pre-norm attention and perceptron.

    Attributes:
        inputs: To queries, keys and values, heads the fastest index of each.
        out: From all heads' values, heads the slowest.
        feed_forward: The perceptron.
    """

    inputs: Dense
    out: Dense
    feed_forward: MLP
    config: TokenTransformerConfig = eqx.field(static=True)

    def __init__(self, config: TokenTransformerConfig, *, key: PRNGKeyArray):
        keys, width = jax.random.split(key, 3), config.channels
        shared = 2 * width // (config.num_heads if config.multi_query else 1)
        self.config = config
        self.inputs = Dense(width, width + shared, key=keys[0])
        self.out = Dense(width, width, key=keys[1])
        self.feed_forward = MLP(width, 2 * width, width, key=keys[2])

    def __call__(
        self,
        x: Float[Array, "batch tokens channels"],
        mask: Mask | None,
        segments: Int[Array, "batch tokens"] | None,
        execution: Execution,
    ) -> Float[Array, "batch tokens channels"]:
        width, heads = self.config.channels, self.config.num_heads
        y = self.inputs(scalar_norm(x))
        keys = (y.shape[-1] - width) // 2
        parts = y[..., :width], y[..., width : width + keys], y[..., width + keys :]
        apart = [part.reshape(*part.shape[:-1], -1, h) for part, h in zip(parts, (heads, *[keys * heads // width] * 2))]
        q, k, v = (jnp.swapaxes(part, -1, -2) for part in apart)
        gathered = attention(q, k, v, 1 / sqrt(width // heads), mask, segments=segments, execution=execution)
        x = x + self.out(gathered.reshape(x.shape))
        return x + self.feed_forward(scalar_norm(x), lambda y: jax.nn.gelu(y, approximate=False))


class TokenMLPConfig(BaseModel):
    """Everything that fixes the perceptron's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["token-mlp"] = "token-mlp"
    num_tokens: int = Field(default=4, ge=1, description="Tokens of every set.")
    in_channels: int = Field(default=7, ge=1)
    out_channels: int = Field(default=3, ge=1)
    channels: int = Field(default=384, ge=1)
    num_hidden: int = Field(default=2, ge=1, description="Hidden layers.")


class TokenMLP(eqx.Module):
    """The perceptron; call it with an array of as many tokens as it was built for."""

    layers: list[Dense]
    config: TokenMLPConfig = eqx.field(static=True)

    def __init__(self, config: TokenMLPConfig, *, key: PRNGKeyArray):
        widths = [config.num_tokens * config.in_channels, *[config.channels] * config.num_hidden]
        widths.append(config.num_tokens * config.out_channels)
        keys = jax.random.split(key, len(widths) - 1)
        self.config = config
        self.layers = [Dense(into, out, key=k) for into, out, k in zip(widths, widths[1:], keys)]

    def __call__(self, tokens: Float[Array, "batch tokens in_channels"]) -> Float[Array, "batch tokens out_channels"]:
        """Numbers of each token.

        Args:
            tokens: Coordinates and whatever else a token has, as numbers.
        """
        x = tokens.reshape(tokens.shape[0], -1)
        for layer in self.layers[:-1]:
            x = jax.nn.gelu(layer(x), approximate=False)
        return self.layers[-1](x).reshape(*tokens.shape[:2], -1)
