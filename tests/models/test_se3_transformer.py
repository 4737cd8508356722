"""SE(3)-Transformer against its equations written out edge by edge in NumPy, its sizes counted by hand, its symmetry."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.clebsch_gordan import wigner_3j
from equiform.algebra.so3.rotations import random_rotation
from equiform.graph import fully_connected_edges, make_graph, to_device
from equiform.models.presets import preset
from equiform.models.se3_transformer import SE3Transformer, SE3TransformerConfig
from tests.algebra.so3.test_edge_kernel import real_harmonic
from tests.models.test_egnn import count, particles

SMALL = {"l_max": 2, "channels": 4, "division": 2, "num_heads": 2, "num_layers": 1, "radial_width": 6}
OUTPUTS = ("displacement", "velocity_change")


def pair(l, k, c_in, c_out, inputs, width=32):
    """Parameters of the radial network of a pair of degrees."""
    dense = (inputs + 1) * width + (width + 1) * width + (width + 1) * (2 * min(l, k) + 1) * c_in * c_out
    return dense + 2 * 2 * width


def by_hand(c_in, c_out, c_mid, inputs):
    """Parameters of an attention layer's kernels and queries; channels by degree."""
    kernels = sum(pair(l, k, c_in[k], c_mid, inputs) for l in c_out for k in c_in)
    kernels += sum(pair(l, k, c_in[k], c_mid, inputs) for l in c_out if l in c_in for k in c_in)
    return kernels + sum(c_in[l] * c_mid for l in c_out if l in c_in)


def test_the_published_sizes_have_the_parameters_counted_by_hand():
    degrees, first = dict.fromkeys(range(4), 8), {0: 1, 1: 1}
    total = by_hand(first, degrees, 2, 2) + sum((2 + first.get(l, 0)) * 8 for l in degrees) + 32
    total += 3 * (by_hand(degrees, degrees, 2, 2) + 4 * 10 * 8 + 32)
    total += by_hand(degrees, {1: 2}, 2, 2) + 2 * 100 + 101 * 20
    model = SE3Transformer(preset("se3-transformer-nbody"), key=jax.random.key(0))
    assert count(model) == total == 303_352

    def convolution(c_in, c_out):
        kernels = sum(pair(l, k, c_in[k], c_out[l], 2) for l in c_out for k in c_in)
        return kernels + sum(c_in[l] * c_out[l] for l in c_out if l in c_in)

    total = convolution(first, degrees) + 3 * convolution(degrees, degrees) + 4 * 32 + convolution(degrees, {1: 2})
    model = SE3Transformer(preset("tfn-nbody"), key=jax.random.key(0))
    assert count(model) == total == 365_488

    degrees, first = dict.fromkeys(range(4), 32), {0: 6}
    total = by_hand(first, degrees, 16, 1) + sum((16 + first.get(l, 0)) * 32 for l in degrees)
    total += 6 * (by_hand(degrees, degrees, 16, 1) + 4 * 48 * 32) + 7 * 2 * 4 * 32
    total += sum(pair(0, k, 32, 128, 1) for k in degrees) + 32 * 128 + 129 * 128 + 129
    model = SE3Transformer(preset("se3-transformer-qm9"), key=jax.random.key(0))
    assert count(model) == total == 9_802_465


def mixed(layer, blocks):
    return {irrep.l: b @ np.asarray(layer.weights[str(irrep)]) for b, (_, irrep) in zip(blocks, layer.irreps_in)}


def written_kernel(kernel, l_in, l_out, place, unit, inputs):
    """W(r) (out components, in components, in channels, out channels) of one edge, for the given occurrence of l_out."""
    degrees = [irrep.l for _, irrep in kernel.irreps_in]
    targets = [irrep.l for _, irrep in kernel.irreps_out]
    source, target = degrees.index(l_in), targets.index(l_out) + place
    h = inputs
    for layer, weight in enumerate((kernel.first, kernel.second)):
        h = h @ np.asarray(weight)[source, target] + np.asarray(kernel.biases)[layer, source, target]
        h = np.maximum((h - h.mean()) / np.sqrt(h.var() + 1e-5), 0)
    h, number = np.append(h, 1), 0
    for a, k in enumerate(degrees):
        for b, l in enumerate(targets):
            if (a, b) == (source, target):
                total = 0.0
                for step, J in enumerate(range(abs(k - l), k + l + 1)):
                    phi = np.einsum("hio,h->io", np.asarray(kernel.last)[number + step], h)
                    geometry = np.einsum("j,kjl->lk", real_harmonic(J, unit[None])[0], wigner_3j(k, J, l))
                    total = total + geometry[:, :, None, None] * phi[None, None]
                return total
            number += 2 * min(k, l) + 1
    raise AssertionError


