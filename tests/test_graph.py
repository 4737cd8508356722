"""Sums over graphs."""

import jax.numpy as jnp
import numpy as np
import pytest

from equiform.graph import Capacity, batch, make_graph, to_device


@pytest.mark.parametrize("num_graphs", [1, 2])
def test_sums_over_atoms_leave_out_padding(num_graphs):
    graph = to_device(batch([make_graph(np.zeros((3, 3)))], Capacity(5, 0, num_graphs)), jnp.float64)
    values = jnp.asarray([[1.0, 2], [3, 4], [5, 6], [jnp.nan, 7], [8, 9]])
    np.testing.assert_array_equal(graph.sum_over_atoms(values), [[9, 12], [0, 0]][:num_graphs])
