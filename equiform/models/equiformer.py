"""Equiformer: an equivariant graph attention transformer over irreps features.

Node features are irreps of SE(3) or E(3). Each block normalises them, lets every atom attend to its neighbours through
depth-wise tensor products with the spherical harmonics of the edge (`equiform.models.equiformer_attention`), and mixes
channels by a gated feed-forward network; scalars of the last block give an energy per atom.

    x_i  = Embed(Z_i) + Σ_j Linear(DTP(c, Y(r̂_ij); w(d_ij))) / √(average degree)
    x_i += Attention(Norm(x))_i,   x_i += FFN(Norm(x_i))         (6 times)
    e_i  = Linear(SiLU(Linear(Norm(x_i)))) / √(average atoms)

With `energy_readout = "attention"` the last line is e_i = Attention(Norm(x))_i / √(average atoms), an attention layer with one
scalar as output: a model of the published MD17 code reads its energy so.

Source: Liao & Smidt, ICLR 2023 (arXiv:2206.11990); reference code atomicarchitects/equiformer, commit 64cb786.
Differs: `cutoff_kind = "smooth"` (attention and embedding vanish smoothly at the cutoff), `norm = "joint"` (invariant at
symmetric geometries too), zero-length edges carry nothing. The reference presets disable the first two.
"""

from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field, field_validator, model_validator

from equiform import fields
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Paths
from equiform.algebra.so3.rotations import Directions
from equiform.edges import Edges, make_edges
from equiform.graph import Graph
from equiform.models import averages
from equiform.models.api import E3, ENERGY, SE3, TAGS, AttendingModel, ModelConfig, Traits
from equiform.models.equiformer_attention import AttentionConfig, GraphAttention, ProductForm, ReadyAttention
from equiform.models.equiformer_dropout import graph_drop_path
from equiform.models.equiformer_gate import gate, gate_input, scaled_silu
from equiform.models.equiformer_norm import EquivariantNorm
from equiform.models.equiformer_radial import BasisName, RadialBasis, RadialMLP, make_basis
from equiform.models.width import WidthFields
from equiform.nn import init, stacked
from equiform.nn.attention import sum_over_edges
from equiform.nn.edge_frames import EdgeFrames
from equiform.nn.fields import node_columns
from equiform.nn.linear import Linear
from equiform.nn.species import type_table
from equiform.runtime.chunks import kept, recomputed
from equiform.runtime.policy import edge_chunk


