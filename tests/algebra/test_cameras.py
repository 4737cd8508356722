"""The common frame of cameras: where their axes meet, how far they are, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.algebra.cameras import Cameras, common_frame, framed, moved
from equiform.errors import UserError


def cameras_about(origin, distance, count=5, seed=0):
    rotation = Rotation.random(count, random_state=seed).as_matrix()
    intrinsics = np.broadcast_to(np.diag([20.0, 20.0, 1.0]), rotation.shape)
    return Cameras(rotation, origin - distance * rotation[:, :, 2], intrinsics, 8, 8)


def test_axes_meet_at_the_origin_of_the_common_frame():
    origin = np.array([0.3, -2.0, 1.5])
    frame = common_frame(cameras_about(origin, 4.0), 2.0)
    np.testing.assert_allclose(frame.origin, origin, rtol=0, atol=1e-12)
    assert frame.length == pytest.approx(2.0, abs=1e-12)
    found = framed(cameras_about(origin, 4.0), frame)
    np.testing.assert_allclose(found.centre, -2 * np.asarray(found.rotation)[:, :, 2], rtol=0, atol=1e-12)


def test_the_frame_moves_with_the_cameras():
    cameras, turn, shift = cameras_about(np.zeros(3), 1.0), Rotation.random(random_state=7).as_matrix(), np.array([5.0, 1, -2])
    after = common_frame(
        jax.tree.map(np.asarray, moved(jax.tree.map(jnp.asarray, cameras), jnp.asarray(turn), jnp.asarray(shift))), 1.0
    )
    np.testing.assert_allclose(after.origin, shift, rtol=0, atol=1e-12)


def test_parallel_cameras_have_no_common_point():
    cameras = Cameras(np.stack([np.eye(3)] * 2), np.eye(3)[:2], np.stack([np.eye(3)] * 2), 8, 8)
    with pytest.raises(UserError, match="parallel directions"):
        common_frame(cameras, 1.0)
