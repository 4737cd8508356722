"""Further inputs of nodes: columns of fields by name."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.graph import Graph


def node_columns(graph: Graph, names: Sequence[str], width: int) -> list[Float[Array, "atoms _"]]:
    """Fields of nodes as arrays of `width` numbers per node.

    Raises:
        ValueError: The graph does not have one of them.
    """
    missing = sorted(set(names) - set(graph.node_fields))
    if missing:
        have = ", ".join(sorted(graph.node_fields)) or "none"
        raise ValueError(f"this model needs the node fields {', '.join(missing)}; the graph has: {have}")
    return [jnp.asarray(graph.node_fields[name], graph.positions.dtype).reshape(-1, width) for name in names]
