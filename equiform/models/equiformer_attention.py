"""Equiformer's attention: messages on edges, a softmax over each node's incoming edges, a projection.

Between gathering the message and the weighted sum everything happens in the edge-aligned frame (`product = "aligned"`), where
tensor products are SO(2) convolutions; gate and linear maps over channels commute with rotations. `product = "plain"` stays in
the global frame and uses the definition of the product.

Source: Liao & Smidt, ICLR 2023, section 3.3 and appendix (linear messages, dot-product attention).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.so3.edge_frame import (
    Aligned,
    from_edge_frame,
    radial_product_linear,
    shared_product_linear,
    to_edge_frame,
)
from equiform.algebra.so3.edge_weights import RadialLinear, SharedLinear, radial_linear, shared_linear
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irreps
from equiform.algebra.so3.products import Paths, depthwise_product
from equiform.edges import Edges
from equiform.models.equiformer_dropout import equivariant_dropout
from equiform.models.equiformer_gate import gate, gate_input, scaled_smooth_leaky_relu
from equiform.models.equiformer_radial import RadialMLP, RadialPieces
from equiform.nn import init
from equiform.nn.attention import streaming_attention
from equiform.nn.edge_frames import EdgeFrames
from equiform.nn.linear import Linear, LinearPair
from equiform.runtime.chunks import kept

ProductForm = Literal["aligned", "plain"]


@dataclass(frozen=True)
class AttentionConfig:
    """Sizes and choices of one attention layer."""

    irreps_in: Irreps
    irreps_message: Irreps
    irreps_head: Irreps
    irreps_out: Irreps
    irreps_sh: Irreps
    num_heads: int
    alpha_channels: int
    radial_widths: tuple[int, ...]
    kind: Literal["nonlinear", "linear", "dot"]
    product: ProductForm
    alpha_dropout: float
    out_dropout: float


class NonlinearMessage(eqx.Module):
    """Message → radial product → (attention scalars | gate → product with learned weights → values).

    f = DTP(m, Y; w(d)); logit_h = Σ_k a_hk · SLReLU(Linear(f)_hk); value = Linear(DTP(Gate(Linear(f)), Y; u)).
    """

    radial: RadialMLP
    linear: Linear
    alpha: Linear
    alpha_dot: Float[Array, "heads channels"]
    value_weights: Float[Array, " weights"]
    value: Linear
    paths: Paths = eqx.field(static=True)
    value_paths: Paths = eqx.field(static=True)
    product: ProductForm = eqx.field(static=True)

    def __init__(self, config: AttentionConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        heads = config.irreps_head * config.num_heads
        self.product = config.product
        self.paths = Paths(config.irreps_message, config.irreps_sh, config.irreps_message)
        self.value_paths = Paths(config.irreps_message, config.irreps_sh, heads)
        self.radial = RadialMLP((*config.radial_widths, self.paths.num_weights), key=keys[0])
        self.linear = Linear(self.paths.irreps_out, gate_input(config.irreps_message), key=keys[1])
        alpha_irreps = Irreps((Chunk(config.num_heads * config.alpha_channels, SCALAR),))
        self.alpha = Linear(self.paths.irreps_out, alpha_irreps, key=keys[2])
        self.alpha_dot = _glorot((config.num_heads, config.alpha_channels), key=keys[3])
        self.value_weights = init.normal((self.value_paths.num_weights,), key=keys[4])
        self.value = Linear(self.value_paths.irreps_out, heads, key=keys[5])

    def __call__(self, m: Features, query: None, frames: EdgeFrames) -> tuple[Array, Features]:
        """The definition, in the global frame."""
        f = depthwise_product(m, frames.directions, self.radial(frames.basis), self.paths)
        logits = attention_logits(self.alpha(f).scalars, self.alpha_dot)
        v = depthwise_product(gate(self.linear(f)), frames.directions, self.value_weights, self.value_paths)
        return logits, self.value(v)

    def ready(self) -> "NonlinearMessage | ReadyMessage":
        """This message for many calls: in the edge frame, if it is not to be by definition."""
        if self.product == "plain":
            return self
        assert self.linear.bias is not None and self.alpha.bias is not None
        # Both maps share their input scalars: one matrix product.
        matrices = dict(self.linear.weights)
        matrices["0e"] = jnp.concatenate([matrices["0e"], self.alpha.weights["0e"]], axis=1)
        return ReadyMessage(
            self.radial.cut(self.paths.sizes),
            radial_linear(self.paths, matrices),
            jnp.concatenate([self.linear.bias, self.alpha.bias]),
            self.alpha_dot,
            shared_linear(self.value_weights, self.value_paths, self.value.weights),
            self.value.bias,
            self.paths,
            self.value_paths,
            self.linear.irreps_out,
            self.value.irreps_out,
        )


class ReadyMessage(eqx.Module):
    """`NonlinearMessage` in the edge frame, with everything computed beforehand that depends on weights only."""

    radial: RadialPieces
    first: RadialLinear
    bias: Float[Array, " _"]
    alpha_dot: Float[Array, "heads channels"]
    second: SharedLinear
    value_bias: Float[Array, " _"] | None
    paths: Paths = eqx.field(static=True)
    value_paths: Paths = eqx.field(static=True)
    irreps_gate: Irreps = eqx.field(static=True)
    irreps_value: Irreps = eqx.field(static=True)

    def __call__(self, m: Features, query: None, frames: EdgeFrames) -> tuple[Array, Features]:
        inside = to_edge_frame(m, frames.directions)
        out = radial_product_linear(inside, self.radial(frames.basis), self.paths, self.first).map(kept)
        sizes = [self.irreps_gate.count(SCALAR), self.alpha_dot.size]
        scalars, alpha = jax.lax.split(out.scalars + self.bias[None], sizes, axis=1)
        hidden = _complete(out, self.irreps_gate, scalars=scalars)
        values = _complete(
            shared_product_linear(gate(hidden), self.value_paths, self.second), self.irreps_value, bias=self.value_bias
        )
        return attention_logits(alpha, self.alpha_dot), from_edge_frame(values, frames.directions)


class LinearMessage(eqx.Module):
    """Message → radial product → Linear: attention scalars and values of all heads at once, no gate."""

    radial: RadialMLP
    linear: Linear
    alpha_dot: Float[Array, "heads channels"]
    paths: Paths = eqx.field(static=True)
    product: ProductForm = eqx.field(static=True)

    def __init__(self, config: AttentionConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.product = config.product
        alpha = Irreps((Chunk(config.alpha_channels, SCALAR),))
        out = ((alpha + config.irreps_head) * config.num_heads).merged()
        self.paths = Paths(config.irreps_message, config.irreps_sh, out)
        self.radial = RadialMLP((*config.radial_widths, self.paths.num_weights), key=keys[0])
        self.linear = Linear(self.paths.irreps_out, out, key=keys[1])
        self.alpha_dot = _glorot((config.num_heads, config.alpha_channels), key=keys[2])

    def __call__(self, m: Features, query: None, frames: EdgeFrames) -> tuple[Array, Features]:
        out = radial_convolution(m, frames, self.radial, self.linear, self.paths, self.product)
        num_heads, size = self.alpha_dot.shape
        scalars = out.scalars.reshape(out.scalars.shape[0], num_heads, -1)
        alpha, values = jax.lax.split(scalars, [size, scalars.shape[2] - size], axis=2)
        values = values.reshape(values.shape[0], 1, -1)
        blocks = [values if ir == SCALAR else block for block, (_, ir) in zip(out.blocks, out.irreps)]
        chunks = (Chunk(values.shape[-1] if ir == SCALAR else mul, ir) for mul, ir in out.irreps)
        return attention_logits(alpha, self.alpha_dot), Features(blocks, Irreps(tuple(chunks)))


class DotProductMessage(eqx.Module):
    """Message → radial product → Linear: keys and values; logits are dot products with the receiver's query."""

    radial: RadialMLP
    linear: Linear
    query: Linear
    paths: Paths = eqx.field(static=True)
    product: ProductForm = eqx.field(static=True)
    num_heads: int = eqx.field(static=True)

    def __init__(self, config: AttentionConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.product, self.num_heads = config.product, config.num_heads
        out = config.irreps_head * (2 * config.num_heads)
        self.paths = Paths(config.irreps_message, config.irreps_sh, out)
        self.radial = RadialMLP((*config.radial_widths, self.paths.num_weights), key=keys[0])
        self.linear = Linear(self.paths.irreps_out, out, key=keys[1])
        self.query = Linear(config.irreps_in, config.irreps_head * config.num_heads, key=keys[2])

    def __call__(self, m: Features, query: Features, frames: EdgeFrames) -> tuple[Array, Features]:
        out = radial_convolution(m, frames, self.radial, self.linear, self.paths, self.product)
        halves = [jax.lax.split(block, [mul // 2, mul // 2], axis=2) for block, (mul, _) in zip(out.blocks, out.irreps)]
        copies = query.irreps.num_channels // self.num_heads
        logits = jnp.zeros((len(out.blocks[0]), self.num_heads), out.blocks[0].dtype)
        for q, (k, _), (_, irrep) in zip(query.blocks, halves, query.irreps):
            product = (q * k).sum(axis=1).reshape(q.shape[0], self.num_heads, -1).sum(axis=-1)
            logits = logits + product / sqrt(copies * irrep.dim)
        return logits, Features([values for _, values in halves], query.irreps)


class GraphAttention(eqx.Module):
    """x_t ↦ Linear(Σ_s a_ts v_ts) with the message m_ts = Linear(x_s) + Linear(x_t).

    Equivariant under SO(3), and under O(3) if the irreps carry true parities.
    """

    source: Linear
    target: Linear
    message: NonlinearMessage | LinearMessage | DotProductMessage
    projection: Linear
    config: AttentionConfig = eqx.field(static=True)

    def __init__(self, config: AttentionConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        self.config = config
        self.source = Linear(config.irreps_in, config.irreps_message, key=keys[0])
        self.target = Linear(config.irreps_in, config.irreps_message, bias=False, key=keys[1])
        kinds = {"nonlinear": NonlinearMessage, "linear": LinearMessage, "dot": DotProductMessage}
        self.message = kinds[config.kind](config, key=keys[2])
        self.projection = Linear(config.irreps_head * config.num_heads, config.irreps_out, key=keys[3])

    def ready(self) -> "ReadyAttention":
        """This layer with everything computed that depends on weights only: once, outside a loop over layers."""
        message = self.message.ready() if isinstance(self.message, NonlinearMessage) else self.message
        return ReadyAttention(LinearPair(self.source, self.target), message, self.projection, self.config)


class ReadyAttention(eqx.Module):
    """`GraphAttention` for use; the maps of source and target are one product."""

    ends: LinearPair
    message: NonlinearMessage | ReadyMessage | LinearMessage | DotProductMessage
    projection: Linear
    config: AttentionConfig = eqx.field(static=True)

    def __call__(
        self, x: Features, edges: Edges, frames: EdgeFrames, *, key: PRNGKeyArray | None = None
    ) -> tuple[Features, Float[Array, "edges heads"]]:
        """One attention layer.

        Args:
            x: Node features, already normalised.
            edges: The edges.
            frames: Their directions and radial basis.
            key: PRNG key for dropout; None means evaluation.

        Returns:
            The new features and the attention weights before dropout.
        """
        alpha_key, out_key = (None, None) if key is None else jax.random.split(key)
        sent, received = self.ends(x)
        m = sent[edges.senders] + received.map(edges.at_receivers)
        query = self.message.query(x).map(edges.at_receivers) if isinstance(self.message, DotProductMessage) else None
        inputs = (m, query, frames)
        rate = self.config.alpha_dropout
        summed, weights = streaming_attention(self.message, inputs, edges, dropout_rate=rate, key=alpha_key)
        return equivariant_dropout(self.projection(summed), self.config.out_dropout, key=out_key), weights


def attention_logits(
    alpha: Float[Array, "edges *sizes"], alpha_dot: Float[Array, "heads channels"]
) -> Float[Array, "edges heads"]:
    """Σ_k a_hk · SLReLU(z_hk): the activation comes before the dot product, as in GATv2."""
    z = alpha.reshape(alpha.shape[0], *alpha_dot.shape)
    return (scaled_smooth_leaky_relu(z) * alpha_dot[None]).sum(axis=-1)


def radial_convolution(
    m: Features, frames: EdgeFrames, radial: RadialMLP, linear: Linear, paths: Paths, product: ProductForm
) -> Features:
    """Linear(DTP(m, Y; w(d))), in the edge frame or in the global one."""
    if product == "plain":
        return linear(depthwise_product(m, frames.directions, radial(frames.basis), paths))
    weights = radial.cut(paths.sizes)(frames.basis)
    out = radial_product_linear(to_edge_frame(m, frames.directions), weights, paths, radial_linear(paths, linear.weights))
    return from_edge_frame(_complete(out, linear.irreps_out, bias=linear.bias), frames.directions)


def _complete(products: Aligned, irreps: Irreps, *, bias: Array | None = None, scalars: Array | None = None) -> Aligned:
    """Complete a linear map from its matrix products: add the bias, and zeros for output irreps that no path reaches.

    Args:
        products: The matrix products, per irrep.
        irreps: Output irreps of the linear map.
        bias: Of the 0e channels, if there is one.
        scalars: The 0e channels, bias included, if already computed.
    """
    result = []
    for mul, irrep in irreps:
        parts = products.get(irrep)
        if irrep == SCALAR and scalars is not None:
            parts = (scalars[:, None, :],)
        elif parts is None:
            first = products.parts[0][0]
            parts = tuple(jnp.zeros((len(first), 2 if m else 1, mul), first.dtype) for m in range(irrep.l + 1))
        elif irrep == SCALAR and bias is not None:
            parts = (parts[0] + bias[None, None],)
        result.append(parts)
    return Aligned(tuple(result), irreps)


def _glorot(shape: tuple[int, int], *, key: PRNGKeyArray) -> Array:
    bound = sqrt(6 / sum(shape))
    return init.uniform(shape, -bound, bound, key=key)
