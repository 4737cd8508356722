"""EGNN against its equations written out edge by edge in NumPy, and its symmetry with a given velocity."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.graph import fully_connected_edges, make_graph, to_device
from equiform.models.egnn import EGNN, EGNNConfig
from equiform.models.presets import preset
from equiform.runtime import policy


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(model) if hasattr(leaf, "size"))


def particles(seed=0, bodies=5):
    rng = np.random.default_rng(seed)
    senders, receivers = fully_connected_edges(bodies)
    fields = {"velocity": rng.normal(size=(bodies, 3)), "charge": rng.choice([-1.0, 1.0], bodies)}
    return make_graph(rng.normal(size=(bodies, 3)), None, senders, receivers, node_fields=fields)


def silu(x):
    return x / (1 + np.exp(-x))


def dense(layer, x):
    y = x @ np.asarray(layer.weight)
    return y if layer.bias is None else y + np.asarray(layer.bias)


def written_out(model, graph, inputs, *, velocity=None, charge=None):
    """The published update, one node and one edge at a time; returns node features and positions."""
    h = [dense(model.embedding, row) for row in inputs]
    x = [np.array(row) for row in graph.positions]
    atoms, start = len(h), [np.array(row) for row in graph.positions]
    for layer in model.layers:
        new_h, new_x = [], []
        for i in range(atoms):
            total, moves = 0.0, []
            for j in range(atoms):
                if j == i:
                    continue
                attributes = [] if charge is None else [charge[i] * charge[j], ((start[i] - start[j]) ** 2).sum()]
                message = np.concatenate([h[i], h[j], [((x[i] - x[j]) ** 2).sum()], attributes])
                message = silu(dense(layer.edge.second, silu(dense(layer.edge.first, message))))
                if layer.gate is not None:
                    message = message / (1 + np.exp(-dense(layer.gate, message)))
                total = total + message
                if layer.move is not None:
                    weight = dense(layer.move[1], silu(dense(layer.move[0], message)))
                    moves.append(np.clip((x[i] - x[j]) * weight, -100, 100))
            moved = x[i] + (np.mean(moves, axis=0) if moves else 0)
            if velocity is not None:
                moved = moved + dense(layer.follow.second, silu(dense(layer.follow.first, h[i]))) * velocity[i]
            hidden = silu(dense(layer.node.first, np.concatenate([h[i], total])))
            new_h.append(h[i] + dense(layer.node.second, hidden))
            new_x.append(moved)
        h, x = new_h, new_x
    return np.array(h), np.array(x)


def test_the_published_nbody_model_has_its_parameters():
    config = preset("egnn-nbody")
    assert count(eqx.filter_eval_shape(lambda: EGNN(config, key=jax.random.key(0)))) == 134_020


@pytest.mark.parametrize("chunked", [False, True])
def test_positions_move_as_the_published_equations_say(chunked, monkeypatch):
    monkeypatch.setattr(policy, "current_policy", lambda: policy.ExecutionPolicy(1 if chunked else 10**9, fewest_edges=64))
    model = EGNN(preset("egnn-nbody", channels=8, num_layers=3), key=jax.random.key(1))
    # At the published initialisation positions hardly move; here they shall.
    model = eqx.tree_at(lambda m: [layer.move[1].weight for layer in m.layers], model, replace_fn=lambda w: 3e3 * w)
    graph = particles(bodies=9)  # 72 edges; the smallest chunk has 64
    v, q = graph.node_fields["velocity"], graph.node_fields["charge"]
    _, x = written_out(model, graph, np.linalg.norm(v, axis=1, keepdims=True), velocity=v, charge=q)
    found = eqx.filter_jit(model)(to_device(graph, jnp.float64))["displacement"]
    assert np.abs(x - graph.positions - v).max() > 0.1
    np.testing.assert_allclose(found, x - graph.positions, rtol=1e-11, atol=1e-11)


def test_edges_in_chunks_change_no_derivative(monkeypatch):
    model = EGNN(preset("egnn-nbody", channels=8, num_layers=2), key=jax.random.key(4))
    graph, found = to_device(particles(bodies=9), jnp.float64), []
    for size in (10**9, 1):
        monkeypatch.setattr(policy, "current_policy", lambda size=size: policy.ExecutionPolicy(size, fewest_edges=64))
        found.append(eqx.filter_jit(eqx.filter_grad(lambda model: (model(graph)["displacement"] ** 2).sum()))(model))
    for one, other in zip(*(jax.tree.leaves(eqx.filter(each, eqx.is_array)) for each in found), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12 * float(jnp.abs(one).max()))


def test_the_published_property_model_is_a_network_on_summed_atoms():
    config = preset("egnn-qm9", channels=8, num_layers=2)
    model = EGNN(config, key=jax.random.key(2))
    rng = np.random.default_rng(0)
    species, senders_receivers = np.array([6, 1, 8, 1]), fully_connected_edges(4)
    graph = make_graph(2 * rng.normal(size=(4, 3)), species, *senders_receivers)
    one_hot = (species[:, None] == np.array([1, 6, 7, 8, 9])).astype(float)
    ratio = species[:, None] / 9
    inputs = np.stack([one_hot, one_hot * ratio, one_hot * ratio**2], axis=-1).reshape(4, 15)
    h, _ = written_out(model, graph, inputs)
    node = np.array([dense(model.node_readout.second, silu(dense(model.node_readout.first, row))) for row in h])
    expected = dense(model.graph_readout.second, silu(dense(model.graph_readout.first, node.sum(axis=0))))
    found = eqx.filter_jit(model)(to_device(graph, jnp.float64))["energy"]
    np.testing.assert_allclose(found.sum(), expected[0], atol=1e-12)


def test_displacements_turn_with_positions_and_velocities():
    model = eqx.filter_jit(EGNN(preset("egnn-nbody", channels=8, num_layers=2), key=jax.random.key(3)))
    graph = particles(1)
    before = model(to_device(graph, jnp.float64))["displacement"]
    for rotation in (random_rotation(0), -np.eye(3)):
        fields = graph.node_fields | {"velocity": graph.node_fields["velocity"] @ rotation.T}
        turned = graph.replace(positions=graph.positions @ rotation.T + 7.0, node_fields=fields)
        after = model(to_device(turned, jnp.float64))["displacement"]
        np.testing.assert_allclose(after, before @ rotation.T, atol=1e-10)
    still = graph.replace(positions=graph.positions @ random_rotation(0).T)  # the velocity does not turn: another problem
    assert np.abs(model(to_device(still, jnp.float64))["displacement"] - before @ random_rotation(0).T).max() > 1e-3


def test_what_is_missing_or_contradictory_is_told():
    graph = particles().replace(node_fields={"charge": np.ones(5)})
    model = EGNN(preset("egnn-nbody", channels=4, num_layers=1), key=jax.random.key(0))
    with pytest.raises(ValueError, match="needs the node field 'velocity'; the graph has: charge"):
        model(to_device(graph, jnp.float64))
    with pytest.raises(ValueError, match="nothing to predict"):
        EGNNConfig(elements=(1,), readout=None)
    with pytest.raises(ValueError, match="needs vector_readouts"):
        EGNNConfig(elements=(1,), velocity="velocity")
    with pytest.raises(ValueError, match="repeated"):
        EGNNConfig(elements=(1, 1))
