"""GATr equals the authors' code: every stored case to 1e-12 in float64, and the parameter counts."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gatr_parity import (
    MASKS,
    SMALL,
    artery_outputs,
    formula_weights,
    load,
    mask_errors,
    nbody_outputs,
    probe,
    relative,
    small_errors,
    stored_model,
)
from equiform.algebra.clifford import projective
from equiform.models.gatr import GATr, GATrConfig, Setting, join_weight
from equiform.nn.dense_attention import DEFAULT
from equiform.nn.multivector import multivector_norm, scalar_norm
from equiform.persist.official.gatr import official_gatr_state


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"in_scalars": 1, "out_scalars": 1}, 2_209_058),
        (
            {
                "in_channels": 3,
                "channels": 8,
                "in_scalars": 1,
                "out_scalars": 1,
                "scalars": 32,
                "num_heads": 4,
                "reinserted_channels": (0,),
            },
            246_418,
        ),
        ({"channels": 8, "in_scalars": 1, "out_scalars": 1, "scalars": 32, "num_blocks": 4}, 93_338),
    ],
    ids=["nbody", "arteries", "reduced"],
)
def test_parameter_counts_are_the_published_ones(sizes, count):
    model = eqx.filter_eval_shape(lambda: GATr(GATrConfig(**sizes), key=jax.random.key(0)))
    assert sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(model)) == count


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "scalar_small" else pytest.mark.slow) for case in SMALL]
)
def test_small_cases(parity_folder, case):
    for errors in small_errors(parity_folder / "gatr" / case):
        assert {name: error for name, error in errors.items() if not error <= SMALL[case]} == {}


@pytest.mark.parametrize("mask", [pytest.param(m, marks=() if m == "float_4d" else pytest.mark.slow) for m in MASKS])
def test_masks(parity_folder, mask):
    errors = mask_errors(parity_folder / "gatr" / "multihead_mask", mask)
    assert max(errors.values()) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("case", ["noscalar_small", "scalar_small", "multihead_mask"])
def test_layers_of_the_first_block(parity_folder, case):
    folder = parity_folder / "gatr" / case
    model, inputs, stored = stored_model(folder), load(folder, "inputs"), load(folder, "outputs_none")
    x = jnp.asarray(inputs["mv"])
    s = jnp.asarray(inputs.get("s", np.zeros((*x.shape[:-2], 0))))
    config = model.config
    again = [x[..., i : i + 1, :] for i in config.reinserted_channels]
    again_s = [s[..., i : i + 1] for i in config.reinserted_scalars]
    setting = Setting(
        join_weight(config, x),
        None,
        None,
        jnp.concatenate([x[..., :0, :], *again], -2),
        jnp.concatenate([s[..., :0], *again_s], -1),
        DEFAULT,
    )
    block = jax.tree.map(lambda leaf: leaf[0], model.blocks)
    algebra = config.geometry.algebra

    @eqx.filter_jit
    def run(model, block, x, s):
        x, s = model.linear_in(x, s)
        found = {"linear_in.mv": x, "linear_in.s": s}
        n, t = multivector_norm(algebra, x), scalar_norm(s)
        found |= {"blocks.0.norm#0.mv": n, "blocks.0.norm#0.s": t}
        for name, (mv, scalars) in zip("qkv", block.attention.queries_keys_values(n, t, setting)):
            found[f"blocks.0.attention.qkv_module.{name}_mv"] = jnp.swapaxes(mv, -4, -3)
            found[f"blocks.0.attention.qkv_module.{name}_s"] = jnp.swapaxes(scalars, -3, -2)
        y, u = block.attention(n, t, setting)
        found |= {"blocks.0.attention.out_linear.mv": y, "blocks.0.attention.out_linear.s": u}
        x, s = x + y, s + u
        n, t = multivector_norm(algebra, x), scalar_norm(s)
        found |= {"blocks.0.norm#1.mv": n, "blocks.0.norm#1.s": t}
        y, u = block.products(n, t, setting)
        return found | {"blocks.0.mlp.layers.2.mv": y, "blocks.0.mlp.layers.2.s": u}

    errors = {name: relative(ours, stored[name]) for name, ours in run(model, block, x, s).items()}
    assert {name: error for name, error in errors.items() if not error <= 1e-12} == {}


def _published(folder, model, forward, wanted, limit=1e-12):
    """Outputs and gradients of a full-size case; `forward` gives the loss and everything named."""
    stored = load(folder, "outputs_f64")
    (value, found), of_model = eqx.filter_jit(jax.value_and_grad(forward, has_aux=True))(model)
    found["loss"] = value
    errors = {name: relative(ours, stored[name]) for name, ours in found.items() if name in wanted}
    assert errors.keys() == set(wanted)
    assert {name: error for name, error in errors.items() if not error <= limit} == {}
    grads = official_gatr_state(of_model)
    largest = max(float(value) for name, value in stored.items() if name.startswith("gnorm."))
    for name in formula_weights(folder):
        if f"gnorm.{name}" in stored:
            norm = float(stored[f"gnorm.{name}"])
            # Biases of keys shift all logits of a row alike: their gradients are rounding errors.
            limit = 1e-9 * norm + 1e-15 * largest
            assert abs(np.linalg.norm(grads[name]) - norm) <= limit, name
            assert abs(probe(name, grads[name]) - stored[f"gprobe.{name}"]) <= limit * np.sqrt(grads[name].size), name
        if f"grad.{name}" in stored:
            assert relative(grads[name], stored[f"grad.{name}"]) < 1e-9, name


@pytest.mark.slow
def test_published_nbody(parity_folder):
    folder = parity_folder / "gatr" / "nbody_published"
    model, inputs = stored_model(folder), load(folder, "inputs")
    assert sum(x.size for x in official_gatr_state(model).values()) == json.loads((folder / "meta.json").read_text())["params"]
    x, y = jnp.asarray(inputs["x"]), jnp.asarray(inputs["y"])

    def forward(model, x=x):
        return nbody_outputs(model, x, y)

    _published(folder, model, forward, ("pred", "mse", "loss"))
    of_x = eqx.filter_jit(jax.grad(lambda x: forward(model, x)[0]))(x)
    assert relative(of_x, load(folder, "outputs_f64")["grad_x"]) < 1e-9


def extracted(outputs):
    """Wall shear stress, in units of 53.836, of the network's outputs."""
    return projective.extract_plane(outputs[0][..., 0, :])[0]


