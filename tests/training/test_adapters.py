"""Low-rank adapters: the start is the old model, the change is of low rank within each irrep, and merging loses nothing."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irreps
from equiform.errors import UserError
from equiform.models import build_model, parse_config
from equiform.nn.linear import Linear
from equiform.persist.parameters import named, split
from equiform.persist.transfer import element_tables
from equiform.tasks.energy import Potential
from equiform.training.adapters import Adaptation, LowRank
from equiform.training.config import TrainingConfig
from equiform.training.step import TrainingStep

EQUIFORMER = {"name": "equiformer", "elements": (1, 8), "num_layers": 2, "irreps": "8x0e+8x1e", "irreps_sh": "1x0e+1x1e"}
EQUIFORMER |= {"irreps_head": "4x0e+4x1e", "irreps_mlp": "8x0e+8x1e", "irreps_feature": "8x0e", "num_heads": 2}
EQUIFORMER |= {"num_basis": 8, "radial_widths": (8,)}
TORCHMD = {"name": "torchmd-et", "elements": (8, 1), "num_layers": 2, "channels": 8, "num_heads": 2, "num_basis": 4}
GATR = {"name": "gatr", "elements": (1, 8), "cutoff": 4.0, "num_blocks": 2, "channels": 8, "scalars": 16, "num_heads": 2}
MODELS = {fields["name"]: fields for fields in (EQUIFORMER, TORCHMD, GATR)}
NAMES = [pytest.param("equiformer", marks=pytest.mark.slow), "torchmd-et", "gatr"]  # Equiformer takes seconds to build.
RANK = 1


@cache
def potential(name):
    return Potential(build_model(parse_config(MODELS[name]), key=jax.random.key(0)))


@cache
def adapted(name):
    task = potential(name)
    params, _ = split(task)
    return Adaptation(task, params, RANK), params


@cache
def merged(name, noise):
    """The parameters before, and after a random change of everything that is trained."""
    rng, (adaptation, params) = np.random.default_rng(0), adapted(name)
    trained = adaptation.initial(params, 0)
    trained = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + noise * rng.normal(size=leaf.shape)), trained)
    ends = jax.jit(adaptation.merged)(trained, adaptation.frozen(params))
    return jax.device_get((params, ends))


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_bitwise_the_old_model(name):
    old, new = merged(name, 0.0)
    assert jax.tree.structure(old) == jax.tree.structure(new)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new)))


@pytest.mark.parametrize("model", NAMES)
def test_matrices_change_by_the_rank_and_biases_not_at_all(model):
    old, new = map(named, merged(model, 1.0))
    ranks = set()
    for name in old:
        change = new[name] - old[name]
        if "bias" in name.rpartition(".")[2] and not name.startswith(
            ("model.energy", "model.norm", "model.blocks.0", "model.blocks.1")
        ):
            assert not change.any(), name
        if name.endswith(("query.weight", "target.weights.1e", "target.weights.0e", "mix.scalars")):
            ranks |= {int(np.linalg.matrix_rank(matrix, tol=1e-9)) for matrix in change}
        if name == "model.blocks.products.mix.weight":  # blocks, out, in, maps: one change for each block and map
            ranks |= {int(rank) for rank in np.linalg.matrix_rank(np.moveaxis(change, -1, 1), tol=1e-9).ravel()}
    assert ranks == {RANK}


@pytest.mark.parametrize(
    ("model", "whole"),
    [
        pytest.param(
            "equiformer",
            ("species_embedding.weights.0e", "energy_hidden.bias", "energy_out.weights.0e"),
            marks=pytest.mark.slow,
        ),
        ("torchmd-et", ("embedding", "neighbor_embedding.embedding", "norm.bias")),
        ("gatr", ("species",)),
    ],
)
def test_readout_and_tables_of_elements_are_trained_whole(model, whole):
    old, new = map(named, merged(model, 1.0))
    assert all((old[f"model.{name}"] != new[f"model.{name}"]).all() for name in whole)


def test_tables_of_elements_are_those_with_a_row_for_each():
    assert element_tables(potential("torchmd-et").model) == ["embedding", "neighbor_embedding.embedding"]


def test_a_merged_map_is_the_map_and_its_adapter():
    rng, irreps = np.random.default_rng(1), Irreps.parse("6x0e+5x1e")
    layer = Linear(irreps, Irreps.parse("4x0e+7x1e"), key=jax.random.key(0))
    x = Features([jnp.asarray(rng.normal(size=(3, 1, 6))), jnp.asarray(rng.normal(size=(3, 3, 5)))], irreps)
    pairs = {
        irrep: LowRank(jnp.asarray(rng.normal(size=(rows, 2))), jnp.asarray(rng.normal(size=(2, columns))))
        for irrep, rows, columns in (("0e", 6, 4), ("1e", 5, 7))
    }
    weights = {irrep: layer.weights[irrep] + pair.change() for irrep, pair in pairs.items()}
    whole = eqx.tree_at(lambda module: module.weights, layer, weights)
    for pair, alone, both, given in zip(pairs.values(), layer(x).blocks, whole(x).blocks, x.blocks):
        expected = np.asarray(alone) + np.asarray(given) @ np.asarray(pair.left) @ np.asarray(pair.right)
        assert np.allclose(both, expected, rtol=0, atol=1e-12)


def test_frozen_parts_have_no_free_adapter():
    config = TrainingConfig(adapters=1, freeze=("embedding", "blocks[:1]"), dtype="float64", devices=1)
    step = TrainingStep(potential("torchmd-et"), config, config.losses.terms(), lambda _: None)
    free = step.free
    assert isinstance(free, dict)
    query = free["model.layers.query.weight"]
    for factor in (query.left, query.right):
        assert np.ravel(factor).tolist() == [False, True]
    assert not np.any(free["model.embedding"])
    assert np.all(free["model.norm.bias"])
    # Adam's moments are those of the trained numbers only.
    state = step.initial_state()
    assert state.optimizer.mu.size == sum(leaf.size for leaf in jax.tree.leaves(state.params))


def test_a_senseless_rank_is_one_clear_line():
    task, (_, params) = potential("torchmd-et"), adapted("torchmd-et")
    with pytest.raises(UserError, match=r"training.adapters=6: .*the largest is 16 × 8\); choose a rank of at most 5") as error:
        Adaptation(task, params, 6)
    assert "\n" not in str(error.value)
    assert Adaptation(task, params, 5).rank == 5