def written_block(block, x, graph, charge, heads):
    """Σ_j a_ij v_ij for each node, and x beside it; x by degree (atoms, components, channels)."""
    values = {irrep.l: mul for mul, irrep in block.values}
    keys = [irrep.l for _, irrep in block.keys]
    query = {ir.l: x[ir.l] @ np.asarray(block.query.weights[str(ir)]) for _, ir in block.keys}
    size, atoms = np.sqrt(sum((2 * l + 1) * values[l] for l in keys)), len(graph.positions)
    joined = {l: np.zeros((atoms, 2 * l + 1, mul)) for l, mul in values.items()}
    for i in range(atoms):
        logits, messages = [], []
        for j in [j for j in range(atoms) if j != i]:
            vector = graph.positions[j] - graph.positions[i]
            distance = np.linalg.norm(vector)
            inputs = np.array([distance, charge[i] * charge[j]])
            sent = {l: b[j].copy() for l, b in x.items()}
            if sent[1].shape[1] > 1:
                sent[1][:, 0] -= vector

            def message(l, place, sent=sent, unit=vector / distance, inputs=inputs):
                return sum(
                    np.einsum("lkio,ki->lo", written_kernel(block.kernel, k, l, place, unit, inputs), b)
                    for k, b in sent.items()
                )

            found = {l: message(l, 0) for l in keys}
            products = sum((query[l][i] * found[l]).sum(axis=0).reshape(heads, -1).sum(axis=1) for l in keys)
            logits.append(products / size)
            messages.append({l: message(l, 1 if l in keys else 0) for l in values})
        weights = np.exp(np.array(logits) - np.max(logits, axis=0))
        weights /= weights.sum(axis=0)
        for l, mul in values.items():
            factors = np.repeat(weights, mul // heads, axis=1)
            joined[l][i] = sum(f[None] * message[l] for f, message in zip(factors, messages))
    return {l: np.concatenate([b, x[l]], axis=2) if l in x else b for l, b in joined.items()}


def attentive(layer, block, irrep):
    """The attentive self-interaction of one degree."""
    out = []
    norm, dense = layer.norms[irrep], layer.dense[irrep]
    for f in block:
        products = (f.T @ f).reshape(-1)
        h = (products - products.mean()) / np.sqrt(products.var() + 1e-5) * np.asarray(norm.weight) + np.asarray(norm.bias)
        h = np.where(h > 0, h, 0.01 * h) @ np.asarray(dense.weight) + np.asarray(dense.bias)
        h = h.reshape(-1, f.shape[1])
        weights = np.exp(h - h.max(axis=1, keepdims=True))
        out.append(f @ (weights / weights.sum(axis=1, keepdims=True)).T)
    return np.array(out)


def test_vectors_are_those_of_the_published_equations():
    model = SE3Transformer(preset("se3-transformer-nbody", **SMALL), key=jax.random.key(1))
    graph = particles(3, bodies=4)
    charge, velocity = graph.node_fields["charge"], graph.node_fields["velocity"]
    x = {0: charge[:, None, None], 1: velocity[:, :, None]}
    layer = model.first
    joined = written_block(layer.mix, x, graph, charge, heads=2)
    x = mixed(layer.mix.project, [joined[l] for l in sorted(joined)])
    for l, block in x.items():
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        x[l] = block / norm * np.maximum(norm + np.asarray(layer.nonlinearity.biases[f"{l}e"]), 0)
    joined = written_block(model.vector_layer, x, graph, charge, heads=2)
    expected = attentive(model.vector_layer.project, joined[1], "1e")
    found = eqx.filter_jit(model)(to_device(graph, jnp.float64))
    for index, name in enumerate(OUTPUTS):
        np.testing.assert_allclose(found[name], expected[:, :, index], atol=1e-11)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": False},
        {"nonlinearity": "smooth", "true_parity": True, "embed": True, "num_basis": 8, "cutoff_kind": "smooth", "cutoff": 4.0},
    ],
    ids=["as published", "tensor field network", "ours"],
)
def test_vectors_turn_with_positions_and_velocities(changes):
    model = SE3Transformer(preset("se3-transformer-nbody", **SMALL | {"num_layers": 2}, **changes), key=jax.random.key(2))
    graph, run = particles(1), eqx.filter_jit(SE3Transformer.__call__)
    mirrored = model.config.true_parity
    for dtype, tolerance, shift in ((jnp.float64, 1e-10, 7.0), (jnp.float32, 1e-6, 0.0)):  # a shift rounds float32
        cast = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)
        before = run(cast, to_device(graph, dtype))
        for rotation in (random_rotation(0), -np.eye(3)):
            fields = graph.node_fields | {"velocity": graph.node_fields["velocity"] @ rotation.T}
            turned = graph.replace(positions=graph.positions @ rotation.T + shift, node_fields=fields)
            after = run(cast, to_device(turned, dtype))
            for name in OUTPUTS:
                expected = np.asarray(before[name]) @ rotation.T
                error = np.linalg.norm(np.asarray(after[name]) - expected) / np.linalg.norm(expected)
                if np.linalg.det(rotation) > 0 or mirrored:
                    assert error < tolerance, (name, dtype, error)
                else:  # The published kernels can tell left from right.
                    assert error > 1e-3


