"""Token sets: what batching keeps, what padding hides, and how fields rotate as they are declared."""

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.errors import UserError
from equiform.fields import Field, declarations
from equiform.graph import batch, make_graph
from equiform.tokens import (
    Paired,
    TokenCapacity,
    batch_pairs,
    batch_tokens,
    make_tokens,
    rotated_tokens,
    side_by_side,
    tokens_of,
)

RAYS = declarations(
    Field("direction", "tokens", "polar"), Field("moment", "tokens", "axial"), Field("colour", "tokens", "invariant")
)


def rays(count, seed=0):
    rng = np.random.default_rng(seed)
    direction, origin = rng.normal(size=(2, count, 3))
    colour = rng.uniform(size=(count, 4))
    fields = {"direction": direction, "moment": np.cross(origin, direction), "colour": colour}
    return make_tokens(fields, set_fields={"energy": rng.normal()})


def test_sets_stand_one_after_the_other_and_sums_leave_padding_out():
    sets = [rays(3, 0), rays(1, 1), rays(5, 2)]
    together = batch_tokens(sets, TokenCapacity(12, 4))
    np.testing.assert_array_equal(together.set_index, [0] * 3 + [1] + [2] * 5 + [3] * 3)
    np.testing.assert_array_equal(together.token_mask, [True] * 9 + [False] * 3)
    garbage = jnp.where(jnp.asarray(together.token_mask)[:, None], jnp.asarray(together.fields["colour"]), 1e9)
    summed = together.sum_over_tokens(garbage)
    for row, one in zip(summed, sets):
        np.testing.assert_allclose(row, one.fields["colour"].sum(axis=0), atol=1e-14)
    np.testing.assert_array_equal(summed[3], 0)


def test_dense_rows_hold_each_set_and_nothing_else():
    sets = [rays(3, 0), rays(1, 1), rays(5, 2)]
    dense, filled = side_by_side(batch_tokens(sets, TokenCapacity(12, 4)), 6)
    np.testing.assert_array_equal(filled.sum(axis=1), [3, 1, 5, 0])
    for row, mask, one in zip(dense["moment"], filled, sets):
        np.testing.assert_array_equal(row[mask], one.fields["moment"])
        np.testing.assert_array_equal(row[~mask], 0)
    with pytest.raises(ValueError, match="a set has 5 tokens, but there are only 4 slots"):
        side_by_side(batch_tokens(sets), 4)


def test_fields_rotate_as_they_are_declared():
    sets = [rays(3, 0), rays(4, 1)]
    turns = np.stack([random_rotation(0), -random_rotation(1)])
    moved = rotated_tokens(batch_tokens(sets, TokenCapacity(9, 2)), turns, RAYS)
    for index, (one, turn) in enumerate(zip(sets, turns)):
        rows = (np.asarray(moved.set_index) == index) & moved.token_mask
        np.testing.assert_allclose(moved.fields["direction"][rows], one.fields["direction"] @ turn.T, atol=1e-14)
        # A moment is a cross product: it keeps its sign where everything is inverted.
        expected = np.linalg.det(turn) * one.fields["moment"] @ turn.T
        np.testing.assert_allclose(moved.fields["moment"][rows], expected, atol=1e-14)
        np.testing.assert_array_equal(moved.fields["colour"][rows], one.fields["colour"])
    with pytest.raises(UserError, match="the field 'direction' \\(tokens\\) is not declared"):
        rotated_tokens(sets[0], turns[:1])


def test_pairs_keep_their_order():
    examples = [Paired(rays(3, k), make_tokens({"position": np.full((k + 1, 3), float(k))})) for k in range(3)]
    together = batch_pairs(examples, TokenCapacity(10, 4), TokenCapacity(8, 4))
    np.testing.assert_array_equal(together.queries.set_index[:6], [0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(together.queries.fields["position"][:6, 0], [0, 1, 1, 2, 2, 2])
    with pytest.raises(ValueError, match="1 sets of tokens cannot be paired with 2 sets of queries"):
        Paired(rays(2), batch_tokens([rays(2), rays(1)]))


def test_nodes_of_a_graph_are_tokens():
    graph = batch([make_graph(np.eye(3), [1, 6, 8]), make_graph(np.zeros((1, 3)), [1])])
    tokens = tokens_of(graph)
    assert tokens.capacity == (4, 2) and tokens.fields["species"].tolist() == [1, 6, 8, 1]


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="different numbers of rows: a 2, b 3"):
        make_tokens({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="at least one field"):
        make_tokens({})
    with pytest.raises(ValueError, match="needs TokenCapacity"):
        batch_tokens([rays(3)], TokenCapacity(2, 1))
    with pytest.raises(ValueError, match="zero token sets"):
        batch_tokens([])
