"""Derivatives with respect to edge vectors: the same numbers as by positions, no scatter into one cell, and ghosts."""

import re
from dataclasses import replace
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.edges import forces_from_edges, virial_from_edges
from equiform.graph import Graph, make_graph, to_device
from equiform.models import build_model, parse_config
from equiform.models.api import Model, all_decay
from equiform.neighbors import neighbor_list
from equiform.tasks.edge_energy import edge_energy
from equiform.tasks.energy import Potential
from equiform.testing import check
from tests.tasks.test_energy import SMALL, molecule_and_crystal, potential
from tests.toy import ToyModel

EQUIFORMER = {"name": "equiformer", "elements": (1, 6, 8), "basis": "exp", **SMALL}
EGNN = {"name": "egnn", "elements": (1, 6, 8), "channels": 8, "num_layers": 2}
ANCHORED = {"scale": 0.3, "elements": (1, 6, 8), "anchored": True, "cohesion": (-1.0, -4.0, -2.0)}


class ByPositions(Model):
    """A model that does not say that it reads only edges."""

    model: Model

    @property
    def config(self):
        return self.model.config

    @property
    def traits(self):
        return replace(self.model.traits, edges_only=False)

    def __call__(self, graph, *, key=None):
        return self.model(graph, key=key)

    def decay_mask(self):
        return all_decay(self)


def by_positions(whole: Potential) -> Potential:
    return eqx.tree_at(lambda p: p.model, whole, ByPositions(whole.model))


def made(config: dict) -> Potential:
    return Potential(build_model(parse_config(config), key=jax.random.key(0)), **ANCHORED)


@pytest.mark.parametrize("config", [EGNN, pytest.param(EQUIFORMER, marks=pytest.mark.slow)], ids=["egnn", "equiformer"])
def test_forces_and_stress_by_edges_are_those_by_positions(config) -> None:
    graph, whole = molecule_and_crystal(), made(config)
    call = eqx.filter_jit(lambda p, graph: p(graph, stress=True))
    by_edges, expected = call(whole, graph), call(by_positions(whole), graph)
    np.testing.assert_array_equal(by_edges["energy"], expected["energy"])
    for name in ("forces", "stress"):
        largest = float(jnp.abs(expected[name]).max())
        assert largest > 1e-4
        # The order of sums differs: 1e-12 with LLVM's optimisations, a few times as much without.
        np.testing.assert_allclose(by_edges[name], expected[name], rtol=0, atol=1e-11 * largest)


def test_the_training_derivative_by_edges_is_that_by_positions() -> None:
    graph, whole = molecule_and_crystal(), made(EGNN)

    def loss(p: Potential):
        outputs = p.for_training(graph, ("energy", "forces", "stress"))
        return sum((outputs[name] ** 2).sum() for name in ("energy", "forces", "stress"))

    gradients = [eqx.filter_jit(eqx.filter_grad(loss))(p) for p in (whole, by_positions(whole))]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * max(float(jnp.abs(other).max()), 1e-3))


def scatters(program: str) -> list[tuple[int, int]]:
    """Rows of the operand and of the updates of every scatter of numbers in a lowered program."""
    found = re.findall(r'"stablehlo\.scatter".*?\}\) : \(tensor<(\w+)>, tensor<\w+>, tensor<(\w+)>\)', program, re.DOTALL)
    sizes = [tuple(int(shape.split("x")[0]) for shape in shapes) for shapes in found if "f64" in shapes[0]]
    return [(rows, updates) for rows, updates in sizes]


def programs(whole: Potential, graph: Graph) -> dict[str, list[tuple[int, int]]]:
    """Scatters of energy, forces and stress, and of a training gradient of all three."""

    def loss(p: Potential):
        outputs = p.for_training(graph, ("energy", "forces", "stress"))
        return sum((outputs[name] ** 2).sum() for name in ("energy", "forces", "stress"))

    arrays, static = eqx.partition(whole, eqx.is_inexact_array)
    call = jax.jit(lambda arrays: eqx.combine(arrays, static)(graph, stress=True))
    gradient = jax.jit(jax.grad(lambda arrays: loss(eqx.combine(arrays, static))))
    return {name: scatters(made.lower(arrays).as_text()) for name, made in (("call", call), ("gradient", gradient))}