def test_attention_sums_to_one_and_chunks_change_nothing():
    model = SE3Transformer(preset("se3-transformer-nbody", **SMALL), key=jax.random.key(3))
    graph = to_device(particles(2), jnp.float64)
    (weights,) = eqx.filter_jit(SE3Transformer.attention)(model, graph)
    assert weights.shape == (20, 2) and (weights > 0).all()
    np.testing.assert_allclose(jax.ops.segment_sum(weights, graph.receivers, 5), 1, atol=1e-12)
    chunked = SE3Transformer(preset("se3-transformer-nbody", **SMALL, edge_chunk=7), key=jax.random.key(3))
    found = eqx.filter_jit(chunked)(graph)
    for name, value in eqx.filter_jit(model)(graph).items():
        np.testing.assert_allclose(found[name], value, atol=1e-12)


@pytest.mark.slow
def test_pooled_readouts_give_each_atom_an_equal_share():
    rng = np.random.default_rng(0)
    graph = make_graph(rng.normal(size=(4, 3)), [6, 1, 8, 1], *fully_connected_edges(4))
    config = {**SMALL, "channels": 8, "cutoff_kind": "sharp", "elements": (1, 6, 8)}

    @eqx.filter_jit
    def both(model, graph):
        edges, frames = model.edges(graph)
        x, _ = model._features(graph, edges, frames)
        return model(graph)["energy"], model.scalar_layer(x, edges, frames)[0].scalars

    for readout, pool in (("max", np.max), ("mean", np.mean)):
        model = SE3Transformer(SE3TransformerConfig(**config, readout=readout), key=jax.random.key(4))
        energy, scalars = both(model, to_device(graph, jnp.float64))
        pooled = pool(np.asarray(scalars), axis=0)
        np.testing.assert_allclose(energy, model.network(jnp.asarray(pooled), jax.nn.silu), atol=1e-12)


def test_what_is_missing_or_contradictory_is_told():
    model = SE3Transformer(preset("se3-transformer-nbody", **SMALL), key=jax.random.key(0))
    bare = particles().replace(node_fields={"charge": np.ones(5)})
    with pytest.raises(ValueError, match="needs the node fields velocity; the graph has: charge"):
        model(to_device(bare, jnp.float64))
    for changes, message in (
        ({"readout": None}, "nothing to predict"),
        ({"vector_readouts": ("v",), "l_max": 0}, "l_max of at least 1"),
        ({"channels": 6}, "multiple of division"),
        ({"elements": (1, 1)}, "repeated"),
    ):
        with pytest.raises(ValueError, match=message):
            SE3TransformerConfig(**{"elements": (1,), **changes})
