"""Δ_EQ of functions whose error is known in closed form."""

import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotation
from equiform.fields import Field, declarations
from equiform.graph import Capacity, batch, make_graph
from equiform.report.equivariance import equivariance_error


def particles(seed=0):
    rng = np.random.default_rng(seed)
    return make_graph(rng.normal(size=(5, 3)), node_fields={"velocity": rng.normal(size=(5, 3)), "charge": rng.normal(size=5)})


def test_what_turns_with_its_inputs_has_no_error():
    def predict(graph):
        centred = graph.positions - graph.positions.mean(axis=0)
        return centred * (graph.node_fields["velocity"] ** 2).sum(axis=1, keepdims=True) + graph.node_fields["velocity"]

    assert equivariance_error(predict, particles(), mirrored=True, shift=3.0) < 1e-14


def test_the_error_of_a_fixed_vector_is_known():
    fixed = np.tile([0.0, 0.0, 1.0], (5, 1))
    turns = [random_rotation(seed) for seed in range(4)]
    expected = np.mean([np.linalg.norm(turn[:, 2] - [0, 0, 1]) for turn in turns])
    np.testing.assert_allclose(equivariance_error(lambda _: fixed, particles(), num_rotations=4), expected, rtol=1e-12)


def test_velocities_turn_mirrors_and_shifts_are_seen_and_padding_is_not():
    as_numbers = declarations(Field("velocity", "atoms", "invariant"))
    assert equivariance_error(lambda g: g.node_fields["velocity"], particles()) < 1e-14
    assert equivariance_error(lambda g: g.node_fields["velocity"], particles(), declared=as_numbers) > 0.1
    about = {"num_rotations": 4, "shift": 1.0}
    assert equivariance_error(lambda g: g.positions, particles()) < 1e-14
    assert equivariance_error(lambda g: g.positions, particles(), **about) > 0.1
    across = lambda g: np.cross(g.positions, g.node_fields["velocity"])  # noqa: E731
    assert equivariance_error(across, particles()) < 1e-13
    assert equivariance_error(across, particles(), mirrored=True) > 0.1
    padded = batch([particles()], Capacity(7, 0, 2))
    odd = lambda g: np.where(g.atom_mask[:, None], g.positions, 1.0)  # noqa: E731
    assert equivariance_error(odd, padded) < 1e-14


def test_nothing_to_compare_with_is_told():
    with pytest.raises(ValueError, match="all vectors are zero"):
        equivariance_error(lambda g: np.zeros_like(g.positions), particles())
