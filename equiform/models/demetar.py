"""DEMETAr: a transformer over atoms and a transformer over edges, joined by cross-attention.

Atoms and edges are tokens with invariant features. Each kind has its own encoder; atoms then query the edges they belong to,
and a joint encoder processes the sum. Energies are read from atoms or from a token that represents the structure; a vector is
built from one invariant coefficient per velocity and per pair of atoms, so that the model is equivariant.

    block: x = LN(x + Attention(x)), x = LN(x + Dense σ Dense x);   n = Encoder(Dense(atom)),   e = Encoder(Dense(edge))
    z = JointEncoder(n + CrossAttention(queries n, keys and values e, each atom its own edges))
    Δx_i = s_i v_i + 1/N Σ_j w_ij φ_ij (x_i − x_j),   s = Dense(z_i), φ_ij = Dense SiLU Dense [z_i, z_j, ln(1 + |x_ij|²), e_ij]

Source: Simion, Vasilev, Schäfer, Go and Kersten, blog of 2024; code stefanvasilev/egnn-transformer, Ioana-Simion/egnn-jax.
Differs: the released function masks an atom's own edges instead of the others (`mask`), attends to padding (`padding`), drops
the output of cross-attention in its property model (`edges_arrive`), multiplies vectors component by component (`vectors`) and
applies dropout in evaluation (`dropout_in_evaluation`); `demetar-published` and `demetar-qm9-published` do the same. For your
own data `scope = "neighbors"` restricts attention to tokens of the same atom instead of the whole structure, and with
`cutoff_kind = "smooth"` their weights vanish at the cutoff, so that energies are additive and continuous. All dense layers are
initialised with Xavier weights; ε of the norms is 1e-5.
"""

from typing import ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field, model_validator

from equiform import fields
from equiform.edges import Edges, make_edges, safe_unit
from equiform.graph import Graph
from equiform.models import averages
from equiform.models.api import E3, ENERGY, POOLED_ENERGY, DescribingModel, ModelConfig, Symmetry, Traits, all_decay
from equiform.models.width import WidthFields
from equiform.nn import init
from equiform.nn.dense import MLP, Dense
from equiform.nn.dropout import dropout
from equiform.nn.fields import node_columns
from equiform.nn.radial import ExpNormalBasis, LayerNorm
from equiform.nn.species import type_table
from equiform.nn.token_attention import Allowed, Groups, attend, group_tokens, heads_apart

BY_COMPONENT = ("velocity-components", "centre-components", "offset", "position")
"""The released forms of a vector: three numbers per atom that do not rotate with the structure."""
Activation = Literal["silu", "relu"]