class EquiformerConfig(ModelConfig):
    """Everything that determines an Equiformer's function and parameters. Irreps are written `128x0e+64x1e`; lengths in Å."""

    renamed_fields: ClassVar[dict[str, str]] = {"vector_readout": "vector_readouts"}
    width_fields: ClassVar[WidthFields] = dict.fromkeys(
        ("irreps", "irreps_head", "irreps_message", "irreps_mlp", "irreps_feature", "alpha_channels", "radial_widths"), ()
    )

    name: Literal["equiformer"] = "equiformer"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows; the position is the type index.")
    cutoff: float = Field(5.0, gt=0, description="Neighbours are closer than this, Å.")
    num_layers: int = Field(6, ge=1)
    irreps: str = Field("128x0e+64x1e+32x2e", description="Node features.")
    irreps_sh: str = Field("1x0e+1x1e+1x2e", description="Spherical harmonics; all even for SE(3).")
    irreps_head: str = Field("32x0e+16x1e+8x2e", description="Features of one attention head.")
    irreps_message: str | None = Field(None, description="Features of the message; None: those of the node.")
    irreps_mlp: str = Field("384x0e+192x1e+96x2e", description="Hidden features of the feed-forward network.")
    irreps_feature: str = Field("512x0e", description="Features after the last block.")
    num_heads: int = Field(4, ge=1)
    alpha_channels: int | None = Field(None, description="Attention scalars per head; None: the head's scalars.")
    message: Literal["nonlinear", "linear"] = "nonlinear"
    attention: Literal["mlp", "dot"] = "mlp"
    basis: BasisName = "gaussian"
    num_basis: int = Field(128, ge=1)
    radial_widths: tuple[int, ...] = (64, 64)
    norm: Literal["per_degree", "joint"] = "joint"
    cutoff_kind: Literal["smooth", "sharp"] = "smooth"
    alpha_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on attention weights.")
    out_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of irrep copies after attention and feed-forward.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth, per graph.")
    average_degree: float = Field(averages.DEGREE, gt=0, description="Average neighbours per atom, for normalisation.")
    average_atoms: float = Field(averages.ATOMS, gt=0, description="Average atoms per graph, for normalisation.")
    num_tags: int = Field(0, ge=0, description="Number of atom tags (OC20: 3); 0: none.")
    node_scalars: tuple[str, ...] = Field((), description="Scalar node fields that enter the embedding.")
    node_vectors: tuple[str, ...] = Field((), description="Vector node fields that enter the embedding; need l = 1 features.")
    energy_readout: Literal["mlp", "attention"] = Field(
        "mlp", description="Energy per atom: from its own features, or from one more attention layer over its neighbours."
    )
    vector_readouts: tuple[str, ...] = Field((), description="Names of additional vectors per atom; need l = 1 features.")
    edge_chunk: int | None = Field(None, ge=0, description="Edges per chunk; None: chosen for the device; 0: not chunked.")
    product: ProductForm = Field("aligned", description="Tensor products in the edge frame, or by definition.")

    @field_validator("irreps", "irreps_sh", "irreps_head", "irreps_message", "irreps_mlp", "irreps_feature")
    @classmethod
    def _readable_irreps(cls, text: str | None) -> str | None:
        if text is None:
            return None
        irreps = Irreps.parse(text)
        if not irreps.is_merged() or SCALAR not in irreps:
            raise ValueError(f"{text!r} must have scalars (0e), and each irrep only once")
        return text

    @model_validator(mode="after")
    def _consistent(self) -> "EquiformerConfig":
        if self.attention == "dot" and self.message == "nonlinear":
            raise ValueError('attention "dot" requires message "linear"')
        if self.attention == "dot" and self.energy_readout == "attention":
            raise ValueError('energy_readout "attention" requires attention "mlp"; no published model has another')
        if self.node_vectors and not Irreps.parse(self.irreps).count(self.vector_irrep):
            raise ValueError(f"node_vectors needs {self.vector_irrep} in irreps, which is {self.irreps}")
        return self

    @property
    def true_parity(self) -> bool:
        """Whether harmonics of odd degree are odd: then the model is equivariant under O(3), not only SO(3)."""
        return any(irrep.p == -1 for _, irrep in Irreps.parse(self.irreps_sh))

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        vectors = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        needs = [fields.Field(name, "atoms", "invariant") for name in self.node_scalars]
        needs += [fields.Field(name, "atoms", "polar") for name in self.node_vectors]
        return Traits(
            symmetries=E3 if self.true_parity else SE3,
            outputs=(ENERGY, *vectors),
            needs=tuple(needs) + ((TAGS,) if self.num_tags else ()),
            num_tags=self.num_tags,
            elements=self.elements,
            cutoff=self.cutoff,
            smooth=self.cutoff_kind == "smooth",
            stable=self.norm == "joint",
            edges_only=True,
        )

    @property
    def vector_irrep(self) -> Irrep:
        """The irrep of a polar vector."""
        return Irrep(1, -1 if self.true_parity else 1)

    @property
    def irreps_energy_message(self) -> Irreps:
        """Features of the message of the energy's attention layer: by default those that enter it."""
        return Irreps.parse(self.irreps_message or self.irreps_feature)

    def attention_config(self, irreps_in: Irreps, irreps_out: Irreps, irreps_message: Irreps | None = None) -> AttentionConfig:
        """The configuration of an attention layer between given features; the message has those of the blocks by default."""
        head = Irreps.parse(self.irreps_head)
        kind = "dot" if self.attention == "dot" else self.message
        return AttentionConfig(
            irreps_in=irreps_in,
            irreps_message=irreps_message or Irreps.parse(self.irreps_message or self.irreps),
            irreps_head=head,
            irreps_out=irreps_out,
            irreps_sh=Irreps.parse(self.irreps_sh),
            num_heads=self.num_heads,
            alpha_channels=self.alpha_channels or head.count(SCALAR),
            radial_widths=(self.num_basis, *self.radial_widths),
            kind=kind,
            product=self.product,
            alpha_dropout=self.alpha_dropout,
            out_dropout=self.out_dropout,
        )


