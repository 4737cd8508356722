"""GATr beside parity: presets and costs, dropout, given references, execution, baselines at their published sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.errors import UserError
from equiform.models.gatr import GATr, GATrConfig, join_weight
from equiform.models.gatr_axial import AxialGATrConfig
from equiform.models.gatr_presets import PRESETS, gatr_preset, nominal_flops
from equiform.models.token_baselines import TokenMLP, TokenMLPConfig, TokenTransformer, TokenTransformerConfig
from equiform.nn.dense_attention import Execution

TINY = {"in_scalars": 1, "channels": 2, "scalars": 4, "num_blocks": 2, "num_heads": 2}


def shapes(build):
    return eqx.filter_eval_shape(build)


def count(model):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model))


@pytest.mark.parametrize(
    ("name", "flops"), [("gatr-nbody", 68_250_816), ("gatr-arteries", 16_029_600), ("gatr-nbody-small", 6_077_280)]
)
def test_nominal_operations_are_the_published_ones(name, flops):
    assert nominal_flops(shapes(lambda: GATr(gatr_preset(name), key=jax.random.key(0)))) == flops


@pytest.mark.slow
def test_relatives_match_in_operations_or_in_parameters():
    for name in PRESETS:
        if name[1] == "-":
            model = shapes(lambda name=name: GATr(gatr_preset(name), key=jax.random.key(0)))
            ratio = count(model) / 2_209_058 if name.endswith("parameters") else nominal_flops(model) / 68_250_816
            assert abs(ratio - 1) < 0.05, name


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="no GATr preset 'gatr-nobody'; there are gatr-nbody"):
        gatr_preset("gatr-nobody")


@pytest.mark.parametrize(
    ("config", "parameters"),
    [({}, 11_827_587), ({"channels": 160, "num_heads": 4, "multi_query": True}, 1_674_563)],
    ids=["nbody", "arteries"],
)
def test_transformer_has_its_published_sizes(config, parameters):
    assert count(shapes(lambda: TokenTransformer(TokenTransformerConfig(**config), key=jax.random.key(0)))) == parameters


def test_perceptron_has_its_published_size():
    assert count(shapes(lambda: TokenMLP(TokenMLPConfig(), key=jax.random.key(0)))) == 163_596


@pytest.mark.parametrize("multi_query", [False, True])
def test_transformer_is_the_formula(multi_query):
    config = TokenTransformerConfig(
        in_channels=3, out_channels=2, channels=8, num_blocks=1, num_heads=2, multi_query=multi_query
    )
    model = TokenTransformer(config, key=jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)))
    block = jax.tree.map(lambda leaf: np.asarray(leaf[0]), model.blocks)

    def norm(y):
        return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)

    y = np.asarray(model.linear_in(x))
    q, k, v = np.split(norm(y) @ block.inputs.weight + block.inputs.bias, [8, 12 if multi_query else 16], axis=-1)
    heads = []
    for h in range(2):  # the head is the fastest index
        one = (q[..., h::2], k, v) if multi_query else (q[..., h::2], k[..., h::2], v[..., h::2])
        logits = one[0] @ one[1].swapaxes(1, 2) / 2
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        heads.append(weights @ one[2])
    y = y + np.concatenate(heads, -1) @ block.out.weight + block.out.bias
    hidden = np.asarray(
        jax.nn.gelu(norm(y) @ block.feed_forward.first.weight + block.feed_forward.first.bias, approximate=False)
    )
    y = y + hidden @ block.feed_forward.second.weight + block.feed_forward.second.bias
    expected = y @ np.asarray(model.linear_out.weight) + np.asarray(model.linear_out.bias)
    np.testing.assert_allclose(model(x), expected, atol=1e-12)


def test_join_reference_is_the_mean_over_tokens_and_channels_or_given():
    config = GATrConfig(**TINY)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 2, 16)))
    np.testing.assert_allclose(join_weight(config, x)[:, 0, 0, 0], x[..., 14].mean((1, 2)), atol=1e-15)
    assert join_weight(GATrConfig(**TINY, join_reference="canonical"), x).shape == (1, 1, 1, 1)
    np.testing.assert_array_equal(join_weight(config, x, x[0, 0, 0]).ravel(), x[0, 0, 0, 14])
    assert join_weight(GATrConfig(**TINY, algebra="projective"), x) is None


@pytest.mark.slow
def test_dropout_acts_only_with_a_key():
    model = GATr(GATrConfig(**TINY, dropout=0.5), key=jax.random.key(0))
    x, s = jnp.ones((1, 3, 1, 16)), jnp.ones((1, 3, 1))
    run = eqx.filter_jit(lambda m, key: m(x, s, key=key)[0])
    plain = run(model, None)
    assert not np.allclose(run(model, jax.random.key(1)), run(model, jax.random.key(2)))
    np.testing.assert_array_equal(plain, run(model, None))


@pytest.mark.slow
def test_rematerialised_blocks_and_pieces_of_attention_change_nothing():
    model = GATr(GATrConfig(**TINY), key=jax.random.key(0))
    x, s = (jnp.asarray(np.random.default_rng(0).normal(size=shape)) for shape in ((2, 6, 1, 16), (2, 6, 1)))

    def loss(model, execution):
        return (model(x, s, execution=execution)[0] ** 2).sum()

    frugal = Execution(max_logits=2 * 2 * 6 * 2, rematerialise=True)
    run = eqx.filter_jit(jax.grad(loss))
    for a, b in zip(jax.tree.leaves(run(model, Execution())), jax.tree.leaves(run(model, frugal))):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_axial_says_rotary_by_axis():
    with pytest.raises(ValueError, match="leave both out of `layers`"):
        AxialGATrConfig(layers=GATrConfig(rotary=True))