class DEMETArConfig(ModelConfig):
    """Everything that determines a DEMETAr's function and parameters."""

    renamed_fields: ClassVar[dict[str, str]] = {"displacement": "vector_readouts"}
    width_fields: ClassVar[WidthFields] = {"channels": ("num_heads",)}

    name: Literal["demetar"] = "demetar"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows; (0,) for particles without a type.")
    cutoff: float = Field(5.0, gt=0, description="Atoms closer than this have an edge, Å; larger than the graph: all pairs.")
    channels: int = Field(128, ge=1)
    num_heads: int = Field(8, ge=1)
    node_layers: int = Field(2, ge=0)
    edge_layers: int = Field(2, ge=0, description="0: edges are embedded, without attention among them.")
    joint_layers: int = Field(2, ge=0)
    edges: bool = Field(True, description="False: atoms only; no edge encoder, cross-attention or joint encoder.")
    scope: Literal["neighbors", "graph"] = Field(
        "neighbors",
        description="Scope of attention: atoms to their neighbours, edges to those of the same atom; or to all in a graph.",
    )
    mask: Literal["own", "others", "none"] = Field(
        "own", description="Edges that an atom queries: its own; the others, as released; all."
    )
    padding: Literal["masked", "attended"] = Field(
        "masked", description="Whether atoms attend to the padding of smaller graphs, up to max_atoms, as released."
    )
    edges_arrive: bool = Field(
        True, description="False: the output of cross-attention is dropped, as in the released QM9 model."
    )
    dropout: float = Field(0.0, ge=0, lt=1)
    dropout_in_evaluation: bool = Field(False, description="Dropout stays on, with a fixed key, as in the released training.")
    num_basis: int | None = Field(32, ge=1, description="Radial basis functions as edge inputs; None: the squared distance.")
    charge: str | None = Field(
        None, description="Node field with a charge: an atom input; the product of both ends is an edge input."
    )
    velocity: str | None = Field(None, description="Node field with a velocity: its component along an edge is an edge input.")
    speed: bool = Field(True, description="The length of the velocity is an atom input.")
    centre_distance: bool = Field(
        False, description="The distance to the centre of positions, relative to the largest in the graph, is an atom input."
    )
    readout: Literal["atoms", "graph"] | None = Field(
        "atoms", description='Energies: a sum over atoms, or from a token that represents the structure ("graph").'
    )
    vector_readouts: tuple[str, ...] = Field((), max_length=1, description="Name of a vector per atom.")
    vectors: Literal["pairs", "velocity", "velocity-components", "centre-components", "offset", "position"] = Field(
        "pairs", description="Form of the vector; all but the first two are released forms, and not equivariant."
    )
    cutoff_kind: Literal["smooth", "sharp"] = "smooth"
    activation: Activation = Field("silu", description="σ of the blocks; with relu, as released, forces jump at its kinks.")
    average_degree: float = Field(averages.DEGREE, gt=0, description="Average neighbours per atom, for normalisation.")
    max_atoms: int | None = Field(
        None, ge=1, description="Slots for the atoms of a graph; more atoms are slow. None: from the batch."
    )
    max_edges: int | None = Field(None, ge=1, description="The same for the edges of a graph, or of an atom.")

    @model_validator(mode="after")
    def _consistent(self) -> "DEMETArConfig":
        if self.channels % self.num_heads:
            raise ValueError(f"channels ({self.channels}) must be divisible by num_heads ({self.num_heads})")
        if self.readout is None and not self.vector_readouts:
            raise ValueError("there is nothing to predict: give readout or vector_readouts")
        if self.vector_readouts and self.velocity is None and self.vectors.startswith("velocity"):
            raise ValueError(f"vectors={self.vectors} needs a velocity")
        if self.scope == "neighbors":
            for name, local in (("readout", ("atoms", None)), ("mask", ("own",)), ("padding", ("masked",))):
                if getattr(self, name) not in local:
                    raise ValueError(f"{name}={getattr(self, name)} needs scope=graph")
            if self.centre_distance or self.vectors in ("centre-components", "position"):
                raise ValueError("a distance to the centre of the graph needs scope=graph")
        if self.padding == "attended" and self.max_atoms is None:
            raise ValueError("padding=attended needs max_atoms, the number of slots to attend to")
        return self

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        scalar = {None: (), "atoms": (ENERGY,), "graph": (POOLED_ENERGY,)}[self.readout]
        vectors = tuple(fields.Field(name, "atoms", "polar") for name in self.vector_readouts)
        needs = [] if self.velocity is None else [fields.Field(self.velocity, "atoms", "polar")]
        needs += [] if self.charge is None else [fields.Field(self.charge, "atoms", "invariant")]
        return Traits(
            symmetries=self._symmetries,
            outputs=scalar + vectors,
            needs=tuple(needs),
            elements=self.elements,
            cutoff=self.cutoff,
            smooth=self.cutoff_kind == "smooth",
            additive=self.scope == "neighbors",
            # The distance to the centre has a kink where an atom is at the centre.
            stable=not self.centre_distance,
            edges_only=not (self.centre_distance or self.vectors in ("centre-components", "position")),
        )

    @property
    def _symmetries(self) -> tuple[Symmetry, ...]:
        """Three numbers per atom are equivariant under inversion of the velocity, but under no rotation."""
        rotating = not self.vector_readouts or self.vectors not in BY_COMPONENT
        reflecting = rotating or self.vectors.endswith("components")
        held = {"translations": self.vectors != "position", "rotations": rotating, "reflections": reflecting}
        return tuple(name for name in E3 if held.get(name, True))


