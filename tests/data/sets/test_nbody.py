"""The simulators against a slow one written out in plain Python, against conservation laws and published baselines."""

import numpy as np
import pytest

from equiform.data.sets import nbody
from equiform.data.sets.nbody import BOX, MAX_FORCE, TIME_STEP, ChargedStream, State


def slow(x, v, coupling, steps, *, max_force=None, box=None):
    """One simulation, particle by particle, force by force."""
    x, v = [list(row) for row in x], [list(row) for row in v]
    bodies = len(x)
    for _ in range(steps):
        forces = []
        for i in range(bodies):
            force = [0.0, 0.0, 0.0]
            for j in range(bodies):
                if j == i:
                    continue
                d = [x[i][k] - x[j][k] for k in range(3)]
                cube = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2) ** 1.5
                for k in range(3):
                    force[k] += coupling[i][j] * d[k] / cube
            forces.append(force if max_force is None else [max(-max_force, min(max_force, f)) for f in force])
        for i in range(bodies):
            for k in range(3):
                v[i][k] += TIME_STEP * forces[i][k]
                x[i][k] += TIME_STEP * v[i][k]
                if box is not None and x[i][k] > box:
                    x[i][k], v[i][k] = 2 * box - x[i][k], -abs(v[i][k])
                elif box is not None and x[i][k] < -box:
                    x[i][k], v[i][k] = -2 * box - x[i][k], abs(v[i][k])
    return np.array(x), np.array(v)


def run(state, coupling, frames, steps, **settings):
    chunks = list(nbody.simulate(state, coupling, frames=frames, steps_per_frame=steps, **settings))
    return nbody.Trajectories(*(np.concatenate(column) for column in zip(*chunks)))


def test_charges_in_free_space_move_as_in_the_slow_integrator():
    state = ChargedStream(3).draw(4)
    coupling = nbody.charge_coupling(state.charges)
    found = run(state, coupling, range(1, 4), 150, max_force=MAX_FORCE)
    for s in range(4):
        for frame in range(3):
            x, v = slow(state.positions[s], state.velocities[s], coupling[s], 150 * (frame + 1), max_force=MAX_FORCE)
            np.testing.assert_allclose(found.positions[s, frame], x, atol=1e-9)
            np.testing.assert_allclose(found.velocities[s, frame], v, atol=1e-9)


def test_walls_reflect_and_forces_are_clipped_as_in_the_slow_integrator():
    state = ChargedStream(4).draw(2)
    # Near the walls and fast; the last two particles start a hundredth apart, where the force is far above the limit.
    positions = 4.5 * np.sign(state.positions) * np.linspace(0.9, 1.1, 5)[:, None]
    positions[:, 4] = positions[:, 3] + 0.01
    state = State(positions, 8 * state.velocities, state.charges)
    coupling = nbody.charge_coupling(state.charges)
    found = run(state, coupling, range(2, 3), 200, max_force=MAX_FORCE, box=BOX)
    free = run(state, coupling, range(2, 3), 200, max_force=MAX_FORCE)
    unclipped = run(state, coupling, range(2, 3), 200, box=BOX)
    assert np.abs(free.positions).max() > BOX and np.abs(unclipped.positions - found.positions).max() > 0.1
    for s in range(2):
        x, v = slow(positions[s], state.velocities[s], coupling[s], 400, max_force=MAX_FORCE, box=BOX)
        np.testing.assert_allclose(found.positions[s, 0], x, atol=1e-9)
        np.testing.assert_allclose(found.velocities[s, 0], v, atol=1e-9)


def test_a_particle_that_left_the_box_for_good_is_reported():
    state = State(np.zeros((1, 1, 3)), np.full((1, 1, 3), 2e4), np.ones((1, 1)))
    with pytest.raises(ValueError, match="outside of the box"):
        run(state, np.zeros((1, 1, 1)), range(1, 2), 1, box=BOX)


def test_energy_and_momentum_are_conserved_where_no_force_is_clipped():
    state = ChargedStream(5).draw(200)
    coupling = nbody.charge_coupling(state.charges)
    found = run(state, coupling, range(41), 100, max_force=MAX_FORCE)
    ones = np.ones_like(state.charges)
    energies, nearest = [], []
    for frame in range(41):
        now = State(found.positions[:, frame], found.velocities[:, frame], state.charges)
        energies.append(nbody.total_energy(now, coupling, ones))
        distance = np.linalg.norm(now.positions[:, :, None] - now.positions[:, None], axis=-1) + 9 * np.eye(5)
        nearest.append(distance.min(axis=(1, 2)))
    # Semi-implicit Euler steps of 0.001 conserve an energy that differs from the true one by O(Δt).
    quiet = np.min(nearest, axis=0) > 0.35
    assert quiet.sum() > 50
    change = np.abs(np.array(energies) - energies[0])[:, quiet]
    assert np.median(change.max(axis=0)) < 2e-3 and change.max() < 0.1
    momentum = found.velocities.sum(axis=2)
    np.testing.assert_allclose(momentum[quiet], np.broadcast_to(momentum[quiet][:, :1], momentum[quiet].shape), atol=1e-11)


