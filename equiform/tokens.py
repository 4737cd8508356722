"""Token sets: rays, query points, bodies, lattice sites. Like `Graph`, but without a cell and without edges.

A set holds tokens with named fields, each declared in `equiform.fields`; a batch concatenates several sets, with a capacity
and a mask, so that one compiled program serves a whole data set. Arrays are NumPy on the host and JAX on the device. `Paired`
holds two token sets for each example: the inputs (tokens), and where predictions are requested (queries).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from equiform.fields import DECLARED, Axis, Field, find_field, transformed
from equiform.graph import AnyArray, Graph


class TokenCapacity(NamedTuple):
    """The fixed sizes of a padded batch of token sets."""

    tokens: int
    sets: int


class Tokens(eqx.Module):
    """A batch of token sets (often of one).

    Attributes:
        fields: Arrays with one row per token, by name.
        set_fields: Arrays with one row per set, by name (labels of an example, a temperature).
        set_index: The set a token belongs to; ascending.
        token_mask: False for padding tokens.
        set_mask: False for padding sets.
    """

    fields: dict[str, Any]
    set_fields: dict[str, Any]
    set_index: Int[AnyArray, " tokens"]
    token_mask: Bool[AnyArray, " tokens"]
    set_mask: Bool[AnyArray, " sets"]

    @property
    def capacity(self) -> TokenCapacity:
        return TokenCapacity(self.token_mask.shape[0], self.set_mask.shape[0])

    def sum_over_tokens(self, values: Float[AnyArray, "tokens ..."]) -> Float[Array, "sets ..."]:
        """Sum token values over each set, excluding padding."""
        mask = jnp.reshape(jnp.asarray(self.token_mask), (-1,) + (1,) * (values.ndim - 1))
        return jax.ops.segment_sum(jnp.where(mask, values, 0), self.set_index, self.set_mask.shape[0], indices_are_sorted=True)


class Paired(eqx.Module):
    """Two token sets for each example: set k of the queries belongs to set k of the tokens.

    Attributes:
        tokens: The inputs.
        queries: Where predictions are requested, with their labels.
    """

    tokens: Tokens
    queries: Tokens

    def __check_init__(self) -> None:
        tokens, queries = self.tokens.capacity.sets, self.queries.capacity.sets
        if tokens != queries:
            raise ValueError(f"{tokens} sets of tokens cannot be paired with {queries} sets of queries")


def make_tokens(fields: Mapping[str, Any], *, set_fields: Mapping[str, Any] | None = None) -> Tokens:
    """One unpadded set on the host.

    Args:
        fields: Arrays with one row per token.
        set_fields: Values of the set as a whole.

    Raises:
        ValueError: There is no field, or the fields have different numbers of rows.
    """
    rows = {name: np.asarray(value) for name, value in fields.items()}
    if not rows:
        raise ValueError("a token set needs at least one field")
    sizes = {name: len(value) for name, value in rows.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"the fields of a token set have different numbers of rows: {listed}")
    count = next(iter(sizes.values()))
    return Tokens(
        fields=rows,
        set_fields={name: np.asarray(value)[None] for name, value in (set_fields or {}).items()},
        set_index=np.zeros(count, np.int32),
        token_mask=np.ones(count, bool),
        set_mask=np.ones(1, bool),
    )


def batch_tokens(sets: Sequence[Tokens], capacity: TokenCapacity | None = None) -> Tokens:
    """Concatenate host token sets into one batch, padded to a capacity.

    Only fields that all sets have are kept. Padding tokens sit at the end, in the last set slot, masked.

    Raises:
        ValueError: There are no sets, or they do not fit; the message names the required capacity.
    """
    if not sets:
        raise ValueError("cannot batch zero token sets")
    sizes = [tokens.capacity for tokens in sets]
    needed = TokenCapacity(*(sum(column) for column in zip(*sizes)))
    capacity = capacity or needed
    if any(have < need for have, need in zip(capacity, needed)):
        raise ValueError(f"the batch needs {needed} but the capacity is {capacity}")
    pad = TokenCapacity(*(have - need for have, need in zip(capacity, needed)))
    offsets = np.cumsum([0] + [size.sets for size in sizes])

    def joined(arrays: Sequence[Any], padding: int, fill: int | bool = 0) -> np.ndarray:
        parts = [np.asarray(array) for array in arrays]
        return np.concatenate([*parts, np.full((padding, *parts[0].shape[1:]), fill, parts[0].dtype)])

    def together(columns: Sequence[dict[str, Any]], padding: int) -> dict[str, np.ndarray]:
        names = [name for name in columns[0] if all(name in column for column in columns)]
        return {name: joined([column[name] for column in columns], padding) for name in names}

    return Tokens(
        fields=together([tokens.fields for tokens in sets], pad.tokens),
        set_fields=together([tokens.set_fields for tokens in sets], pad.sets),
        set_index=joined([t.set_index + o for t, o in zip(sets, offsets)], pad.tokens, capacity.sets - 1).astype(np.int32),
        token_mask=joined([tokens.token_mask for tokens in sets], pad.tokens),
        set_mask=joined([tokens.set_mask for tokens in sets], pad.sets),
    )


def batch_pairs(pairs: Sequence[Paired], tokens: TokenCapacity | None = None, queries: TokenCapacity | None = None) -> Paired:
    """Batch examples: their tokens and their queries, each padded to a capacity with the same number of sets.

    Raises:
        ValueError: See `batch_tokens`, or the capacities have different numbers of sets.
    """
    return Paired(
        batch_tokens([pair.tokens for pair in pairs], tokens), batch_tokens([pair.queries for pair in pairs], queries)
    )


def side_by_side(tokens: Tokens, slots: int) -> tuple[dict[str, np.ndarray], Bool[np.ndarray, "sets slots"]]:
    """Fields of a host batch as dense arrays (sets, slots, …), and which slots hold a token: for dense attention.

    Args:
        tokens: The batch.
        slots: Maximum number of tokens per set.

    Raises:
        ValueError: A set has more tokens than that.
    """
    index, mask = np.asarray(tokens.set_index), np.asarray(tokens.token_mask)
    counts = np.bincount(index[mask], minlength=len(tokens.set_mask))
    if counts.max(initial=0) > slots:
        raise ValueError(f"a set has {counts.max()} tokens, but there are only {slots} slots")
    place = np.arange(len(index)) - np.searchsorted(index, index)
    filled = np.zeros((len(tokens.set_mask), slots), bool)
    filled[index[mask], place[mask]] = True
    dense = {}
    for name, value in tokens.fields.items():
        out = np.zeros((*filled.shape, *np.asarray(value).shape[1:]), np.asarray(value).dtype)
        out[index[mask], place[mask]] = np.asarray(value)[mask]
        dense[name] = out
    return dense, filled


def tokens_of(graph: Graph) -> Tokens:
    """The nodes of a graph as tokens: positions, species and node fields; edges and cells are dropped."""
    return Tokens(
        fields={"position": graph.positions, "species": graph.species, **graph.node_fields},
        set_fields=dict(graph.graph_fields),
        set_index=graph.graph_index,
        token_mask=graph.atom_mask,
        set_mask=graph.graph_mask,
    )


def rotated_tokens(
    tokens: Tokens,
    rotations: Float[np.ndarray, "sets 3 3"],
    declared: Mapping[tuple[Axis, str], Field] = DECLARED,
) -> Tokens:
    """A host batch with each set rotated (or reflected) about the origin, every field as declared.

    Args:
        tokens: The sets.
        rotations: An element of O(3) for each set.
        declared: Declarations of the fields; set fields are on the axis "graphs".

    Raises:
        UserError: A field is not declared.
    """
    of_tokens = rotations[np.asarray(tokens.set_index)]
    fields = {n: transformed(find_field(n, "tokens", declared), np.asarray(v), of_tokens) for n, v in tokens.fields.items()}
    whole = {n: transformed(find_field(n, "graphs", declared), np.asarray(v), rotations) for n, v in tokens.set_fields.items()}
    return Tokens(fields, whole, tokens.set_index, tokens.token_mask, tokens.set_mask)
