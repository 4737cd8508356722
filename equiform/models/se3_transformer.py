"""SE(3)-Transformer: attention over neighbours on features of every degree, with keys and values from tensor field kernels.

Nodes carry c channels of each degree 0 … l_max. Kernels W(r_ij), whose radial networks take the distance and edge scalars,
compute keys and values from the sender's features; queries are a linear map of the receiver's. The attention output is
concatenated with the node's features and mixed by one matrix per degree, and a non-linearity scales each channel by a function
of its length.

    q_i = W_Q f_i,   k_ij = W_K(r_ij) f_j,   v_ij = W_V(r_ij) f_j                                     per head
    a_ij = softmax_j(Σ_l ⟨q_i^l, k_ij^l⟩ / √(components of q))
    f_i ← nonlinearity(W [Σ_j a_ij v_ij, f_i])
    f_i ← nonlinearity(mean_j W_V(r_ij) f_j + W f_i)      with `attention = False`: a Tensor Field Network

Source: Fuchs et al., NeurIPS 2020 (arXiv:2006.10503); reference code FabianFuchsML/se3-transformer-public; Thomas et al., 2018.
Differs: by default, and not in the presets named after the paper, `cutoff_kind = "smooth"` (attention vanishes at the cutoff,
means are sums over a constant number of neighbours); `nonlinearity = "smooth"` (no direction of a vanishing feature is taken,
and SiLU everywhere instead of ReLU); `true_parity` leaves out kernels that change sign under reflection; `num_basis` gives a
radial basis instead of the bare distance; `embed` gives all input degrees the same number of channels; `readout = "atoms"` sums
atomic energies. Graphs have distances, not chemical bonds: the reference's QM9 model has bond types as inputs, ours does not.
Kernels are evaluated in the frame of the edge (`equiform.algebra.so3.edge_kernel`), the same function.
"""

from math import gcd, sqrt
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform import fields
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Chunk, Irrep, Irreps
from equiform.algebra.so3.rotations import Directions
from equiform.edges import Edges, make_edges
from equiform.graph import Graph
from equiform.models import averages
from equiform.models.api import E3, ENERGY, POOLED_ENERGY, SE3, AttendingModel, ModelConfig, Traits, all_decay
from equiform.models.se3_kernel import RadialKernel
from equiform.models.se3_nonlinearity import AttentiveMix, NormKind, NormNonlinearity
from equiform.models.width import WidthFields
from equiform.nn import init
from equiform.nn.attention import attention, sum_over_edges, weigh_heads
from equiform.nn.dense import MLP
from equiform.nn.edge_frames import EdgeFrames
from equiform.nn.fields import node_columns
from equiform.nn.linear import Linear
from equiform.nn.radial import ExpNormalBasis
from equiform.nn.species import type_table
from equiform.runtime.chunks import in_chunks
from equiform.runtime.policy import edge_chunk


