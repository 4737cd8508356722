"""Additional node inputs: columns of fields by name."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.graph import Graph


def node_columns(graph: Graph, names: Sequence[str], width: int) -> list[Float[Array, "atoms _"]]:
    """Node fields as arrays with `width` columns.

    Raises:
        ValueError: The graph lacks one of them.
    """
    missing = sorted(set(names) - set(graph.node_fields))
    if missing:
        have = ", ".join(sorted(graph.node_fields)) or "none"
        raise ValueError(f"this model needs the node fields {', '.join(missing)}; the graph has: {have}")
    return [jnp.asarray(graph.node_fields[name], graph.positions.dtype).reshape(-1, width) for name in names]