@pytest.mark.slow
def test_published_arteries(parity_folder):
    folder = parity_folder / "gatr" / "arteries_published"
    model, inputs, stored = stored_model(folder), load(folder, "inputs"), load(folder, "outputs_f64")
    x, s, mask = (jnp.asarray(inputs[name]) for name in ("mv", "s", "mask"))
    segments = jnp.asarray(inputs["batch"].astype(np.int32))[None]
    position, normal = jnp.asarray(inputs["pos"]), jnp.asarray(inputs["normal"])
    np.testing.assert_allclose(projective.point(position), inputs["mv"][0, :, 0], atol=1e-14)
    np.testing.assert_allclose(projective.plane_through(normal, position), inputs["mv"][0, :, 1], atol=1e-13)

    blocks = [f"blocks.{i}.{name}" for i in range(10) for name in ("mv", "s")]
    _published(folder, model, lambda model: artery_outputs(model, folder), ("wss", "out_mv", "out_s", "loss", *blocks))
    plane = eqx.filter_jit(jax.grad(lambda x: (extracted(model(x, s, mask=mask)) * stored["loss_weight"]).sum()))
    assert relative(plane(x), stored["grad_mv"]) < 1e-9
    out, _ = eqx.filter_jit(model)(x, s, segments=segments)
    assert relative(out, stored["out_mv"]) < 1e-12