class Stages(eqx.Module):
    """Intermediate values of a forward pass, for parity checks and analysis.

    Attributes:
        embedding: Node features that enter the first block.
        blocks: Node features after each block.
        attention: Attention weights (edges, heads) of each block.
        feature: Features after the last normalisation.
        outputs: The model's outputs.
    """

    embedding: Features
    blocks: list[Features]
    attention: list[Float[Array, "edges heads"]]
    feature: Features
    outputs: dict[str, Array]


class Equiformer(AttendingModel):
    """The model; call it on a graph. Invariant energies: under SE(3), and under E(3) with true parities."""

    species_embedding: Linear
    tag_embedding: Linear | None
    field_embedding: Linear | None
    basis: RadialBasis
    degree_embedding: "DegreeEmbedding"
    attention_layers: "AttentionLayer"
    feed_forwards: "FeedForward | None"
    last_feed_forward: "FeedForward"
    norm: EquivariantNorm
    energy_hidden: Linear | None
    energy_out: Linear | None
    energy_attention: GraphAttention | None
    vector_head: GraphAttention | None
    config: EquiformerConfig = eqx.field(static=True)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "embedding": ("species_embedding", "tag_embedding", "field_embedding", "basis", "degree_embedding"),
            "blocks": ("attention_layers[:]", "feed_forwards[:-1]", "last_feed_forward[-1]"),
            "readout": ("norm", "energy_hidden", "energy_out", "energy_attention", "vector_head"),
        }
    )

    def __init__(self, config: EquiformerConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 9)
        node, feature = Irreps.parse(config.irreps), Irreps.parse(config.irreps_feature)
        num_types = len(config.elements)
        self.config = config
        # One-hot inputs: the factor brings the variance of the embedding back to one.
        self.species_embedding = Linear(_scalars(num_types), node, gain=sqrt(num_types), key=keys[0])
        self.tag_embedding = None
        if config.num_tags:
            self.tag_embedding = Linear(_scalars(config.num_tags), node, gain=sqrt(config.num_tags), key=keys[1])
        self.field_embedding = None
        if config.node_scalars or config.node_vectors:
            # A separate key, so that the other weights do not depend on whether there are such fields.
            self.field_embedding = Linear(_field_irreps(config), node, bias=False, key=jax.random.fold_in(key, len(keys)))
        self.basis = make_basis(config.basis, config.num_basis, config.cutoff, key=keys[2])
        self.degree_embedding = DegreeEmbedding(config, key=keys[3])
        # All layers but the last feed-forward network have the same shapes: they are stacked and scanned over.
        layer_keys = jax.random.split(keys[4], 2 * config.num_layers)
        attention = [AttentionLayer(config, node, key=k) for k in layer_keys[: config.num_layers]]
        self.attention_layers = init.stack(attention)
        mixed = [FeedForward(config, node, key=k) for k in layer_keys[config.num_layers + 1 :]]
        self.feed_forwards = init.stack(mixed) if mixed else None
        self.last_feed_forward = FeedForward(config, feature, key=keys[5])
        self.norm = EquivariantNorm(feature, config.norm)
        self.energy_hidden = self.energy_out = self.energy_attention = None
        if config.energy_readout == "attention":
            readout = config.attention_config(feature, _scalars(1), config.irreps_energy_message)
            self.energy_attention = GraphAttention(readout, key=keys[6])
        else:
            scalars = _scalars(feature.count(SCALAR))
            self.energy_hidden = Linear(feature, scalars, key=keys[6])
            self.energy_out = Linear(scalars, _scalars(1), key=keys[7])
        self.vector_head = None
        if config.vector_readouts:
            vector = Irreps((Chunk(len(config.vector_readouts), config.vector_irrep),))
            self.vector_head = GraphAttention(config.attention_config(feature, vector), key=keys[8])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """Energy per atom `"energy"` (atoms), and the vectors (atoms, 3) if there is a vector readout.

        Args:
            graph: The batch.
            key: PRNG key for dropout; None means evaluation.
        """
        return self._run(graph, key, collect=False).outputs

    def stages(self, graph: Graph) -> Stages:
        """The forward pass with its intermediate values."""
        return self._run(graph, None, collect=True)

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom after the last normalisation."""
        return self._run(graph, None, collect=False).feature.scalars

    def attention(self, graph: Graph) -> list[Float[Array, "edges heads"]]:
        """Attention weights of every block, first to last."""
        return self._run(graph, None, collect=True).attention

    def edges(self, graph: Graph) -> tuple[Edges, EdgeFrames]:
        """Geometry of the edges, and their directions and radial basis; shared by all layers."""
        config = self.config
        kind = "smooth" if config.cutoff_kind == "smooth" else "sharp-inclusive"
        chunk = edge_chunk(self.numbers_per_edge, config.edge_chunk)
        edges = make_edges(graph, config.cutoff, kind, zero_length=False, chunk=chunk)
        message = Irreps.parse(config.irreps_message or config.irreps)
        l_max_frame = max(message.l_max, Irreps.parse(config.irreps_head).l_max)
        if config.energy_readout == "attention":
            l_max_frame = max(l_max_frame, config.irreps_energy_message.l_max)
        directions = Directions(edges.vectors, Irreps.parse(config.irreps_sh).l_max, l_max_frame=l_max_frame)
        return edges, EdgeFrames(directions, self.basis(edges.distance))

    @property
    def numbers_per_edge(self) -> int:
        """Intermediate values per edge in a layer: path weights, and about three times as many in messages and values."""
        return 4 * self.attention_layers.attention.message.paths.num_weights

    def embed(self, graph: Graph, edges: Edges, frames: EdgeFrames) -> Features:
        """Atom type + degree + tag embeddings."""
        types = jnp.asarray(type_table(self.config.elements))[graph.species]
        one_hot = jax.nn.one_hot(types, len(self.config.elements), dtype=frames.basis.dtype)
        x = self.species_embedding(Features([one_hot[:, None, :]], _scalars(one_hot.shape[1])))
        if self.tag_embedding is not None:
            if "tags" not in graph.node_fields:
                raise ValueError('this model needs an integer node field "tags" (0 sub-surface, 1 surface, 2 adsorbate)')
            tags = jax.nn.one_hot(graph.node_fields["tags"], self.config.num_tags, dtype=one_hot.dtype)
            x = x + self.tag_embedding(Features([tags[:, None, :]], _scalars(tags.shape[1])))
        if self.field_embedding is not None:
            x = x + self.field_embedding(self._fields(graph))
        return x + self.degree_embedding(edges, frames)

    def _fields(self, graph: Graph) -> Features:
        config, blocks = self.config, []
        for names, width in ((config.node_scalars, 1), (config.node_vectors, 3)):
            columns = [column[:, :, None] for column in node_columns(graph, names, width)]
            blocks += [jnp.concatenate(columns, axis=2)] if columns else []
        return Features(blocks, _field_irreps(config))

    def decay_mask(self) -> "Equiformer":
        """Weight-decay mask: all parameters but biases, normalisations and the radial basis."""
        exempt = {"bias", "biases", "norms", "norm", "basis"}
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not any(getattr(part, "name", None) in exempt for part in path), self
        )

    def _padded_feed_forwards(self) -> "FeedForward | None":
        if self.feed_forwards is None:
            return None
        arrays, static = eqx.partition(self.feed_forwards, eqx.is_array)
        padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.zeros_like(leaf[:1])]), arrays)
        return eqx.combine(padded, static)

    def _run(self, graph: Graph, key: PRNGKeyArray | None, *, collect: bool) -> Stages:
        edges, frames = self.edges(graph)
        embedding = x = self.embed(graph, edges, frames)
        num_layers = self.config.num_layers
        keys = None if key is None else jax.random.split(key, num_layers + 2)
        graphs = (jnp.asarray(graph.graph_index), graph.graph_mask.shape[0])
        # One compiled layer serves all: the last attention is followed by a feed-forward network of zeros, then by its own.
        attention_rows, attention_layer = stacked.rows(eqx.filter_vmap(AttentionLayer.ready)(self.attention_layers))
        mixing_rows, mixing_layer = stacked.rows(self._padded_feed_forwards())

        # A layer is taken out of its row within what is rematerialised: else its arrays would be saved one by one.
        @recomputed
        def attend(row: Array, x: Features, key: Array | None) -> tuple[Features, Array]:
            return attention_layer(row)(x, edges, frames, graphs, key=key)

        @recomputed
        def mix(row: Array, x: Features, key: Array | None) -> Features:
            return mixing_layer(row)(x, graphs, key=key)

        def step(x: Features, layer: tuple) -> tuple[Features, tuple | None]:
            attention_row, mixing_row, key = layer
            keys = (None, None) if key is None else jax.random.split(key)
            x, weights = attend(attention_row, x, keys[0])
            if mixing_row is not None:
                x = mix(mixing_row, x, keys[1])
            return x, (x, weights) if collect else None

        x, collected = jax.lax.scan(step, x, (attention_rows, mixing_rows, None if keys is None else keys[:num_layers]))
        last = recomputed(lambda x, key: self.last_feed_forward(x, graphs, key=key))
        x = last(x, None if keys is None else keys[-2])
        after: list[Features] = []
        attention: list[Array] = []
        if collected is not None:
            after = [jax.tree.map(lambda leaf, i=i: leaf[i], collected[0]) for i in range(num_layers - 1)]
            attention = [weights[: graph.senders.shape[0]] for weights in collected[1]]
        feature = self.norm(x)
        outputs = {"energy": self._energy(feature, edges, frames, keys) / sqrt(self.config.average_atoms)}
        if self.vector_head is not None:
            attend_once = self.vector_head.ready()
            head = recomputed(lambda x, key: attend_once(x, edges, frames, key=key))
            vectors, _ = head(feature, None if keys is None else keys[-1])
            outputs |= {name: vectors.blocks[0][:, :, index] for index, name in enumerate(self.config.vector_readouts)}
        return Stages(embedding, [*after, x] if collect else [], attention, feature, outputs)

    def _energy(self, feature: Features, edges: Edges, frames: EdgeFrames, keys: Array | None) -> Float[Array, " atoms"]:
        if self.energy_attention is not None:
            key = None if keys is None else jax.random.fold_in(keys[-1], 1)
            attend_once = self.energy_attention.ready()
            energies, _ = recomputed(lambda x, key: attend_once(x, edges, frames, key=key))(feature, key)
            return energies.scalars[:, 0]
        assert self.energy_hidden is not None and self.energy_out is not None
        return self.energy_out(self.energy_hidden(feature).map(scaled_silu)).scalars[:, 0]


class DegreeEmbedding(eqx.Module):
    """Σ_j Linear(DTP(c, Y_ij; w(d_ij))) / √(average degree) with a learned constant c, the same for all atoms.

    The linear map commutes with the sum, so it acts on atoms; as c is scalar, only the paths 0 → l contribute.
    """

    constant: Linear
    radial: RadialMLP
    linear: Linear
    paths: Paths = eqx.field(static=True)
    average_degree: float = eqx.field(static=True)

    def __init__(self, config: EquiformerConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        node = Irreps.parse(config.irreps)
        self.average_degree = config.average_degree
        self.constant = Linear(_scalars(1), node, key=keys[0])
        self.paths = Paths(node, Irreps.parse(config.irreps_sh), node)
        widths = (config.num_basis, *config.radial_widths, self.paths.num_weights)
        self.radial = RadialMLP(widths, key=keys[1])
        self.linear = Linear(self.paths.irreps_out, node, key=keys[2])

    def __call__(self, edges: Edges, frames: EdgeFrames) -> Features:
        assert self.constant.bias is not None and self.linear.bias is not None
        constant = self.constant.weights["0e"][0] + self.constant.bias
        hidden = self.radial.hidden(frames.basis)
        weight = edges.weight / sqrt(self.average_degree)
        source = [irrep for _, irrep in self.paths.irreps_in].index(SCALAR)
        paths = self.paths.of(source)
        columns = slice(paths[0].weight, paths[-1].weight + paths[-1].mul)
        weights = hidden @ self.radial.weights[-1][:, columns] + self.radial.offset[None, columns]
        weights = weights.reshape(-1, len(paths), constant.shape[0]) * constant[None, None] * weight[:, None, None]
        pieces = jnp.split(weights, len(paths), axis=1)  # edges 1 channels
        message = Features(
            [piece * frames.directions.harmonics[path.irrep.l][:, :, None] for path, piece in zip(paths, pieces)],
            Irreps(tuple(Chunk(path.mul, path.irrep) for path in paths)),
        )
        summed = sum_over_edges(message, edges)
        degree = edges.sum_at_receivers(weight)
        rows = {path.irrep: slice(path.row, path.row + path.mul) for path in paths}
        blocks = []
        for mul, irrep in self.linear.irreps_out:
            block = summed.get(irrep)
            if block is None:
                blocks.append(jnp.zeros((edges.num_atoms, irrep.dim, mul), hidden.dtype))
                continue
            out = block @ self.linear.weights[str(irrep)][rows[irrep]]
            blocks.append(out + degree[:, None, None] * self.linear.bias[None, None] if irrep == SCALAR else out)
        return Features(blocks, self.linear.irreps_out)


class AttentionLayer(eqx.Module):
    """x += Attention(Norm(x))."""

    norm: EquivariantNorm
    attention: GraphAttention
    drop_path: float = eqx.field(static=True)

    def __init__(self, config: EquiformerConfig, irreps: Irreps, *, key: PRNGKeyArray):
        self.drop_path = config.drop_path
        self.norm = EquivariantNorm(irreps, config.norm)
        self.attention = GraphAttention(config.attention_config(irreps, irreps), key=key)

    def ready(self) -> "ReadyAttentionLayer":
        """This layer with everything computed that depends on weights only."""
        return ReadyAttentionLayer(self.norm, self.attention.ready(), self.drop_path)


class ReadyAttentionLayer(eqx.Module):
    """`AttentionLayer` for use."""

    norm: EquivariantNorm
    attention: ReadyAttention
    drop_path: float = eqx.field(static=True)

    def __call__(
        self,
        x: Features,
        edges: Edges,
        frames: EdgeFrames,
        graphs: tuple[Int[Array, " atoms"], int],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Features, Float[Array, "edges heads"]]:
        keys = (None, None) if key is None else jax.random.split(key)
        branch, weights = self.attention(self.norm(x), edges, frames, key=keys[0])
        return x + graph_drop_path(branch, self.drop_path, *graphs, key=keys[1]), weights


class FeedForward(eqx.Module):
    """x = Shortcut(x) + Linear(Gate(Linear(Norm(x)))). There is a shortcut layer only where the irreps change."""

    norm: EquivariantNorm
    linear_in: Linear
    linear_out: Linear
    shortcut: Linear | None
    drop_path: float = eqx.field(static=True)

    def __init__(self, config: EquiformerConfig, irreps_out: Irreps, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        node, hidden = Irreps.parse(config.irreps), Irreps.parse(config.irreps_mlp)
        self.drop_path = config.drop_path
        self.norm = EquivariantNorm(node, config.norm)
        self.linear_in = Linear(node, gate_input(hidden), key=keys[0])
        self.linear_out = Linear(hidden, irreps_out, key=keys[1])
        self.shortcut = None if irreps_out == node else Linear(node, irreps_out, key=keys[2])

    def __call__(self, x: Features, graphs: tuple[Int[Array, " atoms"], int], *, key: PRNGKeyArray | None = None) -> Features:
        branch = self.linear_out(gate(self.linear_in(self.norm(x)).map(kept)))
        x = x if self.shortcut is None else self.shortcut(x)
        return x + graph_drop_path(branch, self.drop_path, *graphs, key=key)


def _scalars(count: int) -> Irreps:
    return Irreps((Chunk(count, SCALAR),))


def _field_irreps(config: EquiformerConfig) -> Irreps:
    chunks = (Chunk(len(config.node_scalars), SCALAR), Chunk(len(config.node_vectors), config.vector_irrep))
    return Irreps(tuple(chunk for chunk in chunks if chunk.mul))
