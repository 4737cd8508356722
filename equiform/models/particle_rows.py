"""Particles of a batch side by side, one row a graph, for models that attend among all particles of a graph.

Rows are as long as the average graph, so graphs of one size waste nothing. If a graph is longer, all particles go into one row
instead, with their graphs as segments: the length of rows determines the cost, never the result.
"""

from collections.abc import Callable
from math import ceil

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equiform.graph import Graph
from equiform.nn.token_attention import Groups, group_tokens

Network = Callable[[Float[Array, "rows slots inputs"], Int[Array, "rows slots"]], Float[Array, "rows slots outputs"]]
"""From the inputs of particles and the segment of each, which see only their own, to the outputs."""


def by_graph(network: Network, graph: Graph, inputs: Float[Array, "atoms inputs"]) -> Float[Array, "atoms outputs"]:
    """The outputs of each particle, every particle among those of its graph.

    Args:
        network: What is applied to rows.
        graph: The batch.
        inputs: Numbers of each particle.
    """
    atoms, graphs = inputs.shape[0], graph.graph_mask.shape[0]
    groups = rows_of(graph, ceil(atoms / max(graphs, 1)))

    def side_by_side(inputs: Array) -> Array:
        return from_rows(network(inputs[groups.rows], groups.filled.astype(jnp.int32)), groups)

    def together(inputs: Array) -> Array:
        own = jnp.where(groups.present, groups.group, -1).astype(jnp.int32)
        return network(inputs[None], own[None])[0]

    if groups.always_fits:
        return side_by_side(inputs)
    return jax.lax.cond(groups.longest > groups.rows.shape[1], together, side_by_side, inputs)


def rows_of(graph: Graph, slots: int) -> Groups:
    """The particles of each graph in rows of a length."""
    tokens = (jnp.asarray(graph.graph_index), jnp.asarray(graph.atom_mask))
    return group_tokens(tokens, num_groups=graph.graph_mask.shape[0], slots=slots)


def from_rows(values: Float[Array, "rows slots _"], groups: Groups) -> Float[Array, "atoms _"]:
    """Each particle's values; those of another one for particles beyond the end of a row."""
    return values[groups.group, jnp.clip(groups.slot, 0, values.shape[1] - 1)]
