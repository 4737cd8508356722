"""TorchMD-NET's Equivariant Transformer: attention over neighbours on scalars and vectors, without harmonics.

Atoms carry F scalars x and F vectors v, initially zero. Attention uses SiLU instead of softmax and is filtered by the distance;
vectors are built from edge directions and mixed without bias, so that they stay equivariant. Each atom also attends to itself.

    x   = Dense[Emb(z), Σ_{j≠i} Emb'(z_j) Dense(e_ij) φ_ij]            e: exponential-normal basis, φ: cosine cutoff
    A_ij = SiLU(Σ_d q_i k_j SiLU(Dense(e_ij))) φ_ij,   (s1, s2, s3)_ij = split(s_j SiLU(Dense(e_ij)))         per head
    (o1, o2, o3)_i = Dense(Σ_j A_ij s1_ij),   (u1, u2, u3) = v W
    x_i += ⟨u1, u2⟩ o2 + o3,   v_i += u3 o1 + Σ_j (v_j s2_ij + r̂_ij s3_ij)                       q, k, s: Dense(LayerNorm(x))
    e_i = two gated equivariant blocks on (LayerNorm(x), v)

Source: Thölke & De Fabritiis, ICLR 2022 (arXiv:2202.02541); reference code torchmd/torchmd-net.
Differs: `vector_cutoff = True` (an option of the later reference code) multiplies s by φ instead of A, which makes the energy
continuous at the cutoff; `vector_norm = "smooth"` takes √(|v|² + ε²) − ε for |v|, whose gradient is rounding noise where v
vanishes by symmetry. Presets named after the paper disable both. Zero-length edges have no direction; the number of
neighbours is not capped.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform import fields
from equiform.edges import Edges, make_edges
from equiform.graph import Graph
from equiform.models.api import E3, ENERGY, DescribingModel, ModelConfig, Traits, all_decay
from equiform.models.width import WidthFields
from equiform.nn import init
from equiform.nn.dense import MLP, Dense
from equiform.nn.radial import ExpNormalBasis, LayerNorm
from equiform.nn.species import type_table
from equiform.runtime.chunks import in_chunks, kept, recomputed
from equiform.runtime.policy import edge_chunk

DIPOLE_LENGTH = fields.Field("dipole_length", "graphs", "invariant")
SPATIAL_EXTENT = fields.Field("spatial_extent", "atoms", "invariant")
NORM_EPSILON = 0.1
"""ε of the smooth length of a vector feature, whose components are of order one."""


class TorchMDETConfig(ModelConfig):
    """Everything that determines an Equivariant Transformer's function and parameters."""

    renamed_fields: ClassVar[dict[str, str]] = {"vector_readout": "vector_readouts"}
    width_fields: ClassVar[WidthFields] = {"channels": ("num_heads",)}

    name: Literal["torchmd-et"] = "torchmd-et"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows; the position is the embedding row.")
    cutoff: float = Field(5.0, gt=0, description="Neighbours are closer than this, Å.")
    num_layers: int = Field(6, ge=1)
    channels: int = Field(128, ge=2, description="Number of scalars, and of vectors, per atom.")
    num_heads: int = Field(8, ge=1)
    num_basis: int = Field(32, ge=1)
    vector_cutoff: bool = Field(True, description="Values vanish at the cutoff, instead of the attention weights.")
    vector_norm: Literal["smooth", "plain"] = Field("smooth", description="Length of a vector in the readout.")
    readout: Literal["scalar", "dipole", "spatial_extent"] = Field(
        "scalar", description="A sum over atoms; the length of a dipole; Σ_i x_i |r_i − r_com|²."
    )
    vector_readouts: tuple[str, ...] = Field((), max_length=1, description="Name of an additional vector per atom.")

    @model_validator(mode="after")
    def _consistent(self) -> "TorchMDETConfig":
        if self.channels % self.num_heads:
            raise ValueError(f"channels ({self.channels}) must be divisible by num_heads ({self.num_heads})")
        return self

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        scalar = {"scalar": ENERGY, "dipole": DIPOLE_LENGTH, "spatial_extent": SPATIAL_EXTENT}[self.readout]
        vectors = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        return Traits(
            symmetries=E3,
            outputs=(scalar, *vectors),
            elements=self.elements,
            cutoff=self.cutoff,
            smooth=self.vector_cutoff,
            additive=self.readout == "scalar",
            stable=self.vector_norm == "smooth",
            edges_only=self.readout == "scalar",
        )