class EdgeTokens(eqx.Module):
    """The edges of a batch as tokens.

    Attributes:
        geometry: The edges.
        groups: Their rows, by receiver or by graph.
        inputs: Invariant inputs.
    """

    geometry: Edges
    groups: Groups
    inputs: Float[Array, "edges inputs"]


class DEMETAr(DescribingModel):
    """The model; call it on a graph. Invariant energies, equivariant `pairs` and `velocity`: under O(3) and translations."""

    node_embedding: Dense
    edge_embedding: Dense | None
    node_encoder: "Encoder"
    edge_encoder: "Encoder"
    joint_encoder: "Encoder"
    cross: "CrossAttention | None"
    structure_token: Float[Array, " channels"] | None
    energy: MLP | Dense | None
    vector: Dense | None
    pair: tuple[Dense, Dense] | None
    basis: ExpNormalBasis | None = eqx.field(static=True)
    config: DEMETArConfig = eqx.field(static=True)

    def __init__(self, config: DEMETArConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 9)
        self.config, width = config, config.channels
        self.basis = None if config.num_basis is None else ExpNormalBasis(config.num_basis, config.cutoff)
        self.node_embedding = Dense(_node_inputs(config), width, kind="xavier", key=keys[0])
        self.node_encoder = Encoder(config.node_layers, config, key=keys[1])
        self.edge_encoder = Encoder(config.edge_layers * config.edges, config, key=keys[3])
        self.joint_encoder = Encoder(config.joint_layers * config.edges, config, key=keys[4])
        self.edge_embedding = self.cross = None
        if config.edges:
            self.edge_embedding = Dense(_edge_inputs(config), width, kind="xavier", key=keys[2])
            self.cross = CrossAttention(width, config.num_heads, key=keys[5])
        released = bool(config.vector_readouts) and config.vectors in BY_COMPONENT
        # The released particle model has this parameter too, unused.
        self.structure_token = init.zeros(width) if config.readout == "graph" or released else None
        self.energy = self.vector = self.pair = None
        if config.readout == "atoms":
            self.energy = MLP(width, width, 1, kind="xavier", key=keys[6])
        elif config.readout == "graph":
            self.energy = Dense(width, 1, kind="xavier", key=keys[6])
        if released:
            self.vector = Dense(width, 3, kind="xavier", key=keys[7])
        elif config.vector_readouts and config.velocity is not None:
            self.vector = Dense(width, 1, kind="xavier", key=keys[7])
        if config.vector_readouts and config.vectors == "pairs":
            first, second = jax.random.split(keys[8])
            # Small initial weights: pairs hardly move each other before training.
            self.pair = (
                Dense((2 + config.edges) * width + 1, width, kind="xavier", key=first),
                Dense(width, 1, kind="xavier", gain=1e-3, key=second),
            )

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy, per atom (atoms) or of the structure's token (graphs), and the vectors (atoms, 3), as configured.

        Args:
            graph: The batch.
            key: PRNG key for dropout; None means evaluation.
        """
        config = self.config
        nodes, tokens, edges = self._run(graph, key)
        outputs = {}
        if self.energy is not None and config.readout == "graph":
            outputs["energy"] = self.energy(tokens[len(nodes) : len(nodes) + graph.graph_mask.shape[0]])[:, 0]
        elif self.energy is not None:
            outputs["energy"] = self.energy(nodes)[:, 0]
        if config.vector_readouts:
            outputs[config.vector_readouts[0]] = self._vectors(graph, nodes, edges)
        return outputs

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Invariant features of each atom after the last layer."""
        return self._run(graph, None)[0]

    def decay_mask(self) -> "DEMETAr":
        """Weight-decay mask: all parameters, as released."""
        return all_decay(self)

    def _run(self, graph: Graph, key: PRNGKeyArray | None) -> tuple[Array, Array, tuple[EdgeTokens, Array | None]]:
        """Atoms, all tokens of the joint encoder (atoms first), and the edges with their tokens."""
        config = self.config
        if config.dropout_in_evaluation and key is None:
            key = jax.random.key(0)
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        edges, atoms = self._edges(graph), graph.species.shape[0]
        x, see = self._seen_by_atoms(graph, self.node_embedding(self._node_inputs(graph)), edges)
        x, e = self.node_encoder(x, see, config.dropout, key=keys[0]), None
        if self.cross is not None and self.edge_embedding is not None:
            among = _Seen(edges.groups, edges.groups, edges.geometry.weight, sink=config.cutoff_kind == "smooth")
            e = self.edge_encoder(self.edge_embedding(edges.inputs), among, config.dropout, key=keys[1])
            if config.edges_arrive:
                x = x + self.cross(x, e, self._seen_by_cross(graph, see, edges))
            x = self.joint_encoder(x, see, config.dropout, key=keys[2])
        return x[:atoms], x, (edges, e)

    def _node_inputs(self, graph: Graph) -> Float[Array, "atoms inputs"]:
        config, dtype = self.config, graph.positions.dtype
        parts = []
        if config.elements != (0,):
            types = jnp.asarray(type_table(config.elements))[graph.species]
            parts.append(jax.nn.one_hot(types, len(config.elements), dtype=dtype))
        if config.charge is not None:
            parts.append(node_columns(graph, [config.charge], 1)[0])
        if config.velocity is not None and config.speed:
            parts.append(safe_unit(node_columns(graph, [config.velocity], 3)[0])[1][:, None])
        if config.centre_distance:
            distance = safe_unit(jnp.asarray(graph.positions) - _centre(graph))[1]
            largest = jax.ops.segment_max(
                jnp.where(graph.atom_mask, distance, 0), graph.graph_index, graph.graph_mask.shape[0], indices_are_sorted=True
            )[graph.graph_index]
            parts.append((distance / jnp.where(largest > 0, largest, 1))[:, None])
        if config.vector_readouts and config.vectors == "position":
            parts.append(jnp.asarray(graph.positions))
        return jnp.concatenate(parts, axis=1) if parts else jnp.ones((graph.species.shape[0], 1), dtype)

    def _edges(self, graph: Graph) -> EdgeTokens:
        config = self.config
        kind = "smooth" if config.cutoff_kind == "smooth" else "sharp"
        edges = make_edges(graph, config.cutoff, kind, zero_length=True)
        senders, receivers, distance = edges.senders, edges.receivers, edges.distance
        if config.scope == "graph":
            group, num_groups = jnp.asarray(graph.graph_index)[receivers], graph.graph_mask.shape[0]
        else:
            group, num_groups = receivers, graph.species.shape[0]
        inputs = [(distance**2)[:, None] if self.basis is None else self.basis(distance)]
        if config.elements != (0,):
            one_hot = jax.nn.one_hot(
                jnp.asarray(type_table(config.elements))[graph.species], len(config.elements), dtype=distance.dtype
            )
            inputs += [one_hot[receivers], one_hot[senders]]
        if config.charge is not None:
            charge = node_columns(graph, [config.charge], 1)[0]
            inputs.append(charge[receivers] * charge[senders])
        if config.velocity is not None:
            inputs.append(
                (node_columns(graph, [config.velocity], 3)[0][receivers] * edges.directions).sum(axis=1, keepdims=True)
            )
        groups = group_tokens((group.astype(jnp.int32), edges.inside), num_groups=num_groups, slots=config.max_edges)
        return EdgeTokens(edges, groups, jnp.concatenate(inputs, axis=1))

    def _seen_by_atoms(self, graph: Graph, x: Float[Array, "atoms channels"], edges: EdgeTokens) -> tuple[Array, "_Seen"]:
        """The tokens of the node encoder (atoms first), and what each attends to."""
        config, atoms = self.config, len(x)
        index, mask = jnp.asarray(graph.graph_index, jnp.int32), jnp.asarray(graph.atom_mask)
        if config.scope == "neighbors":
            # An atom attends to itself, and to its neighbours through its edges.
            where, own = edges.geometry, jnp.arange(atoms, dtype=jnp.int32)
            room = None if config.max_edges is None else config.max_edges + 1
            keys = group_tokens((where.receivers, where.inside), (own, mask), num_groups=atoms, slots=room)
            weight = jnp.concatenate([where.weight, jnp.ones_like(x[:, 0])])
            source = jnp.concatenate([where.senders, own])
            return x, _Seen(group_tokens((own, mask), num_groups=atoms, slots=1), keys, weight, sink=False, source=source)
        graphs, room = graph.graph_mask.shape[0], config.max_atoms
        every = jnp.arange(graphs, dtype=index.dtype)
        weights = [jnp.ones_like(x[:, 0])]
        parts, extra = [(index, mask)], (every, jnp.asarray(graph.graph_mask))
        if self.structure_token is not None and config.readout == "graph":
            x = jnp.concatenate([x, jnp.broadcast_to(self.structure_token, (graphs, x.shape[1]))])
            weights.append(jnp.ones_like(x[:graphs, 0]))
            parts.append(extra)
        if config.padding == "attended" and config.max_atoms is not None:
            # Padding tokens are identical: one token represents them, weighted by their number.
            x = jnp.concatenate([x, self.node_embedding(jnp.zeros((graphs, _node_inputs(config)), x.dtype))])
            weights.append(jnp.maximum(config.max_atoms - graph.sum_over_atoms(weights[0]), 0))
            parts.append(extra)
        if room is not None:
            room += len(parts) - 1
        rows = group_tokens(*parts, num_groups=graphs, slots=room)
        return x, _Seen(rows, rows, jnp.concatenate(weights), sink=False)

    def _seen_by_cross(self, graph: Graph, see: "_Seen", edges: EdgeTokens) -> "_Seen":
        """The edges that each token of the node encoder queries."""
        config, sink = self.config, self.config.cutoff_kind == "smooth"
        if config.scope == "neighbors" or config.mask == "none":
            return _Seen(see.queries, edges.groups, edges.geometry.weight, sink)
        atoms, where = graph.species.shape[0], edges.geometry

        def allowed(query: Array, edge: Array) -> Array:
            # Tokens that are not atoms have no edges of their own: they attend to all.
            touches = (where.receivers[edge] == query) | (where.senders[edge] == query) | (query >= atoms)
            return touches if config.mask == "own" else ~touches | (query >= atoms)

        return _Seen(see.queries, edges.groups, where.weight, sink, allowed=allowed)

    def _vectors(
        self, graph: Graph, nodes: Float[Array, "atoms channels"], edges: tuple[EdgeTokens, Array | None]
    ) -> Float[Array, "atoms 3"]:
        config, atoms = self.config, len(nodes)
        velocity = None if config.velocity is None else node_columns(graph, [config.velocity], 3)[0]
        still = jnp.zeros_like(graph.positions)
        if self.vector is not None and config.vectors in BY_COMPONENT:
            y = self.vector(nodes)
            if config.vectors == "velocity-components" and velocity is not None:
                return velocity * y
            if config.vectors == "position":
                return y - graph.positions
            along = still if velocity is None else velocity
            return along + (y if config.vectors == "offset" else y * (graph.positions - _centre(graph)))
        moved = still if self.vector is None or velocity is None else self.vector(nodes) * velocity
        if self.pair is None:
            return moved
        where, tokens = edges[0].geometry, edges[1]
        # Lengths enter through their logarithm: particles may be very close or very far apart.
        squared = (where.vectors**2).sum(axis=1, keepdims=True)
        parts = [nodes[where.receivers], nodes[where.senders], jnp.log1p(squared)]
        if tokens is not None:
            parts.append(tokens)
        factor = self.pair[1](jax.nn.silu(self.pair[0](jnp.concatenate(parts, axis=1))))[:, 0] * where.weight
        steps = -where.vectors * factor[:, None]
        return moved + jax.ops.segment_sum(steps, where.receivers, atoms) / config.average_degree


