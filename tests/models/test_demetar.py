"""DEMETAr: released parameter counts and function, whose faults are seen by the tests that the corrected one passes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.graph import Capacity, batch, fully_connected_edges, make_graph, to_device
from equiform.models.demetar import BY_COMPONENT, DEMETAr, DEMETArConfig
from equiform.models.presets import preset
from equiform.report.equivariance import equivariance_error
from tests.models.test_egnn import count, dense, particles

SMALL = {"channels": 16, "num_heads": 4}


def built(name="demetar-nbody", seed=0, **changes):
    model = DEMETAr(preset(name, **SMALL | changes), key=jax.random.key(seed))
    if model.structure_token is not None:  # it begins at zero, where a fault could hide
        model = eqx.tree_at(lambda m: m.structure_token, model, jnp.linspace(-1, 1, 16))
    return model


def run(model, graph, *, key=None):
    return jax.device_get(eqx.filter_jit(model)(to_device(graph, jnp.float64), key=key))


def molecule(atoms, seed=0):
    rng = np.random.default_rng(seed)
    edges = fully_connected_edges(atoms)
    return make_graph(2 * rng.normal(size=(atoms, 3)), rng.choice([1, 6, 7, 8, 9], atoms), *edges)


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [(92_931, {}), (366_083, {"channels": 128}), (100_355, {"channels": 128, "edges": False})],
    ids=["double-64", "double-128", "node-only-128"],
)
def test_the_released_models_have_their_parameters(parameters, changes):
    config = preset("demetar-published", **changes)
    assert count(eqx.filter_eval_shape(lambda: DEMETAr(config, key=jax.random.key(0)))) == parameters


def norm(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * np.asarray(layer.weight) + np.asarray(
        layer.bias
    )


def softmax_sum(q, k, v, heads, seen):
    out = []
    for a, b, c in zip(*(np.split(x, heads, axis=1) for x in (q, k, v))):
        grown = np.exp(a @ b.T / np.sqrt(a.shape[1])) * seen
        out.append(grown @ c / grown.sum(axis=1, keepdims=True))
    return np.concatenate(out, axis=1)


def encode(encoder, x):
    for index in range(len(encoder.blocks.first_norm.weight)):
        block = jax.tree.map(lambda leaf, index=index: leaf[index], encoder.blocks)
        q, k, v = np.split(dense(block.inputs, x), 3, axis=1)
        x = norm(block.first_norm, x + dense(block.outputs, softmax_sum(q, k, v, block.num_heads, 1)))
        x = norm(block.second_norm, x + dense(block.network.second, np.maximum(dense(block.network.first, x), 0)))
    return x


def test_the_released_particle_model_is_what_its_code_says():
    model, graph = built("demetar-published", dropout=0.0, node_layers=2), particles()
    v, q = graph.node_fields["velocity"], graph.node_fields["charge"]
    i, j = graph.receivers, graph.senders
    along = graph.positions[j] - graph.positions[i]
    squared = (along**2).sum(axis=1)
    edges = np.stack([squared, q[i] * q[j], (v[i] * along).sum(axis=1) / np.sqrt(squared)], axis=1)
    nodes = encode(model.node_encoder, dense(model.node_embedding, q[:, None]))
    edges = encode(model.edge_encoder, dense(model.edge_embedding, edges))
    k, values = np.split(dense(model.cross.answered, edges), 2, axis=1)
    strange = np.array([[atom not in (a, b) for a, b in zip(i, j)] for atom in range(5)])
    heard = dense(model.cross.outputs, softmax_sum(dense(model.cross.asked, nodes), k, values, 4, strange))
    expected = v * dense(model.vector, encode(model.joint_encoder, nodes + heard))
    np.testing.assert_allclose(run(model, graph)["displacement"], expected, atol=1e-12)


def test_the_released_property_model_sees_padding_and_hears_no_edge():
    model, graph = built("demetar-qm9-published", dropout=0.0, max_atoms=9), molecule(6)
    one_hot = (graph.species[:, None] == np.array([1, 6, 7, 8, 9])).astype(float)
    distance = np.linalg.norm(graph.positions - graph.positions.mean(axis=0), axis=1)
    inputs = np.concatenate([one_hot, (distance / distance.max())[:, None]], axis=1)
    padded = np.concatenate([inputs, np.zeros((3, 6))])
    x = np.concatenate([np.asarray(model.structure_token)[None], dense(model.node_embedding, padded)])
    expected = dense(model.energy, encode(model.joint_encoder, encode(model.node_encoder, x))[0])[0]
    np.testing.assert_allclose(run(model, graph)["energy"].sum(), expected, atol=1e-12)


def changed_by_one_edge(model):
    """Atoms whose features change when the edge from atom 2 to atom 1 alone becomes longer."""
    graph = particles()
    graph = graph.replace(cell=np.eye(3)[None] * 0.3)
    edge = np.flatnonzero((graph.senders == 2) & (graph.receivers == 1))[0]
    shifts = graph.shifts.copy()
    shifts[edge, 0] = 3
    features = eqx.filter_jit(DEMETAr.descriptors)
    before, after = (features(model, to_device(g, jnp.float64)) for g in (graph, graph.replace(shifts=shifts)))
    return set(np.flatnonzero(np.abs(np.asarray(after - before)).max(axis=1) > 1e-9).tolist())


@pytest.mark.parametrize(
    ("mask", "expected"),
    [("own", {1, 2}), ("others", {0, 3, 4}), pytest.param("none", {0, 1, 2, 3, 4}, marks=pytest.mark.slow)],
)
def test_atoms_hear_their_own_edges(mask, expected):
    """With the released mask, planted as a fault, it is all the others that hear."""
    assert changed_by_one_edge(built(mask=mask, edge_layers=0, joint_layers=0)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demetar-nbody", "demetar-qm9"])
def test_a_graph_is_the_same_alone_in_company_and_padded(name):
    make = particles if name == "demetar-nbody" else molecule
    model = built(name)
    graphs = [make(seed=0, **{"bodies": 5} if make is particles else {"atoms": 7})]
    graphs += [make(seed=1, **{"bodies": 4} if make is particles else {"atoms": 4}), graphs[0]]
    key = "displacement" if make is particles else "energy"
    together = run(model, batch(graphs, Capacity(23, 120, 4)))[key]
    first = 0
    for graph in graphs:
        alone = run(model, graph)[key]
        np.testing.assert_allclose(together[first : first + len(alone)], alone, atol=1e-12)
        first += len(alone)
    # Rows that are too short cost time and nothing else.
    short = built(name, max_atoms=2, max_edges=3)
    np.testing.assert_allclose(run(short, batch(graphs, Capacity(23, 120, 4)))[key][:first], together[:first], atol=1e-12)


@pytest.mark.slow
def test_attended_padding_is_seen_by_the_same_test():
    model = built("demetar-qm9-published", dropout=0.0, max_atoms=7)
    wider = built("demetar-qm9-published", dropout=0.0, max_atoms=12)
    full, graph = molecule(7), molecule(5)
    assert abs(run(model, graph)["energy"].sum() - run(wider, graph)["energy"].sum()) > 1e-6
    assert run(model, full)["energy"].sum() != run(wider, full)["energy"].sum()


@pytest.mark.slow
def test_dropout_is_off_in_evaluation_and_the_released_one_is_not():
    graph, key = particles(), jax.random.key(3)
    model, without = built(dropout=0.3), built(dropout=0.0)
    expected = run(without, graph)["displacement"]
    np.testing.assert_array_equal(run(model, graph)["displacement"], expected)
    assert np.abs(run(model, graph, key=key)["displacement"] - expected).max() > 1e-3
    released, without = built("demetar-published"), built("demetar-published", dropout=0.0)
    assert np.abs(run(released, graph)["displacement"] - run(without, graph)["displacement"]).max() > 1e-3


_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("velocity", *BY_COMPONENT[1:])]


@pytest.mark.parametrize("vectors", ["pairs", "velocity-components", *_SLOW])
def test_one_number_per_vector_turns_and_three_do_not(vectors):
    released = vectors in BY_COMPONENT
    model = eqx.filter_jit(built("demetar-published" if released else "demetar-nbody", vectors=vectors, dropout=0.0))
    error = equivariance_error(lambda g: model(to_device(g, jnp.float64))["displacement"], particles(), mirrored=not released)
    assert error > 1e-3 if released else error < 1e-10


@pytest.mark.slow
def test_edges_without_effect_have_no_gradient_and_arriving_ones_do():
    for name, arrives in (("demetar-qm9", True), ("demetar-qm9-published", False)):
        model, graph = built(name), to_device(molecule(5), jnp.float64)
        gradient = eqx.filter_jit(eqx.filter_grad(lambda m, g=graph: m(g)["energy"].sum()))(model)
        assert (np.abs(gradient.edge_embedding.weight).max() > 1e-6) == arrives


def test_what_is_missing_or_contradictory_is_told():
    with pytest.raises(ValueError, match="needs the node fields velocity; the graph has: charge"):
        run(built(), particles().replace(node_fields={"charge": np.ones(5)}))
    for message, fields in [
        ("nothing to predict", {"readout": None}),
        ("must be divisible", {"channels": 10}),
        ("repeated", {"elements": (1, 1)}),
        ("needs a velocity", {"vector_readouts": ("d",), "vectors": "velocity"}),
        ("readout=graph needs scope=graph", {"readout": "graph"}),
        ("mask=others needs scope=graph", {"mask": "others"}),
        ("needs scope=graph", {"centre_distance": True}),
        ("padding=attended needs max_atoms", {"padding": "attended", "scope": "graph"}),
    ]:
        with pytest.raises(ValueError, match=message):
            DEMETArConfig(**{"elements": (1,)} | fields)


def test_local_energies_turn_with_nothing_and_own_edges_are_those_that_end_there():
    model = DEMETAr(DEMETArConfig(elements=(1, 6, 7, 8, 9), **SMALL, edge_layers=1), key=jax.random.key(0))
    graph = molecule(6)
    turned = graph.replace(positions=graph.positions @ random_rotation(0).T + 5.0)
    np.testing.assert_allclose(run(model, turned)["energy"], run(model, graph)["energy"], atol=1e-11)


def largest_jump(activation, steps):
    """Of the slope of the energy while an atom moves by half an Å, between one step and the next."""
    config = DEMETArConfig(elements=(1, 6, 7, 8, 9), activation=activation, **SMALL)
    model, graph = DEMETAr(config, key=jax.random.key(1)), to_device(molecule(6), jnp.float64)

    def energy(distance):
        return model(graph.replace(positions=graph.positions.at[0, 0].add(distance)))["energy"].sum()

    slopes = jax.jit(lambda distances: jax.lax.map(jax.grad(energy), distances))(jnp.linspace(0, 0.5, steps))
    return float(jnp.abs(jnp.diff(slopes)).max())


@pytest.mark.slow  # four programs and four thousand slopes: a minute
def test_forces_have_no_jumps_for_own_data_as_they_have_with_the_released_activation():
    assert largest_jump("silu", 1601) < 0.3 * largest_jump("silu", 401)
    assert largest_jump("relu", 1601) > 0.6 * largest_jump("relu", 401)