def test_no_edge_is_scattered_into_a_graph() -> None:
    graph, whole = molecule_and_crystal(), potential()
    edges, atoms = graph.senders.shape[0], graph.species.shape[0]

    def into_graphs(p: Potential) -> dict[str, int]:
        return {
            name: sum(rows < atoms and updates >= edges for rows, updates in found)
            for name, found in programs(p, graph).items()
        }

    found = programs(whole, graph)
    assert any(rows >= atoms and updates >= edges for rows, updates in found["call"])  # messages arrive at atoms
    assert into_graphs(whole) == {"call": 0, "gradient": 0}
    # As it was: the derivative of each edge's cell.
    planted = into_graphs(by_positions(whole))
    assert planted["call"] >= 1


def cluster(positions: np.ndarray, cell: np.ndarray, reach: float, cutoff: float, species: np.ndarray) -> tuple:
    """Owned atoms and the images within `reach` of one of them, as a graph with vectors; the owner of each atom."""
    points, owners = [*positions], [*range(len(positions))]
    for shift in product(range(-4, 5), repeat=3):
        for index, place in enumerate(positions + np.array(shift) @ cell):
            if any(shift) and np.linalg.norm(place - positions, axis=1).min() < reach:
                points.append(place)
                owners.append(index)
    points, owners = np.array(points), np.array(owners)
    senders, receivers, _ = neighbor_list(points, None, False, cutoff)
    graph = make_graph(points, species[owners], senders, receivers)
    graph = graph.replace(vectors=graph.edge_vectors(), positions=np.full_like(points, 7.0))
    return to_device(graph, np.float64), owners


@pytest.mark.parametrize(
    "config", [EGNN, pytest.param(EQUIFORMER | {"num_layers": 2}, marks=pytest.mark.slow)], ids=["egnn", "equiformer"]
)
def test_ghosts_summed_to_their_owners_give_the_periodic_energy_and_forces(config) -> None:
    cutoff, whole = 2.6, made(config | {"cutoff": 2.6})
    cell = np.array([[3.1, 0, 0], [0.4, 2.9, 0], [-0.3, 0.2, 3.3]])  # each side is shorter than twice the cutoff
    positions, species = np.array([[0.1, 0.2, 0.3], [1.5, 1.2, 1.6]]), np.array([6, 8])
    senders, receivers, shifts = neighbor_list(positions, cell, True, cutoff)
    periodic = to_device(make_graph(positions, species, senders, receivers, shifts=shifts, cell=cell), np.float64)
    expected = eqx.filter_jit(lambda graph: whole(graph, stress=True))(periodic)

    # Equiformer's degree embedding reaches one cutoff further than its two layers.
    graph, owners = cluster(positions, cell, 3 * cutoff, cutoff, species)
    owned = jnp.arange(len(owners)) < 2
    assert len(owners) > 20

    @eqx.filter_jit
    def evaluated(graph: Graph) -> tuple:
        def total(vectors):
            energies = edge_energy(whole, graph.replace(vectors=vectors), owned=owned)
            return energies.sum(), energies

        slopes, energies = jax.grad(total, has_aux=True)(graph.vectors)
        return energies, forces_from_edges(slopes, graph), virial_from_edges(slopes, graph)[0]

    energies, forces, virial = evaluated(graph)
    assert not energies[2:].any() and np.abs(forces[2:]).max() > 1e-3
    np.testing.assert_allclose(energies.sum(), expected["energy"][0], rtol=0, atol=1e-10)
    summed = np.zeros((2, 3))
    np.add.at(summed, owners, np.asarray(forces))
    np.testing.assert_allclose(summed, expected["forces"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(virial / np.linalg.det(cell), expected["stress"][0], rtol=0, atol=1e-10)


class Placed(ToyModel):
    """Plants a fault: reads a position, and says that it does not."""

    def __call__(self, graph, *, key=None):
        return {"energy": super().__call__(graph)["energy"] + 1e-6 * graph.positions[:, 0]}


def test_a_false_claim_to_read_only_edges_is_found() -> None:
    check("only_edges_are_read", Potential(ToyModel()))
    with pytest.raises(AssertionError, match="other positions with the same edges"):
        check("only_edges_are_read", Potential(Placed()))


def test_models_that_read_positions_refuse_given_vectors() -> None:
    graph = to_device(make_graph(np.eye(3), [1, 6, 8], [1, 2], [0, 0]), np.float64)
    given = graph.replace(vectors=graph.edge_vectors())
    with pytest.raises(ValueError, match="reads positions"):
        Potential(ByPositions(ToyModel()))(given)
    with pytest.raises(ValueError, match="other than through edges"):
        edge_energy(Potential(ByPositions(ToyModel())), given)
    with pytest.raises(ValueError, match=r"no edge vectors; set them with graph\.replace"):
        edge_energy(Potential(ToyModel()), graph)