class _Seen(NamedTuple):
    """The tokens that an attention layer connects.

    Attributes:
        queries: Rows of the query tokens.
        keys: Rows of the key tokens.
        weight: Weights of the keys.
        sink: Whether there is an empty key token.
        source: Index of the token of each key; None: the tokens themselves.
        allowed: A further mask.
    """

    queries: Groups
    keys: Groups
    weight: Array
    sink: bool
    source: Array | None = None
    allowed: Allowed | None = None


class Encoder(eqx.Module):
    """A stack of blocks. Invariant."""

    blocks: "Block | None"

    def __init__(self, num_layers: int, config: DEMETArConfig, *, key: PRNGKeyArray):
        self.blocks = None
        if num_layers:
            sizes = (config.channels, config.num_heads, config.activation)
            self.blocks = init.stack([Block(*sizes, key=k) for k in jax.random.split(key, num_layers)])

    def __call__(
        self, x: Float[Array, "tokens channels"], see: _Seen, rate: float, *, key: PRNGKeyArray | None
    ) -> Float[Array, "tokens channels"]:
        if self.blocks is None:
            return x
        num_layers = self.blocks.first_norm.weight.shape[0]
        keys = None if key is None or rate == 0 else jax.random.split(key, num_layers)

        def step(x: Array, layer: tuple[Block, PRNGKeyArray | None]) -> tuple[Array, None]:
            return layer[0](x, see, rate, key=layer[1]), None

        return jax.lax.scan(step, x, (self.blocks, keys))[0]


