"""GATr, the geometric algebra transformer, in four algebras: tokens of multivectors, mixed by attention and geometric products.

Each token carries multivector channels x (objects of space: points, planes, motors …) and invariant scalar channels s. Layers
are linear maps that commute with E(3), products of the algebra, attention with invariant logits, and gates by invariants:

    x, s = Linear(x, s)
    x, s = x, s + Linear Attention(N x, N s)                            attention: nn/multivector_attention
    x, s = x, s + Linear gate Linear [L x · R x,  ρ (J_L x ∨ J_R x)]    of N x, N s; ρ: e123 of a reference multivector
    x, s = Linear(x, s)

| `algebra` | | products in a block | distances in attention | exact symmetry |
|---|---|---|---|---|
| "improved-projective" | GATr, G(3,0,1) | geometric and join, each half of the channels | yes | E(3) |
| "projective" | G(3,0,1) | geometric | no: scalars cannot see a point move | E(3) |
| "euclidean" | G(3,0,0) | geometric | directions only; count positions from a centre | O(3) |
| "conformal" | G(4,1), null basis | geometric | in the inner product, −½|p − q|² | E(3) |

The symmetry is that of the multivectors. Projective points and rays change sign under mirrors (`algebra/clifford/projective`):
a task that embeds points and extracts points is equivariant under SE(3) alone.

Source: Brehmer, de Haan, Behrends & Cohen, NeurIPS 2023 (arXiv:2305.18415), and the authors' code, release 1.4.3; de Haan,
Cohen & Brehmer, AISTATS 2024 (arXiv:2311.04744) for the other algebras, whose code was never released.
Differs: the reference of the join is a mean over tokens and channels also where there is no batch axis; the released code then
takes one per token, which `reference` can be. E, P and C are our reading of the paper (docs/models/gatr.md). The angles of a
rotary encoding are not rounded to float32.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equiform.algebra.clifford.geometry import Geometry, conformal, euclidean, projective
from equiform.algebra.clifford.products import geometric_product, join
from equiform.errors import UserError
from equiform.nn import init
from equiform.nn.dense_attention import DEFAULT, Execution
from equiform.nn.dropout import dropout
from equiform.nn.multivector import (
    Activation,
    MultivectorLinear,
    gate,
    grade_dropout,
    multivector_norm,
    scalar_gate,
    scalar_norm,
    together,
)
from equiform.nn.multivector_attention import AttentionMask, multivector_attention, rotary
from equiform.nn.multivector_init import Scheme

AlgebraName = Literal["euclidean", "projective", "improved-projective", "conformal"]
Multivectors = Float[Array, "*batch tokens channels components"]
Scalars = Float[Array, "*batch tokens scalars"]


class GATrConfig(BaseModel):
    """Everything that fixes a GATr's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["gatr"] = "gatr"
    algebra: AlgebraName = "improved-projective"
    in_channels: int = Field(default=1, ge=1, description="Multivectors of each token at the input.")
    out_channels: int = Field(default=1, ge=1)
    channels: int = Field(default=16, ge=1, description="Multivector channels of the blocks.")
    in_scalars: int = Field(default=0, ge=0, description="Scalars of each token at the input.")
    out_scalars: int = Field(default=0, ge=0)
    scalars: int = Field(default=128, ge=1, description="Scalar channels of the blocks; cannot be left out.")
    num_blocks: int = Field(default=10, ge=1)
    num_heads: int = Field(default=8, ge=1)
    multi_query: bool = Field(default=True, description="Keys and values shared by all heads.")
    reinserted_channels: tuple[int, ...] = Field(default=(), description="Input multivectors given again to queries and keys.")
    reinserted_scalars: tuple[int, ...] = Field(default=(), description="Input scalars given again to queries and keys.")
    activation: Activation = "gelu"
    join_reference: Literal["data", "canonical"] = Field(default="data", description="Mean of the input, or 1.")
    rotary: bool = Field(default=False, description="Scalars of queries and keys know the token's place in the sequence.")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    init: Scheme = "balanced"

    @model_validator(mode="after")
    def _reinserted_exist(self) -> "GATrConfig":
        for what, chosen, number in (
            ("reinserted_channels", self.reinserted_channels, self.in_channels),
            ("reinserted_scalars", self.reinserted_scalars, self.in_scalars),
        ):
            if any(not 0 <= i < number for i in chosen):
                raise ValueError(f"{what} {list(chosen)} must be places among the {number} of the input, counted from 0")
        return self

    @property
    def geometry(self) -> Geometry:
        """The model of space."""
        return {"euclidean": euclidean, "conformal": conformal}.get(self.algebra, projective)()


