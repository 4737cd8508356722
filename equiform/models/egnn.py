"""EGNN: messages from invariant distances, and positions that move along the edges.

Every node has invariant channels and a position. An edge computes a message from both ends and their squared distance; nodes
sum their messages, and positions may be moved by the edge vectors, each weighted by an invariant number. Vectors are built only
from positions (and a given velocity), which makes the model E(n)-equivariant without spherical harmonics.

    m_ij = φ_e(h_i, h_j, |x_i − x_j|², a_ij)                    (Dense SiLU)², the others Dense SiLU Dense; gate: m_ij σ(w·m_ij)
    x_i += mean_j clip((x_i − x_j) φ_x(m_ij)) + φ_v(h_i) v_i     only with a vector readout; v_i the given velocity
    h_i += φ_h(h_i, Σ_j m_ij)

Source: Satorras, Hoogeboom and Welling, ICML 2021 (arXiv:2102.09844); reference code vgsatorras/egnn.
Differs: `cutoff_kind = "smooth"` multiplies messages by an envelope that vanishes at the cutoff, and moves positions by a sum
over a constant number of neighbours, so that energies and forces are continuous; `readout = "atoms"` sums an energy per atom,
so that energies are additive. Presets named after the paper disable both. The first layer of φ_e is applied to nodes before the
gather (the same function).
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform import fields
from equiform.edges import Edges, make_edges
from equiform.graph import Graph
from equiform.models import averages
from equiform.models.api import E3, ENERGY, POOLED_ENERGY, DescribingModel, ModelConfig, Traits, all_decay
from equiform.models.width import WidthFields
from equiform.nn.dense import MLP, Dense
from equiform.nn.species import type_table
from equiform.runtime.chunks import in_chunks, kept, recomputed
from equiform.runtime.policy import edge_chunk

MAX_MOVE = 100.0
"""Components of a weighted edge vector are clipped to this, as in the reference."""


class EGNNConfig(ModelConfig):
    """Everything that determines an EGNN's function and parameters."""

    renamed_fields: ClassVar[dict[str, str]] = {"displacement": "vector_readouts"}
    width_fields: ClassVar[WidthFields] = {"channels": ()}

    name: Literal["egnn"] = "egnn"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows; (0,) for particles without a type.")
    cutoff: float = Field(5.0, gt=0, description="Neighbours are closer than this, Å; larger than the graph: fully connected.")
    num_layers: int = Field(7, ge=1)
    channels: int = Field(128, ge=1)
    species: Literal["one_hot", "powers"] | None = Field(
        "one_hot", description='Node inputs from the element; "powers": one-hot times 1, Z/9 and (Z/9)²; None: not used.'
    )
    velocity: str | None = Field(
        None, description="Node field with a velocity: its length is a node input, and positions move along it."
    )
    charge: str | None = Field(None, description="Node field with a charge: the product of both ends is an edge input.")
    initial_distance: bool = Field(False, description="The initial squared distance is an edge input.")
    gate: bool = Field(True, description="Messages are weighted by σ(w·m).")
    vector_readouts: tuple[str, ...] = Field(
        (), max_length=1, description="Name of the node readout x_out − x_in; none: positions do not move."
    )
    readout: Literal["atoms", "graph"] | None = Field(
        "atoms", description='Energies: a sum over atoms, or a network on summed atoms as in the reference ("graph").'
    )
    cutoff_kind: Literal["smooth", "sharp"] = "smooth"
    average_degree: float = Field(averages.DEGREE, gt=0, description="Average neighbours per atom, for normalisation.")

    @model_validator(mode="after")
    def _consistent(self) -> "EGNNConfig":
        if self.readout is None and not self.vector_readouts:
            raise ValueError("there is nothing to predict: give readout or vector_readouts")
        if self.velocity is not None and not self.vector_readouts:
            raise ValueError("a velocity needs vector_readouts")
        return self

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        scalar = {None: (), "atoms": (ENERGY,), "graph": (POOLED_ENERGY,)}[self.readout]
        vectors = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        needs = [] if self.velocity is None else [fields.Field(self.velocity, "atoms", "polar")]
        needs += [] if self.charge is None else [fields.Field(self.charge, "atoms", "invariant")]
        return Traits(
            symmetries=E3,
            outputs=scalar + vectors,
            needs=tuple(needs),
            elements=self.elements,
            cutoff=self.cutoff,
            smooth=self.cutoff_kind == "smooth",
            additive=self.readout != "graph",
            edges_only=True,
        )


