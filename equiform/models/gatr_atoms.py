"""GATr over atoms: an energy per atom from geometric algebra, along the edges within a cutoff.

Every atom is a token: a point, and a learned embedding of its element as scalars. The blocks are those of GATr
(`equiform.models.gatr`), with attention along edges: each atom's multivectors are written about its own position and are moved
along an edge by its translator, so that energies depend on edge vectors alone. Crystals and molecules are the same case.

    x_i, s_i = Linear(point at the origin, embedding(Z_i))
    x, s = x, s + Linear EdgeAttention(N x, N s)                       nn/multivector_edges: envelope φ, a sink
    x, s = x, s + Linear gate Linear [L x · R x,  J_L x ∨ J_R x]       of N x, N s; the join only in "improved-projective"
    e_i = MLP(s_i, scalar parts of x_i)

| `algebra` | what is seen of distances |
|---|---|
| "improved-projective" | D in the logits, the join, φ |
| "projective" | φ alone |
| "euclidean" | edge vectors in keys and values, φ |
| "conformal" | inner products, φ |

Projective points change sign under mirrors, which the join would let energies see. The improved projective network therefore
runs with either sign of points and reference, and what it finds is averaged: mirror images have the same energy, exactly.

Source: ours, from Brehmer et al., NeurIPS 2023 (arXiv:2305.18415) and de Haan et al., AISTATS 2024 (arXiv:2311.04744), neither
of which has atoms.
Differs: from `GATr`, short range and smooth instead of all-to-all, without the atom itself and with a sink; the join's
reference is 1, and mirrors are averaged; in the Euclidean algebra edge vectors, weighted per channel, stand in for positions
about a centre, which a crystal has not.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from equiform.algebra.clifford.assemble import assemble
from equiform.edges import Edges, make_edges
from equiform.graph import Graph
from equiform.models.api import E3, ENERGY, AttendingModel, ModelConfig, Traits, all_decay
from equiform.models.gatr import AlgebraName, GATrConfig, Products, SelfAttention, Setting
from equiform.models.width import WidthFields
from equiform.nn import init
from equiform.nn.dense import MLP
from equiform.nn.dense_attention import DEFAULT
from equiform.nn.multivector import MultivectorLinear, multivector_norm, scalar_norm
from equiform.nn.multivector_edges import edge_attention
from equiform.nn.species import type_table

State = tuple[Float[Array, "atoms channels components"], Float[Array, "atoms scalars"]]


class AtomsGATrConfig(ModelConfig):
    """Everything that determines the function and parameters of a GATr over atoms."""

    width_fields: ClassVar[WidthFields] = {"channels": (), "scalars": ()}

    name: Literal["gatr"] = "gatr"
    elements: tuple[int, ...] = Field(description="Atomic numbers the model knows.")
    algebra: AlgebraName = "improved-projective"
    cutoff: float = Field(default=5.0, gt=0, description="Neighbours are nearer than this, Å.")
    channels: int = Field(default=8, ge=1, description="Multivector channels of the blocks.")
    scalars: int = Field(default=64, ge=1, description="Scalar channels of the blocks.")
    num_blocks: int = Field(default=3, ge=1)
    num_heads: int = Field(default=4, ge=1)
    multi_query: bool = Field(default=True, description="Keys and values shared by all heads.")

    @property
    def layers(self) -> GATrConfig:
        """Sizes of the blocks."""
        return GATrConfig.model_validate(
            {
                "algebra": self.algebra,
                "channels": self.channels,
                "in_scalars": self.scalars,
                "scalars": self.scalars,
                "num_blocks": self.num_blocks,
                "num_heads": self.num_heads,
                "multi_query": self.multi_query,
                "join_reference": "canonical",
            }
        )

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        return Traits(E3, (ENERGY,), elements=self.elements, cutoff=self.cutoff, edges_only=True)


class AtomsGATr(AttendingModel):
    """The model; call it with a graph. Invariant under E(3)."""

    species: Float[Array, "types scalars"]
    linear_in: MultivectorLinear
    blocks: "AtomBlock"
    readout: MLP
    config: AtomsGATrConfig = eqx.field(static=True)

    def __init__(self, config: AtomsGATrConfig, *, key: PRNGKeyArray):
        keys, sizes = jax.random.split(key, config.num_blocks + 3), config.layers
        self.config = config
        self.species = init.normal((len(config.elements), config.scalars), key=keys[0])
        self.linear_in = MultivectorLinear(
            sizes.geometry, (1, sizes.channels), (sizes.scalars, sizes.scalars), scheme=sizes.init, key=keys[1]
        )
        self.blocks = init.stack([AtomBlock(sizes, key=k) for k in keys[3:]])  # leaves: blocks first
        self.readout = MLP(sizes.scalars + sizes.channels, sizes.scalars, 1, key=keys[2])

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The energy per atom `"energy"` (atoms).

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        return {"energy": self.readout(self.descriptors(graph))[:, 0]}

    def descriptors(self, graph: Graph) -> Float[Array, "atoms channels"]:
        """Scalars and scalar parts of the multivectors of each atom after the last block."""
        return self._run(graph)[0]

    def attention(self, graph: Graph) -> list[Float[Array, "edges heads"]]:
        """Weights of the edges in every block; with that of the sink they sum to 1."""
        return list(self._run(graph)[1])

    def decay_mask(self) -> "AtomsGATr":
        """Weight-decay mask: all parameters."""
        return all_decay(self)

    def _run(self, graph: Graph) -> tuple[Float[Array, "atoms channels"], Float[Array, "blocks edges heads"]]:
        """Descriptors, and the weights of the edges in every block."""
        config = self.config
        edges = make_edges(graph, config.cutoff, "smooth", zero_length=True)
        embedding = self.species[jnp.asarray(type_table(config.elements))[graph.species]]

        def signed(sign: Float[Array, ""]) -> tuple[Array, Array]:
            def step(state: State, block: AtomBlock) -> tuple[State, Array]:
                return block(*state, edges, sign)

            first = self.linear_in(sign * own_point(config.layers, embedding), embedding)
            (x, s), weights = jax.lax.scan(step, first, self.blocks)
            return jnp.concatenate([s, x[..., 0]], axis=-1), weights

        if config.algebra != "improved-projective":
            return signed(jnp.ones((), embedding.dtype))
        descriptors, weights = jax.vmap(signed)(jnp.array([1, -1], embedding.dtype))
        return descriptors.mean(0), weights.mean(0)


class AtomBlock(eqx.Module):
    """A block of GATr whose attention follows edges.

    Attributes:
        attention: Maps to queries, keys and values, and from what was gathered.
        products: The second half of the block.
        displacement: Weights of the edge vector in keys and values; None where the algebra translates.
    """

    attention: SelfAttention
    products: Products
    displacement: Float[Array, "2 channels"] | None
    config: GATrConfig = eqx.field(static=True)

    def __init__(self, config: GATrConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.config = config
        self.attention = SelfAttention(config, rotary=False, key=keys[0])
        self.products = Products(config, key=keys[1])
        channels = max(2 * config.channels // config.num_heads, 1)
        self.displacement = init.normal((2, channels), key=keys[2]) if config.geometry.fixed is None else None

    def __call__(
        self,
        x: Float[Array, "atoms channels components"],
        s: Float[Array, "atoms scalars"],
        edges: Edges,
        sign: Float[Array, ""],
    ) -> tuple[State, Float[Array, "edges heads"]]:
        algebra = self.config.geometry.algebra
        weight = sign.reshape(1, 1, 1) if self.config.algebra == "improved-projective" else None
        setting = Setting(weight, None, None, x[..., :0, :], s[..., :0], DEFAULT)
        q, k, v = self.attention.queries_keys_values(multivector_norm(algebra, x), scalar_norm(s), setting)
        (y, t), weights = edge_attention(
            self.config.geometry,
            q,
            k,
            v,
            edges,
            log_weights=self.attention.log_weights,
            displacement=self.displacement,
        )
        dx, ds = self.attention.out(y.reshape(y.shape[0], -1, y.shape[-1]), t.reshape(t.shape[0], -1))
        x, s = x + dx, s + ds
        dx, ds = self.products(multivector_norm(algebra, x), scalar_norm(s), setting)
        return (x + dx, s + ds), weights


def own_point(config: GATrConfig, like: Float[Array, "atoms _"]) -> Float[Array, "atoms 1 components"]:
    """Every atom as a point in the frame about itself; nothing in the Euclidean algebra, where that is the zero vector."""
    names = {"euclidean": (), "conformal": ("eo",)}.get(config.algebra, ("e123",))
    return assemble(config.geometry.algebra, dict.fromkeys(names, 1.0), like[:, :1])