def test_a_planet_on_a_circle_comes_round():
    masses = np.array([[4.0, 1e-9]])
    period = 2 * np.pi * np.sqrt(0.25**3 / 4)
    steps = round(period / TIME_STEP)
    x = np.array([[[0.0, 0, 0], [0.25, 0, 0]]])
    v = np.array([[[0.0, 0, 0], [0, 4.0, 0]]])
    found = run(State(x, v, masses), nbody.gravity_coupling(masses), range(2), steps)
    # A first-order method: off by at most two steps, of 4 · 0.001 each, along the orbit.
    np.testing.assert_allclose(found.positions[0, 1, 1], [0.25, 0, 0], atol=8e-3)
    half = run(State(x, v, masses), nbody.gravity_coupling(masses), range(2), steps // 2)
    np.testing.assert_allclose(half.positions[0, 1, 1], [-0.25, 0, 0], atol=8e-3)


def test_the_stream_is_that_of_the_published_program():
    """Drawn from NumPy's global generator, in the order of the published loop."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(43)  # noqa: NPY002
    drawn = []
    for _ in range(3):
        charges = np.random.choice(np.array([-1.0, 0, 1]), size=(5, 1), p=[0.5, 0, 0.5])  # noqa: NPY002
        x, v = np.random.randn(3, 5), np.random.randn(3, 5)  # noqa: NPY002
        v = 0.5 * v / np.linalg.norm(v, axis=0)
        np.random.randn(49, 3, 5)  # noqa: NPY002
        np.random.randn(49, 3, 5)  # noqa: NPY002
        drawn.append((x.T, v.T, charges[:, 0]))
    np.random.set_state(before)  # noqa: NPY002
    stream = ChargedStream(43)
    parts = [stream.draw(1), stream.draw(2)]
    for number, expected in enumerate(zip(*drawn)):
        np.testing.assert_allclose(np.concatenate([part[number] for part in parts]), np.array(expected), rtol=1e-15)


def test_initial_states_have_the_published_statistics():
    state = ChargedStream(1).draw(2000)
    np.testing.assert_allclose(np.linalg.norm(state.velocities, axis=-1), 0.5, rtol=1e-12)
    assert set(np.unique(state.charges)) == {-1.0, 1.0} and abs(state.charges.mean()) < 0.05
    assert abs(state.positions.std() - 1) < 0.02 and np.abs(state.positions).max() <= BOX
    # Directions are uniform: each component of a unit vector has the variance 1/3 and the fourth moment 1/5.
    direction = state.velocities / 0.5
    np.testing.assert_allclose((direction**2).mean(axis=(0, 1)), 1 / 3, atol=0.02)
    np.testing.assert_allclose((direction**4).mean(axis=(0, 1)), 1 / 5, atol=0.02)


def test_planetary_systems_have_the_published_statistics():
    state = nbody.planetary_states(4000, rng=np.random.default_rng(0))
    star = state.charges.argmax(axis=1)
    assert (np.sort(state.charges, axis=1)[:, 2] <= 0.1).all() and (state.charges.max(axis=1) >= 1).all()
    assert abs(np.log(state.charges.max(axis=1)).mean() - 0.5 * np.log(10)) < 0.03
    np.testing.assert_allclose(np.bincount(star, minlength=4) / 4000, 0.25, atol=0.03)
    rows = np.arange(4000)
    offset = state.positions - state.positions[rows, star][:, None]
    radius = np.linalg.norm(offset, axis=-1)
    planets = np.ones((4000, 4), bool)
    planets[rows, star] = False
    assert radius[planets].min() >= 0.1 and radius[planets].max() <= 1
    # Uniform in the area of the annulus: r² is uniform in [0.01, 1].
    np.testing.assert_allclose(np.quantile(radius[planets] ** 2, [0.25, 0.5, 0.75]), [0.2575, 0.505, 0.7525], atol=0.02)
    circular = np.sqrt(state.charges.max(axis=1)[:, None] / np.where(planets, radius, 1))
    speed = np.linalg.norm(state.velocities - state.velocities[rows, star][:, None], axis=-1)
    assert np.abs(speed - circular)[planets].std() < 0.015
    normal = np.cross(offset[planets], state.velocities[planets])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    np.testing.assert_allclose((normal**2).mean(axis=0), 1 / 3, atol=0.02)  # any orientation
    assert abs(state.positions.std() - 20) < 0.5