class SE3TransformerConfig(ModelConfig):
    """Everything that determines an SE(3)-Transformer's function and parameters."""

    # Not radial_width: kernels have channels² · radial_width weights.
    width_fields: ClassVar[WidthFields] = {"channels": ("division", "num_heads")}

    name: Literal["se3-transformer"] = "se3-transformer"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows; (0,) for particles without a type.")
    cutoff: float = Field(5.0, gt=0, description="Neighbours are closer than this, Å; larger than the graph: fully connected.")
    num_layers: int = Field(4, ge=1, description="Number of layers before the readout, which has one of its own.")
    l_max: int = Field(2, ge=0, le=6, description="Highest degree of features.")
    channels: int = Field(32, ge=1, description="Channels of each degree.")
    division: int = Field(4, ge=1, description="Channels of keys and values: channels / division.")
    num_heads: int = Field(4, ge=1)
    attention: bool = Field(True, description="False: a Tensor Field Network.")
    self_interaction: Literal["linear", "attentive"] = Field("linear", description="How layers mix old and new channels.")
    last_self_interaction: Literal["linear", "attentive"] = Field("linear", description="The same in the vector readout.")
    add_direction: bool = Field(False, description="Add the edge vector to the first vector channel of the sender.")
    radial_width: int = Field(32, ge=2, description="Hidden width of the radial networks.")
    num_basis: int = Field(16, ge=0, description="Radial basis functions; 0: the bare distance.")
    nonlinearity: NormKind = "smooth"
    species: Literal["one_hot", "with_number"] | None = Field(
        "one_hot", description='Inputs from the element; "with_number": the atomic number too; None: not used.'
    )
    embed: bool = Field(True, description="A linear map brings the inputs to `channels` scalars (and vectors, if any).")
    node_scalars: tuple[str, ...] = Field((), description="Scalar node fields used as inputs.")
    node_vectors: tuple[str, ...] = Field((), description="Vector node fields used as inputs.")
    edge_products: tuple[str, ...] = Field((), description="Node fields whose product over both ends is an edge scalar.")
    vector_readouts: tuple[str, ...] = Field((), description="Names of the vectors per node.")
    readout: Literal["atoms", "max", "mean"] | None = Field(
        "atoms", description="Energies: a sum over atoms, or a network on atoms pooled by maximum or mean as in the reference."
    )
    cutoff_kind: Literal["smooth", "sharp"] = "smooth"
    true_parity: bool = Field(True, description="Equivariant under O(3), not only SO(3).")
    average_degree: float = Field(averages.DEGREE, gt=0, description="Average neighbours per atom, for normalisation.")
    edge_chunk: int | None = Field(None, ge=0, description="Edges per chunk; None: by memory; 0: not chunked.")

    @model_validator(mode="after")
    def _consistent(self) -> "SE3TransformerConfig":
        if self.readout is None and not self.vector_readouts:
            raise ValueError("there is nothing to predict: give readout or vector_readouts")
        if self.vector_readouts and not self.l_max:
            raise ValueError("vector_readouts need l_max of at least 1")
        if self.attention and self.channels % (self.division * self.num_heads):
            raise ValueError(f"channels ({self.channels}) must be a multiple of division · num_heads")
        return self

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        scalar = {None: (), "atoms": (ENERGY,)}.get(self.readout, (POOLED_ENERGY,))
        vectors = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        scalars = tuple(dict.fromkeys((*self.node_scalars, *self.edge_products)))
        needs = [fields.Field(name, "atoms", "invariant") for name in scalars]
        needs += [fields.Field(name, "atoms", "polar") for name in self.node_vectors]
        return Traits(
            symmetries=E3 if self.true_parity else SE3,
            outputs=scalar + vectors,
            needs=tuple(needs),
            elements=self.elements,
            cutoff=self.cutoff,
            smooth=self.cutoff_kind == "smooth",
            additive=self.readout not in ("max", "mean"),
            stable=self.nonlinearity == "smooth",
            edges_only=True,
        )

    def fibre(self, channels: dict[int, int]) -> Irreps:
        """Irreps from channels per degree, with the model's parity of each degree."""
        parity = -1 if self.true_parity else 1
        return Irreps(tuple(Chunk(mul, Irrep(l, parity**l)) for l, mul in sorted(channels.items()) if mul))

    @property
    def inputs(self) -> Irreps:
        """Irreps of the node inputs."""
        size = 0 if self.species is None else len(self.elements) + (self.species == "with_number")
        size += len(self.node_scalars)
        return self.fibre({0: size if size or self.node_vectors else 1, 1: len(self.node_vectors)})

    @property
    def hidden(self) -> Irreps:
        """Features between layers."""
        return self.fibre(dict.fromkeys(range(self.l_max + 1), self.channels))


