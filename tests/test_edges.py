"""Edge geometry: who is inside, how neighbours fade, and what forces, virial and motion are in terms of edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.edges import (
    cosine_envelope,
    forces_from_edges,
    make_edges,
    motion_of_edges,
    polynomial_envelope,
    shortest_edge,
    virial_from_edges,
)
from equiform.graph import Capacity, Graph, batch, make_graph, to_device
from equiform.neighbors import neighbor_list

CUTOFF = 2.0


def line(*places: float) -> Graph:
    """Atoms on a line, every one a neighbour of the first."""
    positions = np.array([[0.0, x, 0.0] for x in (0.0, *places)])
    others = list(range(1, len(positions)))
    return make_graph(positions, None, others, [0] * len(others))


@pytest.mark.parametrize(("kind", "at_cutoff"), [("smooth", 0), ("cosine", 0), ("sharp", 0), ("sharp-inclusive", 1)])
def test_only_the_published_kind_has_edges_as_long_as_the_cutoff(kind, at_cutoff) -> None:
    edges = make_edges(to_device(line(1.0, CUTOFF, CUTOFF + 1e-9), np.float64), CUTOFF, kind, zero_length=True)
    np.testing.assert_array_equal(edges.inside, [True, bool(at_cutoff), False])
    np.testing.assert_array_equal(edges.weight[1:], [at_cutoff, 0.0])
    assert edges.weight[0] > 0 and (edges.envelope is None) == kind.startswith("sharp")


@pytest.mark.parametrize("zero_length", [True, False])
def test_edges_of_zero_length_have_no_direction_and_no_gradient(zero_length) -> None:
    graph = to_device(line(0.0, 1.0), np.float64)
    edges = make_edges(graph, CUTOFF, "smooth", zero_length=zero_length)
    np.testing.assert_array_equal(edges.inside, [zero_length, True])
    np.testing.assert_array_equal(edges.directions, [[0, 0, 0], [0, 1, 0]])

    def total(positions):
        moved = make_edges(graph.replace(positions=positions), CUTOFF, "smooth", zero_length=zero_length)
        return moved.distance.sum() + moved.directions.sum() + moved.weight.sum()

    gradient = jax.grad(total)(graph.positions)
    assert jnp.isfinite(gradient).all() and not gradient[1].any() and gradient[2].any()


@pytest.mark.parametrize(("envelope", "order"), [(polynomial_envelope, 2), (cosine_envelope, 1)])
def test_envelopes_vanish_at_the_cutoff_with_their_derivatives(envelope, order) -> None:
    near = 1 - 1e-8
    for derivative in range(order + 1):
        assert abs(float(envelope(jnp.asarray(near)))) < 1e-5, f"derivative {derivative}"
        assert float(envelope(jnp.asarray(1.5))) == 0
        envelope = jax.grad(envelope)
    assert float(polynomial_envelope(jnp.asarray(0.5))) == pytest.approx(1 - 21 / 2**5 + 35 / 2**6 - 15 / 2**7)


def test_padding_is_outside_and_chunks_are_whole() -> None:
    graph = batch([line(1.0, 1.5)], Capacity(5, 5, 2))
    # Padding edges that point at real atoms: a forgotten mask would count them.
    senders, receivers = np.array([1, 2, 1, 2, 1]), np.array([0, 0, 0, 0, 0])
    graph = to_device(graph.replace(senders=senders, receivers=receivers), np.float64)
    edges = make_edges(graph, CUTOFF, "smooth", zero_length=True, chunk=4)
    assert edges.chunk == 3 and edges.distance.shape == (6,)
    np.testing.assert_array_equal(edges.inside, [True, True, False, False, False, False])
    assert not edges.vectors[2:].any() and not edges.weight[2:].any()
    np.testing.assert_allclose(edges.sum_at_receivers(edges.weight)[0], edges.weight[:2].sum(), rtol=1e-15)
    assert make_edges(graph, CUTOFF, "sharp", zero_length=True, chunk=5).chunk is None


def test_given_vectors_are_the_edge_vectors_also_in_a_batch() -> None:
    vectors = np.array([[0.0, 0.5, 0.0], [1.0, 0.0, 0.0]])
    given, made = line(1.0, 1.5).replace(vectors=vectors), line(1.2)
    edges = make_edges(to_device(batch([given, made], Capacity(6, 5, 3)), np.float64), CUTOFF, "sharp", zero_length=True)
    np.testing.assert_allclose(edges.vectors[:3], [*vectors, [0, 1.2, 0]])
    assert edges.distance.shape == (5,) and not edges.inside[3:].any()
    chunked = make_edges(to_device(given, np.float64), CUTOFF, "sharp", zero_length=True, chunk=1)
    np.testing.assert_array_equal(chunked.vectors, vectors)


def crystals() -> Graph:
    """Two skewed cells, each smaller than twice the cutoff, with a padding graph."""
    rng, graphs = np.random.default_rng(0), []
    for count in (2, 3):
        cell = 2.5 * np.eye(3) + 0.3 * rng.normal(size=(3, 3))
        positions = rng.uniform(size=(count, 3)) @ cell
        senders, receivers, shifts = neighbor_list(positions, cell, True, CUTOFF)
        graphs.append(make_graph(positions, None, senders, receivers, shifts=shifts, cell=cell))
    edges = sum(graph.capacity.edges for graph in graphs)
    return to_device(batch(graphs, Capacity(7, edges + 4, 3)), np.float64)


def energy_of(vectors, graph: Graph):
    """A function of edge vectors that knows directions, and sees padding edges but for the mask."""
    weight = jnp.linspace(0.5, 1.5, len(vectors))
    return jnp.where(graph.edge_mask, weight * jnp.sin(vectors @ jnp.asarray([1.0, -0.3, 0.7])), 0).sum()


def strained(graph: Graph, positions, strain) -> Graph:
    deform = jnp.eye(3)[None] + 0.5 * (strain + jnp.swapaxes(strain, 1, 2))
    return graph.replace(positions=jnp.einsum("ai,aij->aj", positions, deform[graph.graph_index]), cell=graph.cell @ deform)


def test_forces_and_virial_are_the_derivatives_by_positions_and_strain() -> None:
    graph = crystals()
    slopes = jax.grad(energy_of)(graph.edge_vectors(), graph)

    def by_positions(positions, strain):
        return energy_of(strained(graph, positions, strain).edge_vectors(), graph)

    zero = jnp.zeros_like(graph.cell)
    gradient, virial = jax.grad(by_positions, argnums=(0, 1))(graph.positions, zero)
    np.testing.assert_allclose(forces_from_edges(slopes, graph), -gradient, atol=1e-12)
    np.testing.assert_allclose(virial_from_edges(slopes, graph), virial, atol=1e-12)
    assert float(jnp.abs(virial).max()) > 0.1 and not virial[2].any()


def test_motion_of_edges_is_the_tangent_of_their_vectors() -> None:
    graph, rng = crystals(), np.random.default_rng(1)
    motion, strain = jnp.asarray(rng.normal(size=(7, 3))), jnp.asarray(rng.normal(size=(3, 3, 3)))

    def vectors(positions, strain):
        return strained(graph, positions, strain).edge_vectors()

    at = (graph.positions, jnp.zeros_like(graph.cell))
    expected = jax.jvp(vectors, at, (motion, strain))[1]
    found = motion_of_edges(motion, strain, graph)
    np.testing.assert_allclose(found[graph.edge_mask], expected[graph.edge_mask], atol=1e-12)


def test_the_shortest_edge_is_found() -> None:
    assert shortest_edge(np.array([[3.0, 0, 0], [0, 1, 1], [0, 2, 0]])) == (1, pytest.approx(np.sqrt(2)))
    assert shortest_edge(np.zeros((0, 3))) == (-1, np.inf)
