"""Edge geometry: vectors, distances, directions, cutoff and envelope. Computed once per call.

This is the only place where a distance is compared with a cutoff. The convention of the library is d < cutoff; the other
conventions, of published models, are listed in `Cutoff`.

    edge vector r = x_sender + shift · cell − x_receiver, Å;   d = |r|,   direction r / d,   weight = φ(d / cutoff) or 1

All derivatives are finite: a zero-length edge has zero direction and zero gradient.
"""

from math import pi
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equiform.graph import AnyArray, Graph, with_padding_edges

Cutoff = Literal["smooth", "cosine", "sharp", "sharp-inclusive"]
"""Treatment of edges at the cutoff.

- `smooth`: d < cutoff, with `polynomial_envelope`. The library's own form.
- `cosine`: d < cutoff, with `cosine_envelope`. TorchMD-NET's.
- `sharp`: d < cutoff, without an envelope. DEMETAr's.
- `sharp-inclusive`: d ≤ cutoff, without an envelope. The published Equiformer, EGNN and SE(3)-Transformer, for parity.
"""


class Edges(eqx.Module):
    """The edges of a batch as every layer sees them.

    Attributes:
        senders: Source node of each edge.
        receivers: Target node of each edge; ascending.
        vectors: From receiver to sender, Å; zero for padding.
        directions: Unit vectors; zero for zero-length edges.
        distance: Length, Å.
        inside: False for padding and outside the cutoff.
        envelope: Smooth factor that vanishes at the cutoff, zero where not `inside`; None for a sharp cutoff.
        num_atoms: Number of nodes.
        chunk: Edges per chunk, a divisor of the number of edges; None: not chunked.
    """

    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    vectors: Float[Array, "edges 3"]
    directions: Float[Array, "edges 3"]
    distance: Float[Array, " edges"]
    inside: Bool[Array, " edges"]
    envelope: Float[Array, " edges"] | None
    num_atoms: int = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)

    @property
    def weight(self) -> Float[Array, " edges"]:
        """The weight of each edge in sums: its envelope, or 1 inside and 0 outside."""
        return self.inside.astype(self.distance.dtype) if self.envelope is None else self.envelope

    def at_receivers(self, values: Float[Array, "atoms *sizes"]) -> Float[Array, "edges *sizes"]:
        """The value of each edge's receiver; in the derivative a sum over ascending receivers."""
        return values.at[self.receivers].get(indices_are_sorted=True)

    def sum_at_receivers(self, values: Float[Array, "edges *sizes"]) -> Float[Array, "atoms *sizes"]:
        """Sum edge values at their receivers."""
        return jax.ops.segment_sum(values, self.receivers, self.num_atoms, indices_are_sorted=True)


def make_edges(graph: Graph, cutoff: float, kind: Cutoff, *, zero_length: bool, chunk: int = 0) -> Edges:
    """The geometry of all edges of a graph.

    Args:
        graph: The batch.
        cutoff: Å.
        kind: Treatment of edges at the cutoff.
        zero_length: Whether zero-length edges count as inside; models that use directions exclude them.
        chunk: Maximum number of edges per chunk; 0: not chunked. The last chunk is filled up with padding edges.
    """
    graph, size = _padded_to_chunks(graph, chunk)
    mask = jnp.asarray(graph.edge_mask)
    vectors = jnp.where(mask[:, None], jnp.asarray(graph.edge_vectors()), 0)
    directions, distance, nonzero = safe_unit(vectors)
    inside = mask & within(distance, cutoff, inclusive=kind == "sharp-inclusive")
    if not zero_length:
        inside = inside & nonzero
    envelope = None
    if kind in ("smooth", "cosine"):
        form = polynomial_envelope if kind == "smooth" else cosine_envelope
        envelope = jnp.where(inside, form(distance / cutoff), 0)
    return Edges(
        senders=jnp.asarray(graph.senders, jnp.int32),
        receivers=jnp.asarray(graph.receivers, jnp.int32),
        vectors=vectors,
        directions=directions,
        distance=distance,
        inside=inside,
        envelope=envelope,
        num_atoms=graph.species.shape[0],
        chunk=size,
    )


def within(length: Any, cutoff: float, *, inclusive: bool = False) -> Any:
    """Whether distances are inside a cutoff (d < cutoff, or d ≤ cutoff); host or device arrays, or both sides squared."""
    return length <= cutoff if inclusive else length < cutoff


