"""Thrown rigid bodies: conservation laws, rigidity, symmetry, repeatability; and their frames as tokens."""

import numpy as np
import pytest

from equiform.algebra.so3.rotations import random_rotations
from equiform.data.sets import thrown_bodies
from equiform.data.sets.rigid_bodies import Thrown, ThrownConfig, simulate, throw
from equiform.data.sets.thrown_bodies import CORNERS, body_tokens, make_thrown, read_tokens
from equiform.errors import UserError

pytest.importorskip("mujoco", reason="the extra 'bodies' is not installed")

FREE = ThrownConfig(bodies=3, gravity=0, frames=7)


@pytest.fixture(scope="module")
def free() -> Thrown:
    """Bodies that collide in empty space."""
    return throw(2, FREE)


def test_collisions_in_empty_space_conserve_momentum_and_lose_energy(free):
    straight = free.positions[0] + 0.6 * free.velocities[0]
    assert np.abs(free.positions[-1] - straight).max() > 0.05  # there was one
    momentum = (free.masses[:, None] * free.velocities).sum(1)
    np.testing.assert_allclose(momentum, momentum[:1].repeat(7, 0), atol=1e-8 * free.masses.sum(), rtol=0)
    energy = kinetic(free)
    assert energy[-1] < energy[0] and (np.diff(energy) < 1e-3 * energy[0]).all()


def test_a_thrown_body_alone_falls_on_a_parabola():
    config = ThrownConfig(bodies=1, frames=4, interval=0.02)
    found = throw(0, config)
    t = 0.02 * np.arange(4)[:, None]
    expected = found.positions[0, 0] + t * found.velocities[0, 0]
    expected[:, 2] -= 0.5 * 9.81 * t[:, 0] ** 2
    # The integrator is of first order: half a step of the fall.
    np.testing.assert_allclose(found.positions[:, 0], expected, atol=0.5 * 9.81 * 0.06 * config.timestep * 1.01, rtol=0)


def test_a_rotated_and_moved_scene_in_empty_space_moves_alike(free):
    turn, shift = random_rotations(1, np.random.default_rng(0))[0], np.array([0.3, -2.0, 1.0])
    start = free._replace(
        positions=free.positions[:1] @ turn.T + shift,
        rotations=turn @ free.rotations[:1],
        velocities=free.velocities[:1] @ turn.T,
        spins=free.spins[:1] @ turn.T,
    )
    found = simulate(start, FREE)
    np.testing.assert_allclose(found.positions, free.positions @ turn.T + shift, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.rotations, turn @ free.rotations, atol=1e-3, rtol=0)


def test_trajectories_are_those_of_their_seeds(free):
    again, other = throw(2, FREE), throw(4, FREE)
    for name in Thrown._fields:
        np.testing.assert_array_equal(getattr(again, name), getattr(free, name))
    assert np.abs(other.positions - free.positions).max() > 0.1


def test_velocities_are_the_derivatives_of_the_points():
    short = throw(2, ThrownConfig(bodies=3, gravity=0, frames=2, interval=0.002))
    tokens = body_tokens(Thrown(*(np.asarray(array)[None] for array in short)), 0.002)
    # x(t + Δ) − x(t) − Δ v is of second order in Δ = 2 ms: ω² r Δ² / 2, with ω up to 15 per second.
    assert np.abs(tokens.targets).max() < 15**2 * 0.7 * 0.002**2


def test_points_are_corners_and_turn_with_their_body(free):
    tokens = body_tokens(Thrown(*(np.asarray(array)[None] for array in free)), FREE.interval)
    points = tokens.vectors[:, :-1, 0].reshape(6, 3, 8, 3)
    centres = tokens.vectors[:, :-1, 2].reshape(6, 3, 8, 3)
    for body in range(3):
        local = np.einsum("fji,fcj->fci", free.rotations[:-1, body], points[:, body] - centres[:, body])
        scale = 1 if free.boxes[body] else 3**-0.5
        np.testing.assert_allclose(local, np.tile(scale * CORNERS * free.half_sizes[body], (6, 1, 1)), atol=1e-6, rtol=0)
    assert tokens.targets.shape == (6, 24, 3) and tokens.scalars.shape == (6, 25, 6)
    np.testing.assert_array_equal(tokens.scalars[:, -1], np.tile([0, 0, 1, 0, 0, 0], (6, 1)))
    np.testing.assert_array_equal(tokens.vectors[:, -1, 1], np.tile([0, 0, 1], (6, 1)))
    np.testing.assert_array_equal(tokens.scalars[:, :-1, 4:], tokens.vectors[:, :-1, [0, 3], 2])


def test_a_folder_of_trajectories_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(thrown_bodies, "SHARD", 2)
    config = ThrownConfig(bodies=1, frames=3)
    make_thrown(tmp_path, "train", 2, config)
    first = tmp_path / "train-00000.npz"
    before = first.stat().st_mtime_ns
    make_thrown(tmp_path, "train", 3, config)
    assert first.stat().st_mtime_ns == before
    assert len(read_tokens(tmp_path, "train", 3, config.interval).vectors) == 6
    assert len(read_tokens(tmp_path, "train", 1, config.interval).vectors) == 2


def test_bodies_without_room_are_one_line():
    with pytest.raises(UserError, match="find no room"):
        throw(0, ThrownConfig(bodies=200))


def kinetic(found: Thrown) -> np.ndarray:
    """Kinetic energy of every frame."""
    squares = (2 * found.half_sizes) ** 2
    box = (squares.sum(-1, keepdims=True) - squares) / 12
    inertia = found.masses[:, None] * np.where(found.boxes[:, None], box, 0.4 * found.half_sizes**2)
    local = np.einsum("fbji,fbj->fbi", found.rotations, found.spins)
    return 0.5 * ((found.masses[:, None] * found.velocities**2).sum((1, 2)) + (inertia * local**2).sum((1, 2)))
