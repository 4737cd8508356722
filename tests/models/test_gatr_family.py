"""The four algebras: the stored two-block networks, exact symmetry, and what a plain projective network cannot see."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gatr_parity import load, relative
from equiform.algebra.clifford import conformal, projective
from equiform.algebra.clifford.products import linear
from equiform.errors import UserError
from equiform.models.gatr import GATr, GATrConfig
from tests.algebra.clifford.cases import random_motion

LETTERS = {"E": "euclidean", "P": "projective", "iP": "improved-projective", "C": "conformal"}
PARTS = {"q": "attention.inputs.0", "k": "attention.inputs.1", "v": "attention.inputs.2", "o": "attention.out"}
PARTS |= {name: f"products.factors.{i}" for i, name in enumerate(("left", "right", "jleft", "jright"))}
PARTS |= {"m1": "products.mix", "m2": "products.out"}
LEAVES = {
    "weight": ("weight", False),
    "s2mvs.weight": ("from_scalars.weight", True),
    "s2mvs.bias": ("from_scalars.bias", False),
    "mvs2s.weight": ("to_scalars.weight", True),
    "mvs2s.bias": ("to_scalars.bias", False),
    "s2s.weight": ("scalars", True),
}


def letters(*quick: str):
    """All four, of which these run with the quick tests."""
    return pytest.mark.parametrize("letter", [pytest.param(x, marks=() if x in quick else pytest.mark.slow) for x in LETTERS])


def model_of(letter: str, **changes) -> GATr:
    config = {"in_channels": 2, "out_channels": 2, "channels": 4, "in_scalars": 1, "out_scalars": 2, "scalars": 6}
    config |= {"num_blocks": 2, "num_heads": 2} | changes
    return GATr(GATrConfig(algebra=LETTERS[letter], **config), key=jax.random.key(3))


def replaced(tree, path: str, value):
    def where(node):
        for part in path.split("."):
            node = node[int(part)] if part.isdigit() else getattr(node, part)
        return node

    assert where(tree).shape == value.shape, path
    return eqx.tree_at(where, tree, jnp.asarray(value))


def stored_network(stored: dict[str, np.ndarray], letter: str) -> GATr:
    model = model_of(letter)
    for layer in ("linear_in", "linear_out"):
        for name, (leaf, turned) in LEAVES.items():
            value = stored[f"w.{layer}.{name}"]
            model = replaced(model, f"{layer}.{leaf}", value.T if turned else value)
    for part, path in PARTS.items():
        for name, (leaf, turned) in LEAVES.items():
            if f"w.blocks.0.{part}.{name}" in stored:
                value = np.stack([stored[f"w.blocks.{i}.{part}.{name}"] for i in range(2)])
                model = replaced(model, f"blocks.{path}.{leaf}", value.swapaxes(1, 2) if turned else value)
    if "w.blocks.0.log_weights" in stored:
        value = np.stack([stored[f"w.blocks.{i}.log_weights"][:, 0] for i in range(2)])
        model = replaced(model, "blocks.attention.log_weights", value)
    return model


@letters("C")
def test_stored_networks(parity_folder, letter):
    stored = load(parity_folder / "gatr" / "algebras", f"blueprint_{letter}")
    into, back = (conformal.from_orthogonal, conformal.to_orthogonal) if letter == "C" else (lambda x: x, lambda x: x)

    @eqx.filter_jit
    def run(model, x, s):
        x, s = model.hidden_states(into(x), s)
        return (back(x), s), tuple(f(y) for f, y in zip((back, lambda y: y), model.linear_out(x[-1], s[-1])))

    (x, s), (y, t) = run(stored_network(stored, letter), jnp.asarray(stored["in.mv"]), jnp.asarray(stored["in.s"]))
    found = {"out.mv": y, "out.s": t}
    for i in range(2):
        found |= {f"blocks.{i}.mv": x[i], f"blocks.{i}.s": s[i]}
    errors = {name: relative(ours, stored[name]) for name, ours in found.items()}
    assert {name: error for name, error in errors.items() if not error <= 1e-12} == {}


@letters("iP")
def test_networks_are_equivariant_and_scalars_invariant(letter):
    model, rng = model_of(letter), np.random.default_rng(0)
    size = model.config.geometry.algebra.num_components
    x, s = jnp.asarray(rng.normal(size=(2, 5, 2, size))), jnp.asarray(rng.normal(size=(2, 5, 1)))
    run = eqx.filter_jit(model)
    y, t = run(x, s)
    for odd in (False, True):
        motion = random_motion(letter.removeprefix("i"), odd=odd)
        moved, same = run(linear(motion.action, x), s)
        scale = float(jnp.abs(y).max())
        np.testing.assert_allclose(moved, linear(motion.action, y), rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(same, t, rtol=0, atol=1e-10)
    order = np.array([3, 1, 4, 0, 2])
    moved, same = run(x[:, order], s[:, order])
    np.testing.assert_allclose(moved, y[:, order], rtol=0, atol=1e-10)
    np.testing.assert_allclose(same, t[:, order], rtol=0, atol=1e-10)
    scaled, _ = run(1.5 * x, s)
    assert float(jnp.abs(scaled - 1.5 * y).max()) > 1e-3  # dilations are no symmetry


@pytest.mark.slow
@pytest.mark.parametrize("letter", ["P", "iP", "C"])
def test_only_the_plain_projective_network_cannot_see_a_point_move(letter):
    # Weights larger than the initial ones, so that products matter.
    model = jax.tree.map(lambda leaf: 2 * leaf, model_of(letter, in_channels=1, in_scalars=0))
    point = (conformal if letter == "C" else projective).point
    positions = np.random.default_rng(0).normal(size=(5, 3))
    run = eqx.filter_jit(lambda p: model(point(p)[:, None, :])[1])
    before = run(jnp.asarray(positions))
    positions[2] += 0.5
    change = float(jnp.abs(run(jnp.asarray(positions)) - before).max())
    assert change == 0 if letter == "P" else change > 1e-7


@pytest.mark.slow
def test_points_in_and_out_are_equivariant_under_motions_and_not_under_mirrors():
    model = model_of("iP", in_channels=1, in_scalars=0)
    positions = np.random.default_rng(0).normal(size=(5, 3))

    @eqx.filter_jit
    def run(model, p):
        return projective.extract_point(model(projective.point(p)[:, None])[0][:, 0])

    # Weights larger than the initial ones, so that products matter.
    model = jax.tree.map(lambda leaf: 2 * leaf, model)
    before = np.asarray(run(model, jnp.asarray(positions)))
    motor, mirror = random_motion("P", odd=False), random_motion("P", odd=True)
    np.testing.assert_allclose(run(model, motor.point(positions)), motor.point(before), rtol=0, atol=1e-12)
    assert np.abs(run(model, mirror.point(positions)) - mirror.point(before)).max() > 1e-10  # rounding is 1e-15


def test_wrong_inputs_are_refused_in_one_line():
    model = model_of("P")
    with pytest.raises(UserError, match=r"shape \(5, 2, 8\); a projective model with 2 input channels takes .* 2, 16\)"):
        model(jnp.zeros((5, 2, 8)), jnp.zeros((5, 1)))
    with pytest.raises(UserError, match="0 scalars of each token; the model was built with in_scalars = 1"):
        model(jnp.zeros((5, 2, 16)))
    with pytest.raises(UserError, match=r"the multivectors of 1 tokens are not finite, the first at \[3\]"):
        model(jnp.zeros((5, 2, 16)).at[3, 0, 1].set(jnp.nan), jnp.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"reinserted_channels \[1\] must be places among the 1"):
        GATrConfig(reinserted_channels=(1,))
