"""Equiformer with fields of nodes as inputs: scalars and vectors of particles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.graph import to_device
from equiform.models.equiformer import Equiformer
from equiform.models.presets import preset
from tests.models.test_egnn import particles

TINY = {
    "num_layers": 1,
    "irreps": "8x0e+4x1o",
    "irreps_sh": "1x0e+1x1o",
    "irreps_head": "4x0e+2x1o",
    "irreps_mlp": "8x0e+4x1o",
    "irreps_feature": "8x0e+4x1o",
    "num_heads": 2,
    "num_basis": 8,
    "radial_widths": (8, 8),
}


def test_displacements_turn_with_positions_and_velocities_and_depend_on_both_fields():
    model = eqx.filter_jit(Equiformer(preset("equiformer-nbody", **TINY), key=jax.random.key(0)))
    graph = particles(2)
    before = model(to_device(graph, jnp.float64))["displacement"]
    for rotation in (random_rotation(0), -np.eye(3)):
        fields = graph.node_fields | {"velocity": graph.node_fields["velocity"] @ rotation.T}
        turned = graph.replace(positions=graph.positions @ rotation.T, node_fields=fields)
        np.testing.assert_allclose(model(to_device(turned, jnp.float64))["displacement"], before @ rotation.T, atol=1e-10)
    for name in ("velocity", "charge"):
        changed = graph.replace(node_fields=graph.node_fields | {name: -graph.node_fields[name]})
        assert np.abs(model(to_device(changed, jnp.float64))["displacement"] - before).max() > 1e-3


def test_what_is_missing_is_told():
    model = Equiformer(preset("equiformer-nbody", **TINY), key=jax.random.key(0))
    bare = particles().replace(node_fields={"charge": np.ones(5)})
    with pytest.raises(ValueError, match="needs the node fields velocity; the graph has: charge"):
        model(to_device(bare, jnp.float64))
    with pytest.raises(ValueError, match="node_vectors needs 1o in irreps"):
        preset("equiformer-nbody", **TINY | {"irreps": "8x0e"})
