"""The trained leaves of a model, their names, and their precision."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.errors import UserError


def is_parameter(leaf: Any) -> bool:
    """Floating-point JAX arrays are trained; NumPy arrays are constants of the model."""
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def split(tree: Any) -> tuple[Any, Any]:
    """The parameters, and everything else; `equinox.combine` joins them again."""
    return eqx.partition(tree, is_parameter)


def num_parameters(tree: Any) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if is_parameter(leaf))


def with_dtype(tree: Any, dtype: Any) -> Any:
    """A copy with all parameters in one precision."""
    # Always a real copy: the caller's arrays must outlive the buffers donated in training.
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype) if is_parameter(leaf) else leaf, tree)


def named(tree: Any) -> dict[str, Any]:
    """The leaves by their path in the tree, such as `blocks.0.linear.weight`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def filled(like: Any, arrays: dict[str, np.ndarray], source: str) -> Any:
    """A tree with the structure of another one, filled with arrays by name.

    Args:
        like: Arrays, or their shapes and types.
        arrays: The new arrays.
        source: Where they come from, for the error message.

    Raises:
        UserError: An array is missing, left over, or of another shape or precision.
    """
    expected = named(like)
    missing, surplus = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
    if missing or surplus:
        parts = [f"{_some(missing)} missing"] if missing else []
        parts += [f"{_some(surplus)} unknown"] if surplus else []
        raise UserError(f"{source} does not belong to this model: {' and '.join(parts)}")
    for name, leaf in expected.items():
        have = arrays[name]
        if have.shape != leaf.shape or have.dtype != leaf.dtype:
            raise UserError(
                f"{source} does not belong to this model: {name} is {have.dtype}{list(have.shape)}, "
                f"expected {leaf.dtype}{list(leaf.shape)}"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in expected])


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"