class GATr(eqx.Module):
    """The model; call it with arrays. Equivariant under E(3), O(3) for "euclidean", and under permutations without `rotary`."""

    linear_in: MultivectorLinear
    blocks: "Block"
    linear_out: MultivectorLinear
    config: GATrConfig = eqx.field(static=True)

    def __init__(self, config: GATrConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, config.num_blocks + 2)
        self.config = config
        geometry, inner, scheme = config.geometry, config.channels, config.init
        self.linear_in = MultivectorLinear(
            geometry, (config.in_channels, inner), (config.in_scalars, config.scalars), scheme=scheme, key=keys[0]
        )
        self.blocks = init.stack([Block(config, rotary=config.rotary, key=k) for k in keys[2:]])  # leaves: blocks first
        self.linear_out = MultivectorLinear(
            geometry, (inner, config.out_channels), (config.scalars, config.out_scalars), scheme=scheme, key=keys[1]
        )

    def __call__(
        self,
        x: Multivectors,
        s: Scalars | None = None,
        *,
        mask: AttentionMask | None = None,
        segments: Int[Array, "*batch tokens"] | None = None,
        reference: Float[Array, "... components"] | None = None,
        key: PRNGKeyArray | None = None,
        execution: Execution = DEFAULT,
    ) -> tuple[Float[Array, "*batch tokens _ components"], Float[Array, "*batch tokens _"]]:
        """Multivectors and scalars of each token.

        Args:
            x: Multivector channels.
            s: Scalar channels; None or an empty last axis where the model has none at its input.
            mask: True where a token is seen, or what is added to the logits; tokens by tokens, or batch and heads before them.
            segments: The set that each token belongs to: tokens see those of their own.
            reference: Reference multivector of the join, that broadcasts against x; None: as configured.
            key: Switches dropout on.
            execution: Kernel and memory.

        Raises:
            UserError: If channels or components are not those of the model.
        """
        state, _ = self._run(x, s, mask, segments, reference, key, execution, keep=False)
        return self.linear_out(*state)

    def hidden_states(
        self, x: Multivectors, s: Scalars | None = None, *, mask: AttentionMask | None = None, execution: Execution = DEFAULT
    ) -> tuple[Float[Array, "blocks *batch tokens _ components"], Float[Array, "blocks *batch tokens _"]]:
        """Multivectors and scalars after each block."""
        return self._run(x, s, mask, None, None, None, execution, keep=True)[1]

    def _run(self, x, s, mask, segments, reference, key, execution: Execution, *, keep: bool) -> Any:
        """State after the last block, and the states after all blocks or None."""
        config, s = self.config, jnp.zeros((*x.shape[:-2], 0), x.dtype) if s is None else s
        check_inputs(config, x, s)
        setting = Setting(join_weight(config, x, reference), mask, segments, *_reinserted(config, x, s), execution=execution)
        keys = None if key is None else jax.random.split(key, config.num_blocks)

        def step(state, inputs):
            block, block_key = inputs
            state = block(*state, setting, key=block_key)
            return state, state if keep else None

        if execution.rematerialise:
            step = jax.checkpoint(step)
        return jax.lax.scan(step, self.linear_in(x, s), (self.blocks, keys))


class Setting(eqx.Module):
    """Inputs common to all blocks.

    Attributes:
        join_weight: ρ.
        mask: Which tokens see which.
        segments: The set of each token.
        again: Input multivectors given again to queries and keys.
        again_scalars: Input scalars given again.
        execution: Kernel and memory.
    """

    join_weight: Float[Array, "..."] | None
    mask: AttentionMask | None
    segments: Int[Array, "*batch tokens"] | None
    again: Float[Array, "*batch tokens _ components"]
    again_scalars: Float[Array, "*batch tokens _"]
    execution: Execution = eqx.field(static=True)


