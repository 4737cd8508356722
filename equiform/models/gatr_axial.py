"""AxialGATr: tokens on a grid of two axes (objects and times, say), whose blocks attend along one axis and the other in turn.

Block 0 attends along the second axis, block 1 along the first, and so on; everything else is a block of GATr. Either axis may
have a rotary encoding.

Source: authors' code of Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), release 1.4.3.
"""

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, model_validator

from equiform.models.gatr import Block, GATrConfig, Setting, check_inputs, join_weight
from equiform.nn.dense_attention import DEFAULT, Execution
from equiform.nn.multivector import MultivectorLinear
from equiform.nn.multivector_attention import AttentionMask

Multivectors = Float[Array, "*batch rows columns channels components"]
Scalars = Float[Array, "*batch rows columns scalars"]
Masks = tuple[AttentionMask | None, AttentionMask | None]


class AxialGATrConfig(BaseModel):
    """Everything that fixes an AxialGATr's function and parameters.

    Attributes:
        layers: Sizes and options, as for GATr; no inputs are re-inserted.
        rotary: Whether attention along the first and the second axis knows a token's place.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["axial-gatr"] = "axial-gatr"
    layers: GATrConfig
    rotary: tuple[bool, bool] = (False, False)

    @model_validator(mode="after")
    def _nothing_twice(self) -> "AxialGATrConfig":
        if self.layers.rotary or self.layers.reinserted_channels or self.layers.reinserted_scalars:
            raise ValueError(
                "an axial GATr sets `rotary` by axis, outside `layers`, and re-inserts no inputs: leave both out of `layers`"
            )
        return self


class AxialGATr(eqx.Module):
    """The model; call it with arrays. Equivariant under E(3), O(3) for "euclidean"."""

    linear_in: MultivectorLinear
    blocks: list[Block]
    linear_out: MultivectorLinear
    config: AxialGATrConfig = eqx.field(static=True)

    def __init__(self, config: AxialGATrConfig, *, key: PRNGKeyArray):
        sizes = config.layers
        keys, geometry, scheme = jax.random.split(key, sizes.num_blocks + 2), sizes.geometry, sizes.init
        self.config = config
        self.linear_in = MultivectorLinear(
            geometry, (sizes.in_channels, sizes.channels), (sizes.in_scalars, sizes.scalars), scheme=scheme, key=keys[0]
        )
        self.blocks = [Block(sizes, rotary=config.rotary[_axis(i)], key=k) for i, k in enumerate(keys[2:])]
        self.linear_out = MultivectorLinear(
            geometry, (sizes.channels, sizes.out_channels), (sizes.scalars, sizes.out_scalars), scheme=scheme, key=keys[1]
        )

    def __call__(
        self,
        x: Multivectors,
        s: Scalars | None = None,
        *,
        masks: Masks = (None, None),
        key: PRNGKeyArray | None = None,
        execution: Execution = DEFAULT,
    ) -> tuple[Float[Array, "*batch rows columns _ components"], Float[Array, "*batch rows columns _"]]:
        """Multivectors and scalars of each token.

        Args:
            x: Multivector channels.
            s: Scalar channels; None where the model has none at its input.
            masks: What attention along the first and the second axis sees, as for `GATr`; the other axis is one of the batch.
            key: Switches dropout on.
            execution: Kernel and memory.
        """
        return self.linear_out(*self.hidden_states(x, s, masks=masks, key=key, execution=execution)[-1])

    def hidden_states(
        self,
        x: Multivectors,
        s: Scalars | None = None,
        *,
        masks: Masks = (None, None),
        key: PRNGKeyArray | None = None,
        execution: Execution = DEFAULT,
    ) -> list[tuple[Float[Array, "*batch rows columns _ components"], Float[Array, "*batch rows columns _"]]]:
        """Multivectors and scalars after each block."""
        s = jnp.zeros((*x.shape[:-2], 0), x.dtype) if s is None else s
        check_inputs(self.config.layers, x, s)
        weight = join_weight(self.config.layers, x.reshape(*x.shape[:-4], -1, *x.shape[-2:]))
        weight = None if weight is None else jnp.expand_dims(weight, -3)
        (x, s), states = self.linear_in(x, s), []
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for i, (block, block_key) in enumerate(zip(self.blocks, keys)):
            run = partial(_run, block, _axis(i), masks[_axis(i)], execution)
            run = jax.checkpoint(run) if execution.rematerialise else run
            x, s = run(x, s, weight, block_key)
            states.append((x, s))
        return states


def _run(
    block: Block,
    axis: int,
    mask: AttentionMask | None,
    execution: Execution,
    x: Multivectors,
    s: Scalars,
    weight: Array | None,
    key: PRNGKeyArray | None,
) -> tuple[Multivectors, Scalars]:
    """A block along an axis."""
    if axis == 0:
        x, s = jnp.swapaxes(x, -4, -3), jnp.swapaxes(s, -3, -2)
    x, s = block(x, s, Setting(weight, mask, None, x[..., :0, :], s[..., :0], execution), key=key)
    return (x, s) if axis else (jnp.swapaxes(x, -4, -3), jnp.swapaxes(s, -3, -2))


def _axis(block: int) -> int:
    """The axis that a block attends along."""
    return (block + 1) % 2
