"""The Equivariant Transformer against stored outputs of the pip package torchmd-net, its sizes, its cutoff."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.graph import batch, make_graph, to_device
from equiform.models.presets import preset
from equiform.models.torchmd_et import TorchMDET, TorchMDETConfig
from equiform.neighbors import neighbor_list
from equiform.runtime import policy
from equiform.tasks.energy import Potential
from equiform.tasks.property import Property
from equiform.testing import check

PACKAGE = dict(np.load(Path(__file__).parents[1] / "references" / "torchmd_et.npz"))
SIZES = {"elements": tuple(range(10)), "cutoff": 3.5, "num_layers": 2, "channels": 16, "num_heads": 4, "num_basis": 8}
READOUTS = {"scalar": "scalar", "dipole": "dipole", "spatial_extent": "spatial_extent", "vector": "scalar"}


def weights(dense, name):
    """Weights of a torch linear layer in ours, transposed."""
    dense = eqx.tree_at(lambda d: d.weight, dense, jnp.asarray(PACKAGE[f"{name}.weight"].T, float))
    return dense if dense.bias is None else eqx.tree_at(lambda d: d.bias, dense, jnp.asarray(PACKAGE[f"{name}.bias"], float))


def layer_norm(norm, name):
    values = [jnp.asarray(PACKAGE[f"{name}.{part}"], float) for part in ("weight", "bias")]
    return eqx.tree_at(lambda n: [n.weight, n.bias], norm, values)


def from_package(model, kind):
    """The model with the package's weights for one of its readouts."""
    net = "weight.net"
    table = jnp.asarray(PACKAGE[f"{net}.embedding.weight"], float)
    around = model.neighbor_embedding
    around = eqx.tree_at(
        lambda e: e.embedding, around, jnp.asarray(PACKAGE[f"{net}.neighbor_embedding.embedding.weight"], float)
    )
    around = eqx.tree_at(lambda e: e.filter, around, weights(around.filter, f"{net}.neighbor_embedding.distance_proj"))
    around = eqx.tree_at(lambda e: e.combine, around, weights(around.combine, f"{net}.neighbor_embedding.combine"))
    names = {"query": "q_proj", "keys": "k_proj", "values": "v_proj", "out": "o_proj", "vectors": "vec_proj"}
    names |= {"key_filter": "dk_proj", "value_filter": "dv_proj"}
    layers = []
    for number in range(2):
        layer, name = jax.tree.map(lambda leaf, n=number: leaf[n], model.layers), f"{net}.attention_layers.{number}"
        layer = eqx.tree_at(lambda a: a.norm, layer, layer_norm(layer.norm, f"{name}.layernorm"))
        for ours, theirs in names.items():
            made = weights(getattr(layer, ours), f"{name}.{theirs}")
            layer = eqx.tree_at(lambda a, ours=ours: getattr(a, ours), layer, made)
        layers.append(layer)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    norm = layer_norm(model.norm, f"{net}.out_norm")
    model = eqx.tree_at(lambda m: [m.embedding, m.neighbor_embedding, m.layers, m.norm], model, [table, around, stacked, norm])
    head = f"weight.{kind}.output_network"
    if kind == "spatial_extent":
        parts = [weights(model.extent.first, f"{head}.layers.0"), weights(model.extent.second, f"{head}.layers.2")]
        return eqx.tree_at(lambda m: [m.extent.first, m.extent.second], model, parts)
    blocks = []
    for number, block in enumerate(model.blocks):
        name = f"{head}.{number}"
        parts = [
            weights(block.first, f"{name}.vec1_proj"),
            weights(block.second, f"{name}.vec2_proj"),
            weights(block.mix.first, f"{name}.update_net.layers.0"),
            weights(block.mix.second, f"{name}.update_net.layers.2"),
        ]
        blocks.append(eqx.tree_at(lambda b: [b.first, b.second, b.mix.first, b.mix.second], block, parts))
    return eqx.tree_at(lambda m: m.blocks, model, blocks)


def graph(copies=1):
    graphs = []
    for number in range(2):
        rows = PACKAGE["batch"] == number
        positions = PACKAGE["positions"][rows]
        senders, receivers, _ = neighbor_list(positions, np.zeros((3, 3)), np.zeros(3, bool), SIZES["cutoff"])
        graphs.append(make_graph(positions, PACKAGE["species"][rows], senders, receivers))
    return to_device(batch(graphs * copies), jnp.float64)


