"""Baselines of simulated particles: what they compute, written out, and how far they are from equivariance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.so3.rotations import random_rotation
from equiform.data.pipeline.rotate import rotated
from equiform.models import build_model
from equiform.models.presets import preset
from equiform.tasks.motion import Motion
from tests.models.test_egnn import particles


def test_baselines_claim_no_rotations():
    for name in ("deep-sets-nbody", "set-transformer-nbody", "transformer-nbody"):
        assert "rotations" not in preset(name).traits.symmetries
    assert preset("se3-transformer-nbody").traits.symmetries == ("permutations", "translations", "rotations")
    assert "reflections" in preset("linear-nbody").traits.symmetries


def test_the_error_of_equivariance_of_a_trained_model_is_that_of_its_definition(tmp_path):
    from equiform.data.sets.config import SetConfig
    from equiform.data.sets.nbody_prepare import prepare_nbody
    from equiform.data.sets.nbody_samples import make_set
    from equiform.report.equivariance import equivariance_errors

    make_set("nbody-demetar", tmp_path, counts={"train": 4, "validation": 4, "test": 6})
    data = prepare_nbody(SetConfig(set="nbody-demetar", folder=str(tmp_path)), 5.0).tests["test"]
    names = ("displacement", "velocity_change")
    tasks = {name: Motion(build_model(preset(name), key=jax.random.key(0))) for name in ("deep-sets-nbody", "linear-nbody")}
    line = eqx.tree_at(lambda p: p.model.weight, tasks["linear-nbody"], jnp.asarray([[0.7, -0.2]]))
    small = equivariance_errors(line, data, names)
    large = equivariance_errors(tasks["deep-sets-nbody"], data, names)
    assert set(small) == set(large) == set(names)
    assert max(small.values()) < 1e-6 and min(large.values()) > 0.1


def test_linear_maps_are_what_they_say():
    graph = particles(1)
    v, x, q = graph.node_fields["velocity"], graph.positions, graph.node_fields["charge"]
    rng = np.random.default_rng(0)
    device = jax.tree.map(jnp.asarray, graph)
    for form, columns in (("velocity", [v]), ("vectors", [v, x - x.mean(axis=0)])):
        model = build_model(preset("linear-nbody", form=form), key=jax.random.key(0))
        weight = rng.normal(size=model.weight.shape)
        found = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(weight))(device)
        for index, name in enumerate(model.config.vector_readouts):
            expected = sum(w * column for w, column in zip(weight[:, index], columns))
            np.testing.assert_allclose(found[name], expected, atol=1e-12)
    model = build_model(preset("linear-nbody", form="full"), key=jax.random.key(0))
    weight, bias = rng.normal(size=(7, 6)), rng.normal(size=6)
    found = eqx.tree_at(lambda m: (m.weight, m.bias), model, (jnp.asarray(weight), jnp.asarray(bias)))(device)
    expected = np.concatenate([x, v, q[:, None]], axis=1) @ weight + bias
    np.testing.assert_allclose(np.concatenate([found["displacement"], found["velocity_change"]], axis=1), expected, atol=1e-12)


def test_set_attention_is_softmax_over_the_particles_of_a_graph():
    model = build_model(preset("set-transformer-nbody", num_layers=1, channels=8, num_heads=2), key=jax.random.key(1))
    graph = particles(2)
    fields = graph.node_fields
    tokens = np.concatenate([graph.positions, fields["velocity"], fields["charge"][:, None]], axis=1)

    def dense(layer, value):
        return value @ np.asarray(layer.weight) + np.asarray(layer.bias)

    def norm(value):
        return (value - value.mean(axis=1, keepdims=True)) / np.sqrt(value.var(axis=1, keepdims=True) + 1e-5)

    (block,) = model.blocks
    h = dense(model.embedding, tokens)
    gathered = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q, k, v = (dense(layer, h)[:, part] for layer in (block.query, block.keys, block.values))
        scores = np.exp(q @ k.T / 2)
        gathered.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    h = norm(h + dense(block.mix, np.concatenate(gathered, axis=1)))
    out = dense(model.out, norm(h + np.maximum(dense(block.feed_forward, h), 0)))
    found = eqx.filter_jit(model)(jax.tree.map(jnp.asarray, graph))
    np.testing.assert_allclose(np.concatenate(list(found.values()), axis=1), out, atol=1e-12)
    assert (
        np.abs(model(jax.tree.map(jnp.asarray, rotated(graph, random_rotation(1)[None])))["displacement"] - out[:, :3]).max()
        > 1e-2
    )
