"""Attention of multivectors along the edges of a graph, every node in a frame of its own.

A node's multivectors are written about its own position, so positions enter only through edge vectors r. What a sender j hands
to a receiver i is moved there by the translator of r, exactly, whatever the algebra can translate:

    x_ij = (1 + A + ½ A²) x_j,   A = r · (G_1, G_2, G_3)      P: A² = 0; C: A³ = 0; E: x_ij = x_j + w r, no translations
    out_i = Σ_j φ_ij e_ij v_ij / (1 + Σ_j φ_ij e_ij),   e_ij = exp(logit of q_i and k_ij)

This is `multivector_attention` about a common origin (tested), with envelopes φ that let neighbours fade at the cutoff, and a
sink, an empty token of logit 0: the denominator never vanishes, and neighbours that are all alike are still counted, which a
plain softmax cannot do. Equivariant under E(3); periodic images need no case of their own.

Source: ours; logits as in Brehmer et al., NeurIPS 2023 (arXiv:2305.18415).
"""

from functools import cache
from math import sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.clifford.geometry import Geometry
from equiform.algebra.clifford.maps import commutator_matrix
from equiform.algebra.precision import EXACT
from equiform.edges import Edges
from equiform.nn.multivector_attention import key_features, query_features

Heads = Float[Array, "atoms heads channels components"]
HeadScalars = Float[Array, "atoms heads scalars"]
KeyHeads = Float[Array, "atoms key_heads channels components"]
KeyScalars = Float[Array, "atoms key_heads scalars"]


def moved(
    geometry: Geometry, x: Float[Array, "edges heads channels components"], vectors: Float[Array, "edges 3"]
) -> Float[Array, "edges heads channels components"]:
    """Multivectors translated by a vector each; unchanged where the algebra has no translations.

    Args:
        geometry: The model of space.
        x: Multivectors.
        vectors: Translations, Å.
    """
    if geometry.fixed is None:
        return x
    generators = jnp.asarray(translation_generators(geometry), x.dtype)
    out, change = x, x
    for order in range(1, _order(geometry) + 1):
        parts = jnp.einsum("ehcb,rab->ehcra", change, generators, precision=EXACT)
        change = (parts * vectors[:, None, None, :, None]).sum(-2) / order
        out = out + change
    return out


@cache
def translation_generators(geometry: Geometry) -> Float[np.ndarray, "3 components components"]:
    """G_i, by which multivectors change under an infinitesimal translation along axis i.

    Raises:
        ValueError: The algebra has no translations.
    """
    if geometry.fixed is None:
        raise ValueError("the Euclidean algebra has no translations")
    algebra, eye = geometry.algebra, np.eye(geometry.algebra.num_components)
    # The translators are 1 − ½ e0 t and 1 + ½ ∞ ∧ t.
    sign = -0.5 if _order(geometry) == 1 else 0.5
    vectors = [eye[algebra.index(f"e{i}")] for i in (1, 2, 3)]
    wedges = [np.einsum("olr,l,r->o", algebra.outer, geometry.fixed, vector) for vector in vectors]
    return np.stack([commutator_matrix(algebra, sign * wedge) for wedge in wedges])


def edge_attention(
    geometry: Geometry,
    queries: tuple[Heads, HeadScalars],
    keys: tuple[KeyHeads, KeyScalars],
    values: tuple[KeyHeads, KeyScalars],
    edges: Edges,
    *,
    log_weights: Float[Array, "heads channels"] | None,
    displacement: Float[Array, "2 channels"] | None,
) -> tuple[tuple[Heads, HeadScalars], Float[Array, "edges heads"]]:
    """What each node gathers along its edges, and the weight of each edge.

    Args:
        geometry: The model of space.
        queries: Multivectors and scalars.
        keys: The same, of as many heads or of one shared by all.
        values: The same.
        edges: The edges, with an envelope.
        log_weights: w, for distances between points; None: no distances.
        displacement: w of the edge vector in keys and in values; None where the algebra translates.
    """
    (k, k_s), (v, v_s) = keys, values
    distances = log_weights is not None
    q = query_features(geometry, *queries, log_weights)
    scale = 1 / sqrt(q.shape[-1])
    k_ij, v_ij = (moved(geometry, x[edges.senders], edges.vectors) for x in (k, v))
    if displacement is not None:
        k_ij, v_ij = (x + _displaced(geometry, edges.vectors, w) for x, w in zip((k_ij, v_ij), displacement))
    logits = (q[edges.receivers] * key_features(geometry, k_ij, k_s[edges.senders], distances=distances)).sum(-1) * scale
    here, inside = edges.receivers, edges.weight[:, None] > 0
    top = jax.ops.segment_max(jnp.where(inside, logits, -jnp.inf), here, q.shape[0], indices_are_sorted=True)
    top = jax.lax.stop_gradient(jnp.maximum(top, 0))  # the quotient does not depend on the shift
    weights = edges.weight[:, None] * jnp.exp(jnp.where(inside, logits - top[here], 0))
    weights = weights / (jnp.exp(-top) + edges.sum_at_receivers(weights))[here]
    multivectors = edges.sum_at_receivers(weights[..., None, None] * v_ij)
    return (multivectors, edges.sum_at_receivers(weights[..., None] * v_s[edges.senders])), weights


def _displaced(geometry: Geometry, vectors: Array, weights: Array) -> Array:
    """Each channel's multiple of the edge vector, as a multivector."""
    first = geometry.algebra.index("e1")
    wide = jnp.pad(vectors, [(0, 0), (first, geometry.algebra.num_components - first - 3)])
    return weights[None, None, :, None] * wide[:, None, None]


def _order(geometry: Geometry) -> int:
    """The power of A after which the translator's series ends."""
    return geometry.algebra.num_generators - 3
