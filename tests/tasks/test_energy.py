"""The potential: the derivative that training takes, and messages computed some edges at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk, molecule

from equiform.graph import Capacity, Graph, batch, make_graph, to_device
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.neighbors import neighbor_list
from equiform.tasks.energy import Potential

SMALL = {
    "irreps": "6x0e+4x1e",
    "irreps_sh": "1x0e+1x1e",
    "irreps_head": "4x0e+2x1e",
    "irreps_mlp": "6x0e+4x1e",
    "irreps_feature": "8x0e",
    "radial_widths": (6,),
    "num_basis": 6,
    "num_layers": 1,
    "num_heads": 2,
    "average_degree": 5.0,
}


def potential(**changes) -> Potential:
    config = preset("tiny", elements=(1, 6, 8), **(SMALL | changes))
    model = build_model(config, key=jax.random.key(0))
    return Potential(model, scale=0.3, elements=(1, 6, 8), anchored=True, cohesion=(-1.0, -4.0, -2.0))


def molecule_and_crystal() -> Graph:
    rng = np.random.default_rng(0)
    graphs = []
    for atoms in (molecule("CH3CH2OH"), bulk("C", cubic=True)):
        positions = atoms.positions + 0.05 * rng.normal(size=(len(atoms), 3))
        cell = np.array(atoms.cell)
        senders, receivers, shifts = neighbor_list(positions, cell, np.array(atoms.pbc), 3.0)
        graphs.append(make_graph(positions, atoms.numbers, senders, receivers, shifts=shifts, cell=cell))
    edges = sum(graph.capacity.edges for graph in graphs)
    return to_device(batch(graphs, Capacity(20, edges + 7, 3)), np.float64)


def loss_and_gradient(model: Potential, graph: Graph, method: str) -> tuple:
    """A loss of energies, forces and stresses, each with weights of its own."""
    rng = np.random.default_rng(1)
    weights = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}

    def loss(model: Potential) -> jax.Array:
        outputs = getattr(model, method)(graph, ("energy", "forces", "stress"))
        return sum((weights[name] * outputs[name] ** 2).sum() for name in weights)  # type: ignore[return-value]

    return eqx.filter_jit(eqx.filter_value_and_grad(loss))(model)


SHAPES = {"energy": (3,), "forces": (20, 3), "stress": (3, 3, 3)}


def assert_close(one: tuple, other: tuple) -> None:
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10)
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(other[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(float(jnp.abs(b).max()), 1e-6))


def test_the_training_derivative_is_the_derivative() -> None:
    graph = molecule_and_crystal()
    assert_close(*(loss_and_gradient(potential(), graph, method) for method in ("for_training", "predict")))


DOT = pytest.param({"message": "linear", "attention": "dot"}, id="dot", marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", [pytest.param({}, id="nonlinear"), DOT])
def test_edges_in_chunks_change_nothing(kind: dict) -> None:
    graph = molecule_and_crystal()
    whole = loss_and_gradient(potential(edge_chunk=0, **kind), graph, "for_training")
    assert_close(loss_and_gradient(potential(edge_chunk=100, **kind), graph, "for_training"), whole)


@pytest.mark.slow
def test_attention_weights_of_chunks_belong_to_the_edges_of_the_graph() -> None:
    graph = molecule_and_crystal()
    one, other = (potential(edge_chunk=size).model for size in (0, 100))
    for a, b in zip(one.attention(graph), other.attention(graph), strict=True):
        assert a.shape == b.shape == (graph.senders.shape[0], 2)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def pair(distance: float, species: tuple[int, int]) -> Graph:
    positions = np.array([[0.0, 0, 0], [distance, 0, 0]])
    return to_device(make_graph(positions, np.array(species), [1, 0], [0, 1]), np.float64)


def test_cohesion_binds_pairs_smoothly_and_isolated_atoms_not_at_all() -> None:
    whole = potential()
    without = eqx.tree_at(lambda p: p.model, Potential(whole.model, 0.3, 0.0, (1, 6, 8), True), whole.model)

    @eqx.filter_jit
    def share(graph: Graph) -> tuple:
        (a, b) = (p(graph) for p in (whole, without))
        return (a["energy"] - b["energy"])[0], a["forces"] - b["forces"]

    for distance, species in ((1.0, (1, 6)), (3.0, (8, 6)), (4.999, (1, 1))):
        envelope = 1 - 21 * (distance / 5) ** 5 + 35 * (distance / 5) ** 6 - 15 * (distance / 5) ** 7
        expected = sum({1: -1.0, 6: -4.0, 8: -2.0}[z] for z in species) * (1 - np.exp(-2 * envelope))
        np.testing.assert_allclose(share(pair(distance, species))[0], expected, rtol=1e-10, atol=1e-12)
    energy, forces = share(pair(5.001, (1, 6)))
    assert float(energy) == 0 and not forces.any()
    assert float(abs(share(pair(4.999, (1, 6)))[1]).max()) < 1e-4