def safe_unit(
    vectors: Float[Array, "*batch 3"],
) -> tuple[Float[Array, "*batch 3"], Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """Unit vectors, lengths, and whether the length is non-zero; zero vectors give zeros with zero derivatives."""
    square = (vectors**2).sum(-1)
    nonzero = square > 0
    length = jnp.sqrt(jnp.where(nonzero, square, 1))
    unit = jnp.where(nonzero[..., None], vectors / length[..., None], 0)
    return unit, jnp.where(nonzero, length, 0), nonzero


def polynomial_envelope(u: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
    """1 − 21 u⁵ + 35 u⁶ − 15 u⁷ for u = d / cutoff < 1, else 0; value and first two derivatives vanish at 1.

    Source: Gasteiger et al., ICLR 2020, eq. 8 with p = 5.
    """
    inside = jnp.where(u < 1, u, 1)
    return jnp.where(u < 1, 1 + inside**5 * (-21 + inside * (35 - 15 * inside)), 0)


def cosine_envelope(u: Float[Array, "*edges"]) -> Float[Array, "*edges"]:
    """½ (cos πu + 1) for u = d / cutoff < 1, else 0; value and first derivative vanish at 1."""
    return jnp.where(u < 1, 0.5 * (jnp.cos(pi * u) + 1), 0)


def shortest_edge(vectors: Float[AnyArray, "edges 3"]) -> tuple[int, float]:
    """Index and length (Å) of the shortest edge on the host; (−1, ∞) where there is none."""
    if not len(vectors):
        return -1, np.inf
    squared = (np.asarray(vectors) ** 2).sum(axis=1)
    index = int(squared.argmin())
    return index, float(np.sqrt(squared[index]))


def forces_from_edges(slopes: Float[Array, "edges 3"], graph: Graph) -> Float[Array, "atoms 3"]:
    """Forces F_i = Σ_{e → i} g_e − Σ_{e from i} g_e, eV/Å, of an energy that depends on positions only through edge vectors.

    Args:
        slopes: g = ∂E/∂r of each edge, eV/Å; zero for padding.
        graph: The edges.
    """
    atoms = graph.species.shape[0]
    received = jax.ops.segment_sum(slopes, jnp.asarray(graph.receivers), atoms, indices_are_sorted=True)
    return received - jax.ops.segment_sum(slopes, jnp.asarray(graph.senders), atoms)


def virial_from_edges(slopes: Float[Array, "edges 3"], graph: Graph) -> Float[Array, "graphs 3 3"]:
    """∂E/∂ε of a symmetric strain, the symmetrised Σ_e r_e ⊗ g_e, eV; summed per atom first to limit scatter collisions.

    Args:
        slopes: g = ∂E/∂r of each edge, eV/Å; zero for padding.
        graph: The edges.
    """
    products = jnp.asarray(graph.edge_vectors())[:, :, None] * slopes[:, None, :]
    atoms = graph.species.shape[0]
    whole = graph.sum_over_atoms(jax.ops.segment_sum(products, jnp.asarray(graph.receivers), atoms, indices_are_sorted=True))
    return 0.5 * (whole + jnp.swapaxes(whole, 1, 2))  # symmetric to the last bit


def motion_of_edges(
    motion: Float[Array, "atoms 3"], strain: Float[Array, "graphs 3 3"], graph: Graph
) -> Float[Array, "edges 3"]:
    """First-order change of the edge vectors under atomic motion and strain: ẋ_sender − ẋ_receiver + r · ε̇.

    Args:
        motion: Change of positions, Å.
        strain: Change of the strain; only its symmetric part counts.
        graph: The edges.
    """
    symmetric = 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
    strained = jnp.einsum("ei,eij->ej", jnp.asarray(graph.edge_vectors()), symmetric[graph.graph_index[graph.receivers]])
    return motion[graph.senders] - motion[graph.receivers] + strained


def _padded_to_chunks(graph: Graph, size: int) -> tuple[Graph, int | None]:
    """The graph padded to whole chunks, and the number of edges per chunk; None: not chunked."""
    num_edges = graph.senders.shape[0]
    if not size or num_edges <= size:
        return graph, None
    num_chunks = -(-num_edges // size)
    size = -(-num_edges // num_chunks)  # minimises the padding
    return with_padding_edges(graph, num_chunks * size - num_edges), size
