"""Models of vectors per particle, in small, pass the suite for them; those that are not equivariant say so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.models import build_model
from equiform.models.presets import preset
from equiform.tasks.energy import Potential
from equiform.testing.conformance import random_rotation
from equiform.testing.particles import PARTICLE_CHECKS, check_particles, particles, symmetry_of, turned
from tests.models.test_node_fields import TINY

_SE3 = {"l_max": 1, "channels": 4, "division": 2, "num_heads": 2, "num_layers": 1, "radial_width": 6}
_DEMETAR = {"channels": 16, "num_heads": 4}
QUICK = {
    "se3-transformer": ("se3-transformer-nbody", _SE3),
    "linear": ("linear-nbody", {}),
    "linear, with positions": ("linear-nbody", {"form": "vectors"}),
    "linear, full": ("linear-nbody", {"form": "full"}),
    "deep sets": ("deep-sets-nbody", {"num_layers": 2, "channels": 16}),
    "set transformer": ("set-transformer-nbody", {"num_layers": 2, "channels": 16}),
    "transformer, centred": ("transformer-nbody", {"num_layers": 2, "channels": 16, "centred": True}),
}
THOROUGH = {
    "tensor field network": ("tfn-nbody", _SE3),
    "se3-transformer, l = 2": ("se3-transformer-nbody", _SE3 | {"l_max": 2, "num_layers": 2}),
    "equiformer, two vectors": ("equiformer-nbody", TINY | {"vector_readout": ("displacement", "velocity_change")}),
    "egnn": ("egnn-nbody", {"channels": 8, "num_layers": 2}),
    "demetar": ("demetar-nbody", _DEMETAR),
    "demetar, a number per velocity": ("demetar-nbody", _DEMETAR | {"vectors": "velocity", "edges": False}),
    "demetar, as released": ("demetar-published", _DEMETAR | {"dropout": 0.0}),
    "demetar, positions in and out": ("demetar-published", _DEMETAR | {"dropout": 0.0, "vectors": "position"}),
}
_CASES = [pytest.param(case, id=name) for name, case in QUICK.items()]
_CASES += [pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in THOROUGH.items()]


@pytest.fixture(scope="module", params=_CASES)
def potential(request) -> Potential:
    name, changes = request.param
    model = build_model(preset(name, **changes), key=jax.random.key(0))
    # A linear map begins at zero, where every symmetry holds.
    rng = np.random.default_rng(0)
    if model.config.name == "linear":
        model = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)) if eqx.is_array(leaf) else leaf, model)
    return Potential(model, elements=model.config.elements, quantity="displacement", unit="")


@pytest.mark.parametrize("name", PARTICLE_CHECKS)
def test_conforms(potential, name):
    check_particles(name, potential)


def test_baselines_claim_no_rotations_and_are_far_from_them():
    for name in ("deep-sets-nbody", "set-transformer-nbody", "transformer-nbody"):
        model = build_model(preset(name), key=jax.random.key(0))
        assert "rotations" not in symmetry_of(model.config)
    assert symmetry_of(preset("se3-transformer-nbody")) == ("permutations", "translations", "rotations")
    assert "reflections" in symmetry_of(preset("linear-nbody"))


class _Claiming(eqx.Module):
    """Plants a fault: a model under a claim that is not its own."""

    model: eqx.Module
    config: object = eqx.field(static=True)

    def __call__(self, graph, *, key=None):
        return self.model(graph, key=key)


@pytest.mark.parametrize(
    ("name", "symmetry", "message"),
    [
        ("deep-sets-nbody", ("permutations", "rotations"), "rotations are claimed"),
        ("linear-nbody", ("permutations", "translations"), "rotations are not claimed"),
    ],
)
def test_false_claims_are_found(name, symmetry, message):
    class Claim:
        pass

    claim = Claim()
    claim.symmetry = symmetry
    model = build_model(preset(name), key=jax.random.key(0))
    if name == "linear-nbody":
        model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray([[0.7, -0.2]]))
    with pytest.raises(AssertionError, match=message):
        check_particles("symmetry_is_as_declared", Potential(_Claiming(model, claim)))


def test_the_error_of_equivariance_of_a_trained_model_is_that_of_its_definition(tmp_path):
    from equiform.data.sets.config import SetConfig
    from equiform.data.sets.nbody_prepare import prepare_nbody
    from equiform.data.sets.nbody_samples import make_set
    from equiform.report.equivariance import equivariance_errors

    make_set("nbody-demetar", tmp_path, counts={"train": 4, "validation": 4, "test": 6})
    data = prepare_nbody(SetConfig(set="nbody-demetar", folder=str(tmp_path)), 5.0).tests["test"]
    names = ("displacement", "velocity_change")
    potentials = {
        name: Potential(build_model(preset(name), key=jax.random.key(0))) for name in ("deep-sets-nbody", "linear-nbody")
    }
    line = eqx.tree_at(lambda p: p.model.weight, potentials["linear-nbody"], jnp.asarray([[0.7, -0.2]]))
    small = equivariance_errors(line, data, names)
    large = equivariance_errors(potentials["deep-sets-nbody"], data, names)
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
    assert np.abs(model(jax.tree.map(jnp.asarray, turned(graph, random_rotation(1))))["displacement"] - out[:, :3]).max() > 1e-2