@pytest.mark.parametrize("kind", READOUTS)
@pytest.mark.parametrize("mark", ["paper", "cut"])
def test_outputs_and_gradients_are_those_of_the_package(kind, mark):
    extra = {"vector_readouts": ("vector",)} if kind == "vector" else {}
    config = TorchMDETConfig(**SIZES, vector_cutoff=mark == "cut", vector_norm="plain", readout=READOUTS[kind], **extra)
    model, at = from_package(TorchMDET(config, key=jax.random.key(0)), kind), graph()
    if kind == "vector":
        x, v = eqx.filter_jit(model.features)(at)
        np.testing.assert_allclose(x, PACKAGE[f"out.{mark}.features"], atol=1e-9)
        np.testing.assert_allclose(v, PACKAGE[f"out.{mark}.vectors"], atol=1e-9)
        np.testing.assert_allclose(eqx.filter_jit(model)(at)["vector"], PACKAGE[f"out.{mark}.vector"], atol=1e-9)
        return

    def total(positions):
        readout = config.traits.outputs[0]
        values = model(at.replace(positions=positions))[readout.name]
        values = at.sum_over_atoms(values) if readout.axis == "atoms" else values
        return values.sum(), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(at.positions)
    assert np.abs(PACKAGE[f"out.{mark}.{kind}"]).min() > 1e-3
    np.testing.assert_allclose(values, PACKAGE[f"out.{mark}.{kind}"], rtol=1e-9)
    np.testing.assert_allclose(gradient, PACKAGE[f"out.{mark}.{kind}.gradient"], atol=1e-9)


@pytest.mark.slow
def test_edges_in_chunks_change_nothing(monkeypatch):
    """Energies, and the parameter gradient of a loss on energies and forces, as the training step takes it."""
    at = graph(copies=3)
    config = TorchMDETConfig(**SIZES)
    arrays, static = eqx.partition(Potential(TorchMDET(config, key=jax.random.key(0))), eqx.is_inexact_array)

    def loss(arrays):
        result = eqx.combine(arrays, static).for_training(at, ("energy", "forces"))
        return (result["energy"] ** 2).sum() + (result["forces"] ** 2).sum(), result["energy"]

    found = []
    for size in (10**9, 1):
        monkeypatch.setattr(policy, "current_policy", lambda size=size: policy.ExecutionPolicy(size, fewest_edges=64))
        found.append(jax.jit(jax.grad(lambda arrays: loss(arrays), has_aux=True))(arrays))
        chunks = static.model.edges(at).geometry.chunk
        assert chunks is None if size > 1 else chunks <= 64 < at.senders.shape[0]
    for one, other in zip(*(jax.tree.leaves(both) for both in found), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-11 * float(jnp.abs(one).max()))


@pytest.mark.parametrize(("name", "millions"), [("et-qm9", 6.865), ("et-md17", 1.340), ("et-ani1", 1.340)])
def test_published_sizes(name, millions):
    model = eqx.filter_eval_shape(lambda: TorchMDET(preset(f"torchmd-{name}"), key=jax.random.key(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(model) if hasattr(leaf, "size"))
    assert abs(count / 1e6 - millions) < 0.0006


def test_without_the_vector_cutoff_the_energy_jumps():
    """The published function; with `vector_cutoff` the conformance suite finds no jump."""
    for cut in (False, True):
        config = TorchMDETConfig(**SIZES | {"elements": (1, 6)}, vector_cutoff=cut)
        model = TorchMDET(config, key=jax.random.key(1))
        # The biases of the filters are zero at first, and then nothing jumps.
        model = eqx.tree_at(lambda m: m.layers.value_filter.bias, model, replace_fn=lambda b: b + 0.5)
        energies = []
        for distance in (3.5 - 1e-9, 3.5 + 1e-9):
            # A third atom gives the vectors something to turn.
            positions = np.array([[0.0, 0, 0], [distance, 0, 0], [0, 1.3, 0]])
            at = to_device(make_graph(positions, [1, 6, 1], [0, 1, 0, 2], [1, 0, 2, 0]), jnp.float64)
            energies.append(float(eqx.filter_jit(model)(at)["energy"].sum()))
        assert (abs(energies[0] - energies[1]) < 1e-9) == cut


@pytest.mark.parametrize("readout", ["dipole", "spatial_extent"])
def test_readouts_that_are_no_energies_are_sound_functions_of_the_structure(readout):
    """They have a centre and no cutoff, and a length has a kink: the other checks ask for what they cannot give."""
    model = TorchMDET(TorchMDETConfig(**SIZES | {"elements": (1, 6, 8)}, readout=readout), key=jax.random.key(2))
    task = Property(model, name=readout)
    names = ["symmetries_are_as_declared", "permutations_are_as_declared", "outputs_are_as_declared"]
    for name in [*names, "batches_are_independent", "padding_changes_nothing", "coinciding_nodes_are_finite"]:
        check(name, task)


def test_a_configuration_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"channels \(10\) must be divisible by num_heads \(4\)"):
        TorchMDETConfig(elements=(1,), channels=10, num_heads=4)
    with pytest.raises(ValueError, match="repeated"):
        TorchMDETConfig(elements=(1, 1))