class SE3Transformer(AttendingModel):
    """The model; call it on a graph. Invariant energies, equivariant vectors: under SE(3), and E(3) with true parities."""

    embedding: Linear | None
    first: "Layer"
    layers: "Layer | None"
    scalar_layer: "Convolution | None"
    vector_layer: "AttentionBlock | Convolution | None"
    network: MLP | None
    basis: ExpNormalBasis | None = eqx.field(static=True)
    config: SE3TransformerConfig = eqx.field(static=True)

    def __init__(self, config: SE3TransformerConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, config.num_layers + 4)
        self.config = config
        self.basis = ExpNormalBasis(config.num_basis, config.cutoff) if config.num_basis else None
        inputs, self.embedding = config.inputs, None
        if config.embed:
            wide = config.fibre({irrep.l: config.channels for _, irrep in inputs})
            self.embedding = Linear(inputs, wide, bias=False, gain=sqrt(len(config.elements)), key=keys[0])
            inputs = wide
        # All layers but the first have the same shapes: they are stacked and scanned over.
        self.first = Layer(config, inputs, key=keys[1])
        rest = [Layer(config, config.hidden, key=k) for k in keys[5:]]
        self.layers = init.stack(rest) if rest else None
        self.scalar_layer = self.vector_layer = self.network = None
        if config.readout is not None:
            width = config.hidden.num_channels
            self.scalar_layer = Convolution(config, config.hidden, config.fibre({0: width}), key=keys[2])
            self.network = MLP(width, width, 1, key=keys[3])
        if config.vector_readouts:
            out = config.fibre({1: len(config.vector_readouts)})
            if config.attention:
                heads = gcd(config.num_heads, len(config.vector_readouts))
                kind = config.last_self_interaction
                self.vector_layer = AttentionBlock(config, config.hidden, out, 1, heads, kind, key=keys[4])
            else:
                self.vector_layer = Convolution(config, config.hidden, out, key=keys[4])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy, per atom (atoms) or of pooled atoms (graphs), and the vectors (atoms, 3), as configured.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        edges, frames = self.edges(graph)
        x, _ = self._features(graph, edges, frames)
        outputs = {}
        if self.scalar_layer is not None:
            outputs["energy"] = self._energy(graph, self.scalar_layer(x, edges, frames)[0].scalars)
        if self.vector_layer is not None:
            found = self.vector_layer(x, edges, frames)[0].blocks[0]
            outputs |= {name: found[:, :, index] for index, name in enumerate(self.config.vector_readouts)}
        return outputs

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom after the last layer."""
        edges, frames = self.edges(graph)
        return self._features(graph, edges, frames)[0].scalars

    def attention(self, graph: Graph) -> list[Float[Array, "edges heads"]]:
        """Attention weights of every layer before the readout; without attention, the factor of each edge."""
        edges, frames = self.edges(graph)
        return [weights[: graph.senders.shape[0]] for weights in self._features(graph, edges, frames)[1]]

    def decay_mask(self) -> "SE3Transformer":
        """Weight-decay mask: all parameters, as in the reference (which uses no decay)."""
        return all_decay(self)

    def edges(self, graph: Graph) -> tuple[Edges, EdgeFrames]:
        """Geometry of the edges, their directions and the inputs of radial networks; shared by all layers."""
        config = self.config
        kind = "smooth" if config.cutoff_kind == "smooth" else "sharp-inclusive"
        chunk = edge_chunk(self.numbers_per_edge, config.edge_chunk)
        edges = make_edges(graph, config.cutoff, kind, zero_length=False, chunk=chunk)
        inputs = [edges.distance[:, None] if self.basis is None else self.basis(edges.distance)]
        for column in node_columns(graph, config.edge_products, 1):
            inputs.append(column[edges.senders] * column[edges.receivers])
        directions = Directions(edges.vectors, 0, l_max_frame=config.l_max)
        return edges, EdgeFrames(directions, jnp.concatenate(inputs, axis=1))

    @property
    def numbers_per_edge(self) -> int:
        """Intermediate values per edge in the largest layer: its kernels, and their products with the sender."""
        layers = [self.first.mix, self.layers and self.layers.mix, self.scalar_layer, self.vector_layer]
        return 2 * max(layer.kernel.num_weights for layer in layers if layer is not None)

    def _inputs(self, graph: Graph) -> Features:
        config, dtype = self.config, graph.positions.dtype
        scalars = []
        if config.species is not None:
            types = jnp.asarray(type_table(config.elements))[graph.species]
            scalars.append(jax.nn.one_hot(types, len(config.elements), dtype=dtype))
            if config.species == "with_number":
                scalars.append(jnp.asarray(graph.species, dtype)[:, None])
        scalars += node_columns(graph, config.node_scalars, 1)
        if not scalars and not config.node_vectors:
            scalars.append(jnp.ones((graph.species.shape[0], 1), dtype))
        blocks = [jnp.concatenate(scalars, axis=1)[:, None]] if scalars else []
        if config.node_vectors:
            blocks.append(jnp.stack(node_columns(graph, config.node_vectors, 3), axis=2))
        return Features(blocks, config.inputs)

    def _features(self, graph: Graph, edges: Edges, frames: EdgeFrames) -> tuple[Features, list[Array]]:
        x = self._inputs(graph)
        if self.embedding is not None:
            x = self.embedding(x)
        x, weights = self.first(x, edges, frames)
        attention = [weights]
        if self.layers is not None:
            arrays, static = eqx.partition(self.layers, eqx.is_array)

            def step(x: Features, layer: "Layer") -> tuple[Features, Array]:
                return eqx.combine(layer, static)(x, edges, frames)

            x, rest = jax.lax.scan(step, x, arrays)
            attention += list(rest)
        return x, attention

    def _energy(self, graph: Graph, scalars: Float[Array, "atoms channels"]) -> Float[Array, " _"]:
        assert self.network is not None
        activation = jax.nn.silu if self.config.nonlinearity == "smooth" else jax.nn.relu
        if self.config.readout == "atoms":
            return self.network(scalars, activation)[:, 0]
        count = jnp.maximum(graph.sum_over_atoms(jnp.ones_like(scalars[:, 0])), 1)
        if self.config.readout == "mean":
            pooled = graph.sum_over_atoms(scalars) / count[:, None]
        else:
            present = jnp.where(jnp.asarray(graph.atom_mask)[:, None], scalars, -jnp.inf)
            pooled = jax.ops.segment_max(present, graph.graph_index, len(count), indices_are_sorted=True)
            pooled = jnp.where(jnp.isfinite(pooled), pooled, 0)
        return self.network(pooled, activation)[:, 0]


class Layer(eqx.Module):
    """Attention (or a convolution), then the non-linearity. Equivariant under SO(3), and O(3) with true parities."""

    mix: "AttentionBlock | Convolution"
    nonlinearity: NormNonlinearity

    def __init__(self, config: SE3TransformerConfig, irreps_in: Irreps, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        if config.attention:
            sizes = (config.division, config.num_heads, config.self_interaction)
            self.mix = AttentionBlock(config, irreps_in, config.hidden, *sizes, key=keys[0])
        else:
            self.mix = Convolution(config, irreps_in, config.hidden, key=keys[0])
        self.nonlinearity = NormNonlinearity(config.hidden, config.nonlinearity, key=keys[1])

    def __call__(self, x: Features, edges: Edges, frames: EdgeFrames) -> tuple[Features, Array]:
        x, weights = self.mix(x, edges, frames)
        return self.nonlinearity(x), weights


class AttentionBlock(eqx.Module):
    """f_i ↦ W [Σ_j a_ij v_ij, f_i]. Equivariant under SO(3), and O(3) with true parities.

    Keys have the degrees of the input, as queries do. Output degrees that the input lacks come from values alone.
    """

    kernel: RadialKernel
    query: Linear
    project: "Linear | AttentiveMix"
    keys: Irreps = eqx.field(static=True)
    values: Irreps = eqx.field(static=True)
    num_heads: int = eqx.field(static=True)
    add_direction: bool = eqx.field(static=True)

    def __init__(
        self,
        config: SE3TransformerConfig,
        irreps_in: Irreps,
        irreps_out: Irreps,
        division: int,
        num_heads: int,
        self_interaction: Literal["linear", "attentive"],
        *,
        key: PRNGKeyArray,
    ):
        keys = jax.random.split(key, 3)
        self.values = config.fibre({irrep.l: mul // division for mul, irrep in irreps_out})
        self.keys = Irreps(tuple(chunk for chunk in self.values if irreps_in.count(chunk.irrep)))
        self.num_heads, self.add_direction = num_heads, config.add_direction
        # Keys and values come from the same features: one kernel, with separate radial networks.
        both = sorted((self.keys + self.values).chunks, key=lambda chunk: chunk.irrep.l)
        self.kernel = _kernel(config, irreps_in, Irreps(tuple(both)), key=keys[0])
        self.query = Linear(irreps_in, self.keys, bias=False, key=keys[1])
        joined = config.fibre({irrep.l: mul + irreps_in.count(irrep) for mul, irrep in self.values})
        if self_interaction == "attentive":
            self.project = AttentiveMix(joined, irreps_out, key=keys[2])
        else:
            self.project = Linear(joined, irreps_out, bias=False, key=keys[2])

    def __call__(self, x: Features, edges: Edges, frames: EdgeFrames) -> tuple[Features, Array]:
        """New features and attention weights (edges, heads)."""
        query, size = self.query(x)[edges.receivers], sqrt(self.keys.dim)
        sent = _sent(x, edges, self.add_direction)

        def message(sent: Features, query: Features, frames: EdgeFrames) -> tuple[Array, Features]:
            out = self.kernel(sent, frames.directions, frames.basis)
            products, values = [], []
            for block, (mul, irrep) in zip(out.blocks, self.values):
                if (q := query.get(irrep)) is not None:
                    keys, block = jax.lax.split(block, [mul, mul], axis=2)
                    products.append((q * keys).sum(axis=1).reshape(len(keys), self.num_heads, -1))
                values.append(block)
            logits = jnp.concatenate(products, axis=2).sum(axis=2) / size
            return logits, Features(values, self.values)

        attended, weights = attention(message, (sent, query, frames), edges)
        blocks = []
        for block, (_, irrep) in zip(attended.blocks, attended.irreps):
            own = x.get(irrep)
            blocks.append(block if own is None else jnp.concatenate([block, own], axis=2))
        return self.project(Features(blocks, self.project.irreps_in)), weights


class Convolution(eqx.Module):
    """f_i ↦ mean_j W(r_ij) f_j + W f_i. Equivariant under SO(3), and O(3) with true parities.

    With a smooth cutoff the mean is a sum weighted by the envelope, divided by a constant.
    """

    kernel: RadialKernel
    own: Linear
    average_degree: float = eqx.field(static=True)
    add_direction: bool = eqx.field(static=True)

    def __init__(self, config: SE3TransformerConfig, irreps_in: Irreps, irreps_out: Irreps, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.kernel = _kernel(config, irreps_in, irreps_out, key=keys[0])
        shared = Irreps(tuple(chunk for chunk in irreps_out if irreps_in.count(chunk.irrep)))
        self.own = Linear(irreps_in, shared, bias=False, key=keys[1])
        self.average_degree, self.add_direction = config.average_degree, config.add_direction

    def __call__(self, x: Features, edges: Edges, frames: EdgeFrames) -> tuple[Features, Array]:
        """New features, and the factor of each edge (edges, 1)."""
        sent = _sent(x, edges, self.add_direction)
        messages = in_chunks(self.kernel, (sent, frames.directions, frames.basis), edges.chunk)
        weights = edges.weight[:, None]
        if edges.envelope is None:
            weights = weights / jnp.maximum(edges.sum_at_receivers(weights), 1)[edges.receivers]
        else:
            weights = weights / self.average_degree
        received, own = sum_over_edges(weigh_heads(messages, weights), edges), self.own(x)
        blocks = []
        for block, (_, irrep) in zip(received.blocks, received.irreps):
            mine = own.get(irrep)
            blocks.append(block if mine is None else block + mine)
        return Features(blocks, received.irreps), weights


def _kernel(config: SE3TransformerConfig, irreps_in: Irreps, irreps_out: Irreps, *, key: PRNGKeyArray) -> RadialKernel:
    inputs = (config.num_basis or 1) + len(config.edge_products)
    smooth = config.nonlinearity == "smooth"
    return RadialKernel(
        irreps_in, irreps_out, inputs, config.radial_width, true_parity=config.true_parity, smooth=smooth, key=key
    )


def _sent(x: Features, edges: Edges, add_direction: bool) -> Features:
    """Features of the senders, gathered as one array: the transpose of a gather is a scatter."""
    sizes = [block.shape[1:] for block in x.blocks]
    flat = jnp.concatenate([block.reshape(len(block), -1) for block in x.blocks], axis=1)[edges.senders]
    parts = jax.lax.split(flat, [rows * mul for rows, mul in sizes], axis=1)
    blocks = [part.reshape(-1, *size) for part, size in zip(parts, sizes)]
    for index, (mul, irrep) in enumerate(x.irreps):
        # As in the reference, not where there is only one vector: the given one.
        if add_direction and irrep.l == 1 and mul > 1:
            # Here the vector points from sender to receiver.
            first = blocks[index][:, :, :1] - edges.vectors[:, :, None]
            blocks[index] = jnp.concatenate([first, blocks[index][:, :, 1:]], axis=2)
    return Features(blocks, x.irreps)
