"""Initial velocities: the right temperature, no drift, no rotation."""

import ase.units
import numpy as np
import pytest

from equiform.simulate.md.velocities import (
    at_rest,
    degrees_of_freedom,
    kinetic_energy,
    maxwell_boltzmann,
    temperature_of,
    without_drift,
    without_rotation,
)


def test_each_component_has_half_kt():
    masses = np.repeat([1.008, 12.011, 238.0], 4000)
    velocities = maxwell_boltzmann(masses, 500.0, seed=0)
    halves = 0.5 * masses[:, None] * velocities**2
    for part in (*halves.T, halves[:4000], halves[-4000:]):
        # Relative error of the mean of n squares of normal numbers: √(2/n).
        assert part.mean() == pytest.approx(0.5 * ase.units.kB * 500, rel=4 * np.sqrt(2 / part.size))


def test_momentum_and_angular_momentum_vanish():
    rng = np.random.default_rng(0)
    positions, masses = rng.normal(size=(6, 3)) + 10, rng.uniform(1, 20, 6)
    velocities = without_drift(rng.normal(size=(6, 3)), masses)
    velocities = without_rotation(velocities, positions, masses)
    momenta = masses[:, None] * velocities
    assert np.allclose(momenta.sum(0), 0, atol=1e-12)
    assert np.allclose(np.cross(positions, momenta).sum(0), 0, atol=1e-11)


def test_a_linear_molecule_keeps_its_vibrations():
    positions, masses = np.array([[0, 0, 0], [1.1, 0, 0], [2.3, 0, 0.0]]), np.array([16.0, 12, 16])
    stretch = np.array([[1.0, 0, 0], [0, 0, 0], [-1, 0, 0]])
    assert np.allclose(without_rotation(stretch, positions, masses), stretch)
    turning = np.array([[0, 1.0, 0], [0, 0, 0], [0, -1.0, 0]])
    left = without_rotation(without_drift(turning, masses), positions, masses)
    assert np.abs(np.cross(positions, masses[:, None] * left).sum(0)).max() < 1e-12


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([[0, 0, 0]], 0),
        ([[0, 0, 0], [0, 0, 1.0]], 1),
        ([[0, 0, 0], [0.5, 0.5, 0.5], [2.0, 2, 2]], 4),
        ([[0, 0, 0], [1, 0, 0], [0, 1.0, 0]], 3),
    ],
)
def test_internal_degrees_of_freedom(positions, expected):
    positions = np.array(positions, float)
    masses, fixed = np.full(len(positions), 12.0), np.zeros(len(positions), bool)
    freedom = degrees_of_freedom(positions, masses, fixed, drift_removed=True, rotation_removed=True)
    assert freedom == expected


def test_fixed_atoms_have_none():
    positions, masses = np.eye(3), np.ones(3)
    fixed = np.array([True, False, False])
    freedom = degrees_of_freedom(positions, masses, fixed, drift_removed=False, rotation_removed=False)
    assert freedom == 6
    velocities = np.ones((3, 3))
    assert temperature_of(kinetic_energy(velocities, masses), 9) == pytest.approx(1 / ase.units.kB)
    assert temperature_of(1.0, 0) == 0


def test_given_velocities_count_the_degrees_of_freedom_that_they_have():
    rng = np.random.default_rng(0)
    positions, masses = rng.normal(size=(3, 3)), np.array([16.0, 1, 1])
    flying = np.tile([0.01, 0, 0], (3, 1))  # rigid: 3 of 9 degrees of freedom, none of which was removed
    assert at_rest(flying, positions, masses, drift=True, rotation=True) == (False, False)
    spinning = np.cross([0, 0, 0.01], positions - masses @ positions / masses.sum())
    assert at_rest(spinning, positions, masses, drift=True, rotation=True) == (True, False)
    inner = without_rotation(without_drift(rng.normal(size=(3, 3)), masses), positions, masses)
    assert at_rest(np.round(inner, 7), positions, masses, drift=True, rotation=True) == (True, True), "of an earlier run"
    assert at_rest(inner, positions, masses, drift=True, rotation=False) == (True, False), "a crystal cannot turn"