class EGNN(DescribingModel):
    """The model; call it on a graph. Invariant energies, equivariant displacements: under O(3) and translations."""

    embedding: Dense
    layers: list["Layer"]
    node_readout: MLP | None
    graph_readout: MLP | None
    config: EGNNConfig = eqx.field(static=True)

    def __init__(self, config: EGNNConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, config.num_layers + 3)
        self.config = config
        size = {None: 0, "one_hot": 1, "powers": 3}[config.species] * len(config.elements) + (config.velocity is not None)
        self.embedding = Dense(max(size, 1), config.channels, key=keys[0])
        self.layers = [Layer(config, key=k) for k in keys[3:]]
        width = config.channels
        self.node_readout = self.graph_readout = None
        if config.readout == "atoms":
            self.node_readout = MLP(width, width, 1, key=keys[1])
        elif config.readout == "graph":
            self.node_readout = MLP(width, width, width, key=keys[1])
            self.graph_readout = MLP(width, width, 1, key=keys[2])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy, per atom (atoms) or of a graph readout (graphs), and the displacement (atoms, 3), as configured.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        h, moved = self._run(graph)
        outputs = {}
        if self.node_readout is not None:
            energy = self.node_readout(h)
            if self.graph_readout is not None:
                outputs["energy"] = self.graph_readout(graph.sum_over_atoms(energy))[:, 0]
            else:
                outputs["energy"] = energy[:, 0]
        outputs |= dict.fromkeys(self.config.vector_readouts, moved)
        return outputs

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom after the last layer."""
        return self._run(graph)[0]

    def decay_mask(self) -> "EGNN":
        """Weight-decay mask: all parameters, as in the reference."""
        return all_decay(self)

    def node_inputs(self, graph: Graph) -> Float[Array, "atoms inputs"]:
        """Inputs of the embedding for each node: its element, its speed, or 1 if there is neither."""
        config, dtype = self.config, graph.positions.dtype
        parts = []
        if config.species is not None:
            types = jnp.asarray(type_table(config.elements))[graph.species]
            one_hot = jax.nn.one_hot(types, len(config.elements), dtype=dtype)
            if config.species == "powers":
                powers = (jnp.asarray(graph.species, dtype) / 9)[:, None] ** jnp.arange(3, dtype=dtype)[None]
                one_hot = (one_hot[:, :, None] * powers[:, None]).reshape(len(types), -1)
            parts.append(one_hot)
        if config.velocity is not None:
            parts.append(jnp.sqrt((self._field(graph, config.velocity) ** 2).sum(axis=1, keepdims=True)))
        return jnp.concatenate(parts, axis=1) if parts else jnp.ones((graph.species.shape[0], 1), dtype)

    def _field(self, graph: Graph, name: str) -> Array:
        if name not in graph.node_fields:
            have = ", ".join(sorted(graph.node_fields)) or "none"
            raise ValueError(f"this model needs the node field {name!r}; the graph has: {have}")
        return jnp.asarray(graph.node_fields[name])

    @property
    def numbers_per_edge(self) -> int:
        """Intermediate values per edge in a layer: gathered inputs, two hidden vectors, the message and its gate."""
        return 5 * self.config.channels

    def edges(self, graph: Graph) -> "WeightedEdges":
        """The edges as every layer sees them."""
        config = self.config
        kind, chunk = "smooth" if config.cutoff_kind == "smooth" else "sharp-inclusive", edge_chunk(self.numbers_per_edge)
        # There are no self-edges; an edge to another atom at the same position counts.
        edges = make_edges(graph, config.cutoff, kind, zero_length=True, chunk=chunk)
        attributes = []
        if config.charge is not None:
            charge = self._field(graph, config.charge).reshape(-1)
            attributes.append((charge[edges.senders] * charge[edges.receivers])[:, None])
        if config.initial_distance:
            attributes.append((edges.vectors**2).sum(axis=1)[:, None])
        number = jnp.full_like(graph.positions[:, :1], config.average_degree)
        if config.cutoff_kind == "sharp":
            number = jnp.maximum(edges.sum_at_receivers(edges.weight[:, None]), 1)
        return WeightedEdges(edges, number, jnp.concatenate(attributes, axis=1) if attributes else None)

    def _run(self, graph: Graph) -> tuple[Float[Array, "atoms channels"], Float[Array, "atoms 3"]]:
        edges, name = self.edges(graph), self.config.velocity
        velocity = None if name is None else self._field(graph, name)
        h, moved = self.embedding(self.node_inputs(graph)), jnp.zeros_like(graph.positions)
        for layer in self.layers:
            h, moved = layer(h, moved, edges, velocity)
        return h, moved


class WeightedEdges(eqx.Module):
    """Edge inputs shared by all layers.

    Attributes:
        geometry: The edges before any update.
        number: Divisor of the summed steps: the number of neighbours, or a constant.
        attributes: Invariant inputs of the edges, the same for all layers.
    """

    geometry: Edges
    number: Float[Array, "atoms 1"]
    attributes: Float[Array, "edges attributes"] | None


class Layer(eqx.Module):
    """One step of messages, positions and nodes. Equivariant under O(3) and translations."""

    edge: MLP
    node: MLP
    gate: Dense | None
    move: tuple[Dense, Dense] | None
    follow: MLP | None

    def __init__(self, config: EGNNConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        width = config.channels
        attributes = (config.charge is not None) + config.initial_distance
        self.edge = MLP(2 * width + 1 + attributes, width, width, key=keys[0])
        self.node = MLP(2 * width, width, width, key=keys[1])
        self.gate = Dense(width, 1, key=keys[2]) if config.gate else None
        self.move = self.follow = None
        if config.vector_readouts:
            # Small initial weights: positions hardly move before training.
            self.move = (
                Dense(width, width, key=keys[3]),
                Dense(width, 1, bias=False, kind="xavier", gain=1e-3, key=keys[4]),
            )
        if config.velocity is not None:
            self.follow = MLP(width, width, 1, key=keys[5])

    def __call__(
        self,
        h: Float[Array, "atoms channels"],
        moved: Float[Array, "atoms 3"],
        edges: WeightedEdges,
        velocity: Float[Array, "atoms 3"] | None,
    ) -> tuple[Float[Array, "atoms channels"], Float[Array, "atoms 3"]]:
        """Nodes, and the displacement of positions; carrying only that, cell shifts and large coordinates cancel exactly."""
        width, moving = h.shape[1], self.move is not None
        received = recomputed(lambda h, moved: self._received(h, moved, edges))(h, moved)
        if moving:
            received, step = jax.lax.split(received, [width, 3], axis=1)
            moved = moved + step / edges.number
        if self.follow is not None and velocity is not None:
            moved = moved + self.follow(h) * velocity
        return h + self.node(jnp.concatenate([h, received], axis=1)), moved

    def _received(self, h: Array, moved: Array, edges: WeightedEdges) -> Float[Array, "atoms _"]:
        """Sums over neighbours of the messages, and of the steps if positions move.

        The rows of the first matrix of φ_e belong to receiver, sender, squared distance and attributes.
        """
        width = h.shape[1]
        weight, bias = self.edge.first.weight, self.edge.first.bias
        assert bias is not None
        # Per-node terms are computed on nodes and gathered at once: the transpose of a gather is a scatter.
        receiver, sender = h @ weight[:width] + bias[None], h @ weight[width : 2 * width]
        if self.move is not None:
            receiver = jnp.concatenate([receiver, -moved], axis=1)
            sender = jnp.concatenate([sender, moved], axis=1)
        geometry = edges.geometry
        gathered = receiver[geometry.receivers] + sender[geometry.senders]
        arguments = (gathered, geometry.vectors, edges.attributes, geometry.weight)
        return kept(geometry.sum_at_receivers(in_chunks(self._messages, arguments, geometry.chunk)))

    def _messages(
        self, gathered: Array, vectors: Float[Array, "edges 3"], attributes: Array | None, envelope: Float[Array, " edges"]
    ) -> Float[Array, "edges _"]:
        """Messages SiLU(φ_e), and steps if positions move, times the edge weight `envelope`; `gathered` sums both ends."""
        weight = self.edge.first.weight
        width = weight.shape[1]
        if self.move is not None:
            gathered, difference = jax.lax.split(gathered, [width, 3], axis=1)
            vectors = vectors + difference
        invariants = (vectors**2).sum(axis=1, keepdims=True)
        if attributes is not None:
            invariants = jnp.concatenate([invariants, attributes], axis=1)
        hidden = gathered + invariants @ weight[2 * width :]
        message = jax.nn.silu(self.edge.second(jax.nn.silu(hidden)))
        if self.gate is not None:
            message = message * jax.nn.sigmoid(self.gate(message))
        if self.move is not None:
            factor = self.move[1](jax.nn.silu(self.move[0](message)))
            # Edge vectors point from the receiver to the sender.
            message = jnp.concatenate([message, jnp.clip(-vectors * factor, -MAX_MOVE, MAX_MOVE)], axis=1)
        return message * envelope[:, None]