class Block(eqx.Module):
    """x + Attention(N x), then x + Products(N x); one norm, without parameters, for both."""

    attention: "SelfAttention"
    products: "Products"
    config: GATrConfig = eqx.field(static=True)

    def __init__(self, config: GATrConfig, *, rotary: bool, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.attention = SelfAttention(config, rotary=rotary, key=keys[0])
        self.products = Products(config, key=keys[1])
        self.config = config

    def __call__(
        self, x: Multivectors, s: Scalars, setting: Setting, *, key: PRNGKeyArray | None = None
    ) -> tuple[Multivectors, Scalars]:
        keys = (None, None) if key is None else jax.random.split(key)
        for layer, layer_key in zip((self.attention, self.products), keys):
            dx, ds = layer(multivector_norm(self.config.geometry.algebra, x), scalar_norm(s), setting, key=layer_key)
            x, s = x + dx, s + ds
        return x, s


class SelfAttention(eqx.Module):
    """Queries, keys and values by equivariant linear maps; c = ⌊2C/H⌋ multivectors and ⌊2S/H⌋ scalars a head, at least 1 and 4.

    Attributes:
        inputs: Maps to queries, keys and values; one map to all three without `multi_query`.
        out: Map of all heads' values.
        log_weights: w_hc, weights of distances.
    """

    inputs: tuple[MultivectorLinear, ...]
    out: MultivectorLinear
    log_weights: Float[Array, "heads channels"] | None
    config: GATrConfig = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)

    def __init__(self, config: GATrConfig, *, rotary: bool, key: PRNGKeyArray):
        keys, heads = jax.random.split(key, 4), config.num_heads
        channels, scalars = max(2 * config.channels // heads, 1), max(2 * config.scalars // heads, 4)
        if rotary:
            scalars = max(scalars + scalars % 2, 8)
        self.config, self.rotary = config, rotary
        plain = (config.channels, config.scalars)
        longer = (config.channels + len(config.reinserted_channels), config.scalars + len(config.reinserted_scalars))
        sizes = ((longer, heads), (longer, 1), (plain, 1)) if config.multi_query else ((longer, 3 * heads),)
        self.inputs = tuple(
            MultivectorLinear(
                config.geometry, (into[0], channels * copies), (into[1], scalars * copies), scheme=config.init, key=k
            )
            for (into, copies), k in zip(sizes, keys)
        )
        self.out = MultivectorLinear(
            config.geometry,
            (channels * heads, config.channels),
            (scalars * heads, config.scalars),
            scheme=config.init,
            role="small",
            key=keys[3],
        )
        self.log_weights = None
        if config.algebra == "improved-projective":
            self.log_weights = init.zeros(heads * channels).reshape(heads, channels)

    def __call__(
        self, x: Multivectors, s: Scalars, setting: Setting, *, key: PRNGKeyArray | None = None
    ) -> tuple[Multivectors, Scalars]:
        (q, q_s), (k, k_s), values = self.queries_keys_values(x, s, setting)
        if self.rotary:
            q_s, k_s = rotary(q_s), rotary(k_s)
        y, t = multivector_attention(
            self.config.geometry,
            (q, q_s),
            (k, k_s),
            values,
            log_weights=self.log_weights,
            mask=setting.mask,
            segments=setting.segments,
            execution=setting.execution,
        )
        # Head slowest from here on.
        x, s = self.out(y.reshape(*x.shape[:-2], -1, x.shape[-1]), t.reshape(*s.shape[:-1], -1))
        return _dropped(self.config, x, s, key)

    def queries_keys_values(self, x: Multivectors, s: Scalars, setting: Setting) -> list[tuple[Array, Array]]:
        """Multivectors (… tokens heads channels components) and scalars (… tokens heads scalars) of each of the three."""
        longer = jnp.concatenate([x, setting.again], axis=-2)
        longer_s = jnp.concatenate([s, setting.again_scalars], axis=-1)
        heads = self.config.num_heads
        if not self.config.multi_query:
            y, t = self.inputs[0](longer, longer_s)
            return [_heads_apart(*part, heads) for part in zip(jnp.split(y, 3, axis=-2), jnp.split(t, 3, axis=-1))]
        query, key, value = self.inputs
        if longer.shape == x.shape and longer_s.shape == s.shape:
            q, k, v = together(self.inputs, x, s)
        else:
            (q, k), v = together((query, key), longer, longer_s), value(x, s)
        return [_heads_apart(*q, heads), _heads_apart(*k, 1), _heads_apart(*v, 1)]


class Products(eqx.Module):
    """Linear, gate, linear on products of the channels: the part that combines objects.

    Attributes:
        factors: Maps to the factors of the products: L and R, and J_L and J_R of the join.
        mix: Map of the products, 2C → 2C.
        out: Map after the gate, 2C → C.
    """

    factors: tuple[MultivectorLinear, ...]
    mix: MultivectorLinear
    out: MultivectorLinear
    config: GATrConfig = eqx.field(static=True)

    def __init__(self, config: GATrConfig, *, key: PRNGKeyArray):
        keys, geometry, inner, scalars = jax.random.split(key, 6), config.geometry, config.channels, config.scalars
        self.config = config
        width, roles = (inner, 4) if config.algebra == "improved-projective" else (2 * inner, 2)
        self.factors = tuple(
            MultivectorLinear(
                geometry,
                (inner, width),
                (scalars, 0),
                scheme=config.init,
                role="near_unit" if i == 1 else "default",
                key=keys[i],
            )
            for i in range(roles)
        )
        self.mix = MultivectorLinear(geometry, (2 * inner, 2 * inner), (scalars, 2 * scalars), scheme=config.init, key=keys[4])
        self.out = MultivectorLinear(geometry, (2 * inner, inner), (2 * scalars, scalars), scheme=config.init, key=keys[5])

    def __call__(
        self, x: Multivectors, s: Scalars, setting: Setting, *, key: PRNGKeyArray | None = None
    ) -> tuple[Multivectors, Scalars]:
        keys, config = (None, None) if key is None else jax.random.split(key), self.config
        algebra = config.geometry.algebra
        left, right, *joined = (y for y, _ in together(self.factors, x, s))
        products = geometric_product(algebra, left, right)
        if setting.join_weight is not None:
            products = jnp.concatenate([products, setting.join_weight * join(algebra, *joined)], axis=-2)
        x, s = _dropped(config, *self.mix(products, s), keys[0])
        x, s = self.out(gate(x, config.activation), scalar_gate(s, config.activation))
        return _dropped(config, x, s, keys[1])


def join_weight(
    config: GATrConfig, x: Multivectors, reference: Float[Array, "... components"] | None = None
) -> Float[Array, "..."] | None:
    """ρ, the e123 component of the join's reference multivector, which changes sign under mirrors as the join does.

    Args:
        config: The model's configuration.
        x: The input; its mean over tokens and channels is the reference "data".
        reference: A given reference; broadcasts against x.
    """
    if config.algebra != "improved-projective":
        return None
    place = config.geometry.algebra.index("e123")
    if reference is not None:
        return jnp.expand_dims(reference, tuple(range(x.ndim - reference.ndim)))[..., place : place + 1]
    if config.join_reference == "canonical":
        return jnp.ones((1,) * x.ndim, x.dtype)
    return x[..., place : place + 1].mean((-3, -2), keepdims=True)


def _heads_apart(x: Array, s: Array, heads: int) -> tuple[Array, Array]:
    """Heads from channels, of which the head is the fastest index."""
    x = x.reshape(*x.shape[:-2], -1, heads, x.shape[-1])
    s = s.reshape(*s.shape[:-1], -1, heads)
    return jnp.swapaxes(x, -3, -2), jnp.swapaxes(s, -2, -1)


def _dropped(config: GATrConfig, x: Array, s: Array, key: PRNGKeyArray | None) -> tuple[Array, Array]:
    keys = (None, None) if key is None else jax.random.split(key)
    return (
        grade_dropout(config.geometry.algebra, x, config.dropout, key=keys[0]),
        dropout(s, config.dropout, key=keys[1]),
    )


def _reinserted(config: GATrConfig, x: Array, s: Array) -> tuple[Array, Array]:
    """The inputs that queries and keys are given again, possibly none."""
    channels = [x[..., i : i + 1, :] for i in config.reinserted_channels]
    scalars = [s[..., i : i + 1] for i in config.reinserted_scalars]
    return jnp.concatenate([x[..., :0, :], *channels], axis=-2), jnp.concatenate([s[..., :0], *scalars], axis=-1)


def check_inputs(config: GATrConfig, x: Array, s: Array) -> None:
    """Refuse arrays of the wrong shape."""
    size = config.geometry.algebra.num_components
    if x.ndim < 3 or x.shape[-2:] != (config.in_channels, size):
        raise UserError(
            f"the multivectors have shape {x.shape}; a {config.algebra} model with {config.in_channels} input channels takes "
            f"(…, tokens, {config.in_channels}, {size})"
        )
    if s.shape[-1] != config.in_scalars:
        raise UserError(f"{s.shape[-1]} scalars of each token; the model was built with in_scalars = {config.in_scalars}")
    for what, values, axes in (("multivectors", x, 2), ("scalars", s, 1)):
        if isinstance(values, Tracer):  # numbers are not known while a program is compiled
            continue
        bad = ~np.isfinite(np.asarray(values)).all(axis=tuple(range(-axes, 0)))
        if bad.any():
            place = ", ".join(str(k) for k in np.argwhere(bad)[0])
            raise UserError(f"the {what} of {bad.sum()} tokens are not finite, the first at [{place}]; check the input")
