"""Initial velocities, and the number of degrees of freedom.

Velocities are in ASE's unit, √(eV/amu); masses in amu.
"""

import ase.units
import numpy as np
from jaxtyping import Bool, Float

_AT_REST = 1e-3  # of the sum of the sizes: more than nine decimals and a float32 run leave


def maxwell_boltzmann(masses: Float[np.ndarray, "atoms"], temperature: float, *, seed: int) -> Float[np.ndarray, "atoms 3"]:
    """Velocities drawn from the canonical distribution, √(kT/m) ξ with standard normal ξ.

    ASE's function of this name is deprecated since 3.29, where its successor begins: neither serves all versions we allow.

    Args:
        masses: In amu.
        temperature: In K.
        seed: Seed of the random numbers.
    """
    noise = np.random.default_rng(seed).standard_normal((len(masses), 3))
    return np.sqrt(ase.units.kB * temperature / masses)[:, None] * noise


def without_drift(velocities: Float[np.ndarray, "atoms 3"], masses: Float[np.ndarray, "atoms"]) -> Float[np.ndarray, "atoms 3"]:
    """Subtract the velocity of the centre of mass."""
    return velocities - masses @ velocities / masses.sum()


def without_rotation(
    velocities: Float[np.ndarray, "atoms 3"],
    positions: Float[np.ndarray, "atoms 3"],
    masses: Float[np.ndarray, "atoms"],
) -> Float[np.ndarray, "atoms 3"]:
    """Subtract the rigid rotation about the centre of mass, ω × r with I ω = L.

    The pseudo-inverse drops the axes about which a linear molecule, or a single atom, has no moment of inertia.
    """
    arms = positions - masses @ positions / masses.sum()
    momentum = (masses[:, None] * np.cross(arms, velocities)).sum(0)
    omega = np.linalg.pinv(_inertia(arms, masses), rcond=1e-8) @ momentum
    return velocities - np.cross(omega, arms)


def at_rest(
    velocities: Float[np.ndarray, "atoms 3"],
    positions: Float[np.ndarray, "atoms 3"],
    masses: Float[np.ndarray, "atoms"],
    *,
    drift: bool,
    rotation: bool,
) -> tuple[bool, bool]:
    """Whether given velocities have no momentum, and then whether they have no angular momentum either.

    Args:
        velocities: As given.
        positions: Å.
        masses: In amu.
        drift: Whether the momentum counts at all.
        rotation: Whether the angular momentum does.
    """
    momenta = masses[:, None] * velocities
    still = drift and bool(np.linalg.norm(momenta.sum(axis=0)) < _AT_REST * np.linalg.norm(momenta, axis=1).sum())
    arms = positions - masses @ positions / masses.sum()
    size = (np.linalg.norm(arms, axis=1) * np.linalg.norm(momenta, axis=1)).sum()
    return still, still and rotation and bool(np.linalg.norm(np.cross(arms, momenta).sum(axis=0)) < _AT_REST * size)


def degrees_of_freedom(
    positions: Float[np.ndarray, "atoms 3"],
    masses: Float[np.ndarray, "atoms"],
    fixed: Bool[np.ndarray, "atoms"],
    *,
    drift_removed: bool,
    rotation_removed: bool,
) -> int:
    """3 per free atom, minus those removed: 3 for the centre of mass, 3 for rotation (2 for a linear molecule)."""
    count = 3 * int((~fixed).sum())
    if drift_removed:
        count -= 3
    if rotation_removed:
        arms = positions - masses @ positions / masses.sum()
        count -= int(np.linalg.matrix_rank(_inertia(arms, masses), tol=1e-6))
    return max(count, 0)


def _inertia(arms: Float[np.ndarray, "atoms 3"], masses: Float[np.ndarray, "atoms"]) -> Float[np.ndarray, "3 3"]:
    squares = np.einsum("a,ai,aj->ij", masses, arms, arms)
    return np.trace(squares) * np.eye(3) - squares


def kinetic_energy(velocities: Float[np.ndarray, "atoms 3"], masses: Float[np.ndarray, "atoms"]) -> float:
    """½ Σ m v², eV."""
    return float(0.5 * (masses[:, None] * velocities**2).sum())


def temperature_of(kinetic: float, freedom: int) -> float:
    """2 E_kin / (f k_B), K; zero without degrees of freedom."""
    return 2 * kinetic / (freedom * ase.units.kB) if freedom else 0.0