class RadialEdges(eqx.Module):
    """Edge inputs shared by all layers; self-edges are handled separately.

    Attributes:
        geometry: The edges, under the cosine cutoff.
        basis: Radial basis of the distance.
    """

    geometry: Edges
    basis: Float[Array, "edges basis"]


class TorchMDET(DescribingModel):
    """The model; call it on a graph. Invariant energies, equivariant vectors: under O(3) and translations."""

    embedding: Float[Array, "types channels"]
    neighbor_embedding: "NeighborEmbedding"
    layers: "Attention"
    norm: LayerNorm
    blocks: list["GatedBlock"]
    extent: MLP | None
    basis: ExpNormalBasis = eqx.field(static=True)
    config: TorchMDETConfig = eqx.field(static=True)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "embedding": ("embedding", "neighbor_embedding"),
            "blocks": ("layers[:]",),
            "readout": ("norm", "blocks", "extent"),
        }
    )

    def __init__(self, config: TorchMDETConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        width, types = config.channels, len(config.elements)
        self.config = config
        self.embedding = init.normal((types, width), key=keys[0])
        self.neighbor_embedding = NeighborEmbedding(types, config.num_basis, width, key=keys[1])
        self.layers = init.stack([Attention(config, key=k) for k in jax.random.split(keys[2], config.num_layers)])
        self.norm = LayerNorm(width)
        self.basis = ExpNormalBasis(config.num_basis, config.cutoff)
        self.blocks, self.extent = [], None
        if config.readout == "spatial_extent":
            self.extent = MLP(width, width // 2, 1, kind="xavier", key=keys[3])
        if config.readout != "spatial_extent" or config.vector_readouts:
            self.blocks = [
                GatedBlock(width, width // 2, activated=True, smooth=config.vector_norm == "smooth", key=keys[4]),
                GatedBlock(width // 2, 1, activated=False, smooth=config.vector_norm == "smooth", key=keys[5]),
            ]

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy or spatial extent (atoms) or the dipole length (graphs), and the vectors (atoms, 3), if any.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        x, v = self.features(graph)
        out, vector = x, v
        for block in self.blocks:
            out, vector = block(out, vector)
        outputs = {}
        if self.config.readout == "scalar":
            outputs["energy"] = out[:, 0]
        else:
            centred = graph.positions - _centre_of_mass(graph)[graph.graph_index]
            if self.extent is not None:
                outputs[SPATIAL_EXTENT.name] = self.extent(x)[:, 0] * (centred**2).sum(axis=1)
            else:
                dipole = graph.sum_over_atoms(out * centred + vector[:, :, 0])
                squared = (dipole**2).sum(axis=1)
                length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
                outputs[DIPOLE_LENGTH.name] = length
        return outputs | dict.fromkeys(self.config.vector_readouts, vector[:, :, 0])

    def features(self, graph: Graph) -> tuple[Float[Array, "atoms channels"], Float[Array, "atoms 3 channels"]]:
        """Normalised scalars and vectors of each atom after the last layer."""
        edges = self.edges(graph)
        types = jnp.asarray(type_table(self.config.elements))[graph.species]
        x = self.neighbor_embedding(self.embedding[types], types, edges)
        v = jnp.zeros((len(types), 3, self.config.channels), x.dtype)
        at_zero = self.basis(jnp.zeros(1, x.dtype))

        def step(state: tuple[Array, Array], layer: "Attention") -> tuple[tuple[Array, Array], None]:
            return layer(*state, edges, at_zero), None

        (x, v), _ = jax.lax.scan(step, (x, v), self.layers)
        return self.norm(x), v

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom after the last layer."""
        return self.features(graph)[0]

    def edges(self, graph: Graph) -> RadialEdges:
        """Geometry and radial basis of the edges, shared by all layers."""
        chunk = edge_chunk(self.numbers_per_edge)
        edges = make_edges(graph, self.config.cutoff, "cosine", zero_length=True, chunk=chunk)
        return RadialEdges(edges, self.basis(edges.distance))

    @property
    def numbers_per_edge(self) -> int:
        """Intermediate values per edge in a layer: seven vectors gathered, eight of filters, five of messages."""
        return 20 * self.config.channels

    def decay_mask(self) -> "TorchMDET":
        """Weight-decay mask: all parameters, as in the reference (whose recipes use no decay)."""
        return all_decay(self)


class NeighborEmbedding(eqx.Module):
    """Dense[x_i, Σ_{j≠i} Emb'(z_j) Dense(e_ij) φ_ij]. Invariant."""

    embedding: Float[Array, "types channels"]
    filter: Dense
    combine: Dense

    def __init__(self, types: int, num_basis: int, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.embedding = init.normal((types, width), key=keys[0])
        self.filter = Dense(num_basis, width, kind="xavier", key=keys[1])
        self.combine = Dense(2 * width, width, kind="xavier", key=keys[2])

    def __call__(self, x: Float[Array, "atoms channels"], types: Array, edges: RadialEdges) -> Float[Array, "atoms channels"]:
        geometry = edges.geometry
        message = self.filter(edges.basis) * geometry.weight[:, None] * self.embedding[types][geometry.senders]
        return self.combine(jnp.concatenate([x, geometry.sum_at_receivers(message)], axis=1))


class Attention(eqx.Module):
    """One layer: attention on scalars, messages on vectors, and their exchange. Equivariant under O(3)."""

    norm: LayerNorm
    query: Dense
    keys: Dense
    values: Dense
    out: Dense
    vectors: Dense
    key_filter: Dense
    value_filter: Dense
    num_heads: int = eqx.field(static=True)
    vector_cutoff: bool = eqx.field(static=True)

    def __init__(self, config: TorchMDETConfig, *, key: PRNGKeyArray):
        width, basis = config.channels, config.num_basis
        sizes = [(width, width), (width, width), (width, 3 * width), (width, 3 * width), (basis, width), (basis, 3 * width)]
        made = [Dense(*size, kind="xavier", key=k) for size, k in zip(sizes, jax.random.split(key, 7))]
        self.query, self.keys, self.values, self.out, self.key_filter, self.value_filter = made
        self.vectors = Dense(width, 3 * width, bias=False, kind="xavier", key=jax.random.split(key, 7)[6])
        self.norm = LayerNorm(width)
        self.num_heads, self.vector_cutoff = config.num_heads, config.vector_cutoff

    def __call__(
        self,
        x: Float[Array, "atoms channels"],
        v: Float[Array, "atoms 3 channels"],
        edges: RadialEdges,
        at_zero: Float[Array, "1 basis"],
    ) -> tuple[Float[Array, "atoms channels"], Float[Array, "atoms 3 channels"]]:
        """`at_zero` is the radial basis at distance zero, for the edge of an atom to itself."""
        return recomputed(lambda x, v: self._attended(x, v, edges, at_zero))(x, v)

    def _attended(self, x: Array, v: Array, edges: RadialEdges, at_zero: Array) -> tuple[Array, Array]:
        atoms, width = x.shape
        y = self.norm(x)
        filters = self._filters()
        assert self.values.bias is not None
        q, k, s = self.query(y), self.keys(y), y @ self._by_part(self.values.weight) + self._by_part(self.values.bias)[None]
        # Everything from the sender is gathered at once: the transpose of a gather is a scatter.
        sent = jnp.concatenate([k, s, v.reshape(atoms, -1)], axis=1)
        one = jnp.ones(1, x.dtype)
        own, factor, _ = self._message(q, k, s, filters, at_zero, one)

        def messages(sent: Array, q: Array, basis: Array, envelope: Array, inside: Array, directions: Array) -> Array:
            k, s, *v = jax.lax.split(sent, [width, 3 * width, width, width, width], axis=1)
            message, scale, along = self._message(q, k, s, filters, basis, envelope)
            components = jax.lax.split(directions, [1, 1, 1], axis=1)
            message = jnp.concatenate([message, *(part * scale + x * along for part, x in zip(v, components))], axis=1)
            # Attention vanishes with the envelope; vector messages may not, so they are masked.
            return jnp.where(inside[:, None], message, 0)

        where = edges.geometry
        arguments = (sent[where.senders], q[where.receivers], edges.basis, where.weight, where.inside, where.directions)
        summed = kept(where.sum_at_receivers(in_chunks(messages, arguments, where.chunk)))
        scalars, vectors = jax.lax.split(summed, [width, 3 * width], axis=1)
        o1, o2, o3 = jax.lax.split(self.out(scalars + own), [width] * 3, axis=1)
        u1, u2, u3 = jax.lax.split(self.vectors(v), [width] * 3, axis=2)
        moved = v * factor[:, None] + vectors.reshape(v.shape)
        return x + (u1 * u2).sum(axis=1) * o2 + o3, v + u3 * o1[:, None] + moved

    def _message(
        self, q: Array, k: Array, s: Array, filters: tuple[Array, Array], basis: Array, envelope: Array
    ) -> tuple[Float[Array, "rows channels"], Float[Array, "rows channels"], Float[Array, "rows channels"]]:
        """A s1, and the factors s2 and s3 of the sender's vectors and of the direction; one row per edge."""
        rows, width = q.shape[0], q.shape[1]
        # Both filters share their input: one matrix product.
        matrix, bias = filters
        both = jax.nn.silu(basis @ matrix + bias[None])
        key_filter, value_filter = jax.lax.split(both, [width, 3 * width], axis=1)
        weight = jax.nn.silu((q * k * key_filter).reshape(rows, self.num_heads, -1).sum(axis=2))  # rows heads
        if self.vector_cutoff:
            value_filter = value_filter * envelope[:, None]
        else:
            weight = weight * envelope[:, None]
        s1, s2, s3 = jax.lax.split(s * value_filter, [width] * 3, axis=1)
        s1 = s1.reshape(rows, self.num_heads, -1) * weight[:, :, None]
        return s1.reshape(-1, width), s2, s3

    def _filters(self) -> tuple[Float[Array, "basis _"], Float[Array, " _"]]:
        """Matrix and bias from the radial basis to the filters of the key and the three values."""
        key, value = self.key_filter, self.value_filter
        assert key.bias is not None and value.bias is not None
        matrix = jnp.concatenate([key.weight, self._by_part(value.weight)], axis=1)
        return matrix, jnp.concatenate([key.bias, self._by_part(value.bias)])

    def _by_part(self, columns: Array) -> Array:
        """Columns in the order part, head, channel; they are stored as head, part, channel, as in the published code."""
        by_head = columns.reshape(*columns.shape[:-1], self.num_heads, 3, -1)
        return jnp.swapaxes(by_head, -3, -2).reshape(columns.shape)


class GatedBlock(eqx.Module):
    """(x, v) ↦ (x', g · v W2) with (x', g) = Dense SiLU Dense [x, |v W1|]. Equivariant under O(3).

    Source: Schütt et al., ICML 2021 (gated equivariant block).
    """

    first: Dense
    second: Dense
    mix: MLP
    activated: bool = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)

    def __init__(self, size_in: int, size_out: int, *, activated: bool, smooth: bool, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.first = Dense(size_in, size_in, bias=False, kind="xavier", key=keys[0])
        self.second = Dense(size_in, size_out, bias=False, kind="xavier", key=keys[1])
        self.mix = MLP(2 * size_in, size_in, 2 * size_out, kind="xavier", key=keys[2])
        self.activated, self.smooth = activated, smooth

    def __call__(
        self, x: Float[Array, "atoms _"], v: Float[Array, "atoms 3 _"]
    ) -> tuple[Float[Array, "atoms _"], Float[Array, "atoms 3 _"]]:
        squared = (self.first(v) ** 2).sum(axis=1)
        if self.smooth:
            length = jnp.sqrt(squared + NORM_EPSILON**2) - NORM_EPSILON
        else:
            length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
        out, gate = jnp.split(self.mix(jnp.concatenate([x, length], axis=1)), 2, axis=1)
        return jax.nn.silu(out) if self.activated else out, gate[:, None] * self.second(v)


def _centre_of_mass(graph: Graph) -> Float[Array, "graphs 3"]:
    mass = jnp.asarray(_masses(), graph.positions.dtype)[graph.species][:, None]
    total = graph.sum_over_atoms(mass)
    return graph.sum_over_atoms(mass * graph.positions) / jnp.where(total > 0, total, 1)


def _masses() -> Float[np.ndarray, "numbers"]:
    from ase.data import atomic_masses

    return np.asarray(atomic_masses, np.float64)