class Block(eqx.Module):
    """x = LN(x + Attention(x)), x = LN(x + Dense σ Dense x). Invariant."""

    inputs: Dense
    outputs: Dense
    first_norm: LayerNorm
    network: MLP
    second_norm: LayerNorm
    num_heads: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, activation: Activation, *, key: PRNGKeyArray):
        self.num_heads, self.activation = num_heads, activation
        keys = jax.random.split(key, 3)
        self.inputs = Dense(width, 3 * width, kind="xavier", key=keys[0])
        self.outputs = Dense(width, width, kind="xavier", key=keys[1])
        self.network = MLP(width, width, width, kind="xavier", key=keys[2])
        self.first_norm, self.second_norm = LayerNorm(width), LayerNorm(width)

    def __call__(
        self, x: Float[Array, "tokens channels"], see: _Seen, rate: float, *, key: PRNGKeyArray | None
    ) -> Float[Array, "tokens channels"]:
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        q, k, v = (heads_apart(part, self.num_heads) for part in jnp.split(self.inputs(x), 3, axis=1))
        if see.source is not None:
            k, v = k[see.source], v[see.source]
        attended = attend(q, k, v, see.queries, see.keys, weight=see.weight, sink=see.sink)
        x = self.first_norm(x + dropout(self.outputs(attended), rate, key=keys[0]))
        activation = jax.nn.relu if self.activation == "relu" else jax.nn.silu
        hidden = activation(dropout(self.network.first(x), rate, key=keys[1]))
        return self.second_norm(x + dropout(self.network.second(hidden), rate, key=keys[2]))


