"""Spherical harmonics, Wigner-D and edge frames: values against scipy, derivatives against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from equiform.algebra.so3.edge_frame import depthwise_product_aligned
from equiform.algebra.so3.features import Features
from equiform.algebra.so3.irreps import Irreps
from equiform.algebra.so3.products import Paths
from equiform.algebra.so3.rotations import Directions, rotation_to_pole, safe_unit, spherical_harmonics, wigner_d

AXES = np.concatenate([np.eye(3), -np.eye(3), [[1e-9, 1, 0], [0, -1, 1e-9], [1, 0, -1], [0.3, -1e-12, 0.5]]])


def test_harmonics_equal_scipy_to_degree_10():
    vectors = np.concatenate([np.random.default_rng(0).normal(size=(40, 3)), AXES])
    x, y, z = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    polar, azimuth = np.arccos(np.clip(y, -1, 1)), np.arctan2(x, z)  # polar axis y, azimuth from z to x
    ours = spherical_harmonics(10, jnp.asarray(vectors))
    for l in range(11):
        rows = []
        for m in range(-l, l + 1):
            value = sph_harm_y(l, abs(m), polar, azimuth) * np.sqrt(4 * np.pi)
            factor = 1 if m == 0 else np.sqrt(2) * (-1) ** m
            rows.append(factor * (value.imag if m < 0 else value.real))
        # scipy takes angles, and arccos loses half the digits next to a pole.
        np.testing.assert_allclose(ours[l], np.stack(rows, axis=1), atol=1e-7)


def test_harmonics_are_normalised_to_components():
    vectors = jnp.asarray(np.random.default_rng(1).normal(size=(20, 3)))
    for l, y in enumerate(spherical_harmonics(10, vectors)):
        np.testing.assert_allclose((y**2).sum(axis=1), 2 * l + 1, rtol=1e-12)


def test_wigner_d_rotates_harmonics_and_composes():
    first, second = (jnp.asarray(Rotation.random(random_state=i).as_matrix()) for i in (1, 2))
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=(10, 3)))
    before, after = spherical_harmonics(10, vectors), spherical_harmonics(10, vectors @ first.T)
    for l, (a, b, ab) in enumerate(zip(*(wigner_d(10, r) for r in (first, second, first @ second)))):
        np.testing.assert_allclose(before[l] @ a.T, after[l], atol=1e-12)
        np.testing.assert_allclose(a @ b, ab, atol=1e-12)


@pytest.mark.parametrize("vectors", [AXES, np.random.default_rng(3).normal(size=(50, 3))])
def test_frames_are_rotations_that_take_the_edge_to_the_pole(vectors):
    unit = safe_unit(jnp.asarray(vectors))[0]
    r = np.asarray(rotation_to_pole(unit))
    np.testing.assert_allclose(np.einsum("eij,ej->ei", r, unit), np.tile([0, 1, 0], (len(r), 1)), atol=1e-14)
    np.testing.assert_allclose(r @ r.transpose(0, 2, 1), np.tile(np.eye(3), (len(r), 1, 1)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(r), 1, atol=1e-14)


def _function(vectors):
    """A scalar that goes through frames and harmonics, so that every derivative rule is used."""
    irreps = Irreps.parse("2x0e+2x1e+1x2e")
    paths = Paths(irreps, Irreps.spherical(2, parity=False), irreps)
    rng = np.random.default_rng(4)
    x = Features.from_mul_ir(jnp.asarray(np.tile(rng.normal(size=irreps.dim), (len(vectors), 1))), irreps)
    weights = jnp.asarray(rng.normal(size=(1, paths.num_weights)))
    out = depthwise_product_aligned(x, Directions(vectors, 2), weights, paths).to_mul_ir()
    return jnp.sin(out * jnp.asarray(rng.normal(size=(1, out.shape[1])))).sum()


@jax.jit
def _derivatives(vectors):
    return jax.grad(_function)(vectors), jax.jacfwd(jax.grad(_function))(vectors)


def test_first_and_second_derivatives_are_right_in_every_direction():
    vectors = jnp.asarray(AXES)
    gradient, hessian = _derivatives(vectors)
    step = 1e-5
    function = jax.jit(_function)
    for edge in range(len(AXES)):
        for axis in range(3):
            shift = jnp.zeros_like(vectors).at[edge, axis].set(step)
            numeric = float(function(vectors + shift) - function(vectors - shift)) / (2 * step)
            assert float(gradient[edge, axis]) == pytest.approx(numeric, rel=1e-6, abs=1e-7)
            plus, minus = _derivatives(vectors + shift)[0], _derivatives(vectors - shift)[0]
            np.testing.assert_allclose(hessian[:, :, edge, axis], (plus - minus) / (2 * step), atol=1e-5)


def test_zero_length_edges_have_zero_derivatives():
    gradient, hessian = _derivatives(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(hessian, 0)
    np.testing.assert_array_equal(spherical_harmonics(2, jnp.zeros((1, 3)))[1], 0)