class CrossAttention(eqx.Module):
    """Atoms query edges. Invariant."""

    asked: Dense
    answered: Dense
    outputs: Dense
    num_heads: int = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.asked = Dense(width, width, kind="xavier", key=keys[0])
        self.answered = Dense(width, 2 * width, kind="xavier", key=keys[1])
        self.outputs = Dense(width, width, kind="xavier", key=keys[2])
        self.num_heads = num_heads

    def __call__(
        self, x: Float[Array, "tokens channels"], e: Float[Array, "edges channels"], see: _Seen
    ) -> Float[Array, "tokens channels"]:
        q = heads_apart(self.asked(x), self.num_heads)
        k, v = (heads_apart(part, self.num_heads) for part in jnp.split(self.answered(e), 2, axis=1))
        attended = attend(q, k, v, see.queries, see.keys, weight=see.weight, sink=see.sink, allowed=see.allowed)
        return self.outputs(attended)


def _node_inputs(config: DEMETArConfig) -> int:
    types = len(config.elements) if config.elements != (0,) else 0
    speed = config.velocity is not None and config.speed
    position = 3 * (bool(config.vector_readouts) and config.vectors == "position")
    return max(types + (config.charge is not None) + speed + config.centre_distance + position, 1)


def _edge_inputs(config: DEMETArConfig) -> int:
    types = 2 * len(config.elements) if config.elements != (0,) else 0
    return types + (config.num_basis or 1) + (config.charge is not None) + (config.velocity is not None)


def _centre(graph: Graph) -> Float[Array, "atoms 3"]:
    """The mean position of an atom's graph."""
    count = jnp.maximum(graph.sum_over_atoms(jnp.ones_like(graph.positions[:, :1])), 1)
    return (graph.sum_over_atoms(graph.positions) / count)[graph.graph_index]
