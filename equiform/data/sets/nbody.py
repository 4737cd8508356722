"""Simulated point particles: the generators behind the published N-body problems, vectorised and seeded.

A particle feels a_i = Σ_j c_ij (x_i − x_j) / |x_i − x_j|³ with c_ij = q_i q_j for charges (equal ones repel) and c_ij = −m_j
for gravity; mass and constants are one. The published programs integrate with semi-implicit Euler steps,

    v ← v + Δt · clip(a(x)),   x ← x + Δt · v,   then walls if there are any,

and record positions together with the velocity that led there. Here many simulations advance side by side in one compiled
float64 program. For the charged sets the published random streams are drawn in the published order, so initial states are
those of the published data, and trajectories agree up to rounding, which chaos amplifies where two particles nearly hit.

Source: Satorras et al., ICML 2021 (vgsatorras/egnn); Fuchs et al., NeurIPS 2020 (FabianFuchsML/se3-transformer-public), both
after Kipf et al., ICML 2018; gravity: Brehmer et al., NeurIPS 2023 (Qualcomm-AI-research/geometric-algebra-transformer).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.so3.rotations import random_rotations

TIME_STEP = 0.001
MAX_FORCE = 0.1 / TIME_STEP
"""Each component of a charged particle's force is clipped to this."""
BOX = 5.0
SPEED = 0.5
"""Initial speed of every charged particle; its direction is random."""

_CHUNK = 1024  # simulations that advance together: their state stays in the cache
_FAR = 3.0  # in boxes; a particle beyond could not be reflected back by one wall


class State(NamedTuple):
    """Positions, velocities and charges of particles.

    Attributes:
        positions: Positions.
        velocities: Velocities.
        charges: Charges or masses.
    """

    positions: Float[np.ndarray, "simulations bodies 3"]
    velocities: Float[np.ndarray, "simulations bodies 3"]
    charges: Float[np.ndarray, "simulations bodies"]


class Trajectories(NamedTuple):
    """Recorded frames of many simulations.

    Attributes:
        positions: Positions.
        velocities: Velocities of the steps that led there.
        charges: Charges or masses, which do not change.
    """

    positions: Float[np.ndarray, "simulations frames bodies 3"]
    velocities: Float[np.ndarray, "simulations frames bodies 3"]
    charges: Float[np.ndarray, "simulations bodies"]


def simulate(
    initial: State,
    coupling: Float[np.ndarray, "simulations bodies bodies"],
    *,
    frames: range,
    steps_per_frame: int,
    max_force: float | None = None,
    box: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Trajectories]:
    """Advance simulations and yield them in chunks, in order. Frame k is the state after k steps_per_frame steps.

    Args:
        initial: State at frame 0.
        coupling: c_ij; the diagonal is not used.
        frames: Which frames to record: consecutive, ascending.
        steps_per_frame: Steps between frames.
        max_force: Largest force component; None does not clip.
        box: Reflecting walls at ± this along each axis; None: free space.
        progress: Called with the number of simulations done.

    Raises:
        ValueError: A particle left the box by more than a reflection can bring back.
    """
    program = jax.jit(_advance, static_argnames=("first", "count", "steps", "max_force", "box"))
    total = len(initial.charges)
    with jax.enable_x64(True):
        for start in range(0, total, _CHUNK):
            part = slice(start, start + _CHUNK)
            # Simulations last: the innermost loop of every operation runs over them.
            x, v, c = (np.moveaxis(array[part], 0, -1) for array in (*initial[:2], coupling))
            recorded = program(
                x, v, c, first=frames.start, count=len(frames), steps=steps_per_frame, max_force=max_force, box=box
            )
            positions, velocities = (np.moveaxis(np.asarray(array), -1, 0) for array in recorded)
            if box is not None and not (np.abs(positions) <= box).all():
                raise ValueError(f"a particle is outside of the box of ±{box}")
            yield Trajectories(positions, velocities, initial.charges[part])
            if progress is not None:
                progress(min(start + _CHUNK, total))


def charge_coupling(charges: Float[np.ndarray, "simulations bodies"]) -> Float[np.ndarray, "simulations bodies bodies"]:
    """c_ij = q_i q_j: equal charges repel."""
    return charges[:, :, None] * charges[:, None]


def gravity_coupling(masses: Float[np.ndarray, "simulations bodies"]) -> Float[np.ndarray, "simulations bodies bodies"]:
    """c_ij = −m_j: the acceleration towards body j, G = 1."""
    return -np.broadcast_to(masses[:, None], (*masses.shape, masses.shape[1]))


def total_energy(
    state: State, coupling: Float[np.ndarray, "simulations bodies bodies"], masses: Float[np.ndarray, "simulations bodies"]
) -> Float[np.ndarray, "simulations"]:
    """½ Σ m_i v_i² + ½ Σ_{i≠j} m_i c_ij / r_ij."""
    separation = state.positions[:, :, None] - state.positions[:, None]
    distance = np.sqrt((separation**2).sum(axis=-1))
    off = ~np.eye(distance.shape[1], dtype=bool)[None]
    potential = np.where(off, masses[:, :, None] * coupling / np.where(off, distance, 1), 0).sum(axis=(1, 2))
    return 0.5 * (masses[:, :, None] * state.velocities**2).sum(axis=(1, 2)) + 0.5 * potential


class ChargedStream:
    """Initial states of charged particles, one simulation after the other, from the published stream of random numbers.

    Charges ±1 with probability ½; positions N(0, 1) times `spread`, folded back into the box; velocities of length ½ in a
    random direction. After each simulation the stream skips the observation noise, which the published programs draw and
    multiply by zero.

    Args:
        seed: Seed of NumPy's legacy generator.
        num_bodies: Particles of a simulation.
        spread: Standard deviation of the initial positions.
        num_frames: Frames that the published run records, which is how much noise it draws.
    """

    def __init__(self, seed: int, *, num_bodies: int = 5, spread: float = 1.0, num_frames: int = 49):
        self._random = np.random.RandomState(seed)  # The published data come from this generator.
        self._bodies, self._spread, self._frames = num_bodies, spread, num_frames

    def draw(self, count: int) -> State:
        """The next simulations of the stream."""
        random, bodies = self._random, self._bodies
        positions, velocities = np.empty((2, count, 3, bodies))
        charges = np.empty((count, bodies))
        for k in range(count):
            charges[k] = random.choice([-1.0, 0.0, 1.0], size=(bodies, 1), p=[0.5, 0.0, 0.5])[:, 0]
            positions[k] = random.randn(3, bodies)
            velocities[k] = random.randn(3, bodies)
            random.randn(2 * self._frames * 3 * bodies)
        positions *= self._spread
        velocities *= SPEED / np.sqrt((velocities**2).sum(axis=1, keepdims=True))
        over, under = positions > BOX, positions < -BOX
        velocities = np.where(over, -np.abs(velocities), np.where(under, np.abs(velocities), velocities))
        positions = np.where(over, 2 * BOX - positions, np.where(under, -2 * BOX - positions, positions))
        return State(positions.transpose(0, 2, 1), velocities.transpose(0, 2, 1), charges)


def planetary_states(count: int, *, num_planets: int = 3, rng: np.random.Generator) -> State:
    """A star with planets on nearly circular orbits, anywhere in space and in any orientation.

    Star mass log-uniform in [1, 10], planet masses in [0.01, 0.1]; planets uniform in the annulus 0.1 … 1 of a plane, at the
    speed of a circular orbit in either sense plus N(0, 0.01²); then permuted, rotated (Haar) and shifted by N(0, 20²) per axis.
    """
    bodies = num_planets + 1
    masses = np.exp(rng.uniform(np.log([1.0] + [0.01] * num_planets), np.log([10.0] + [0.1] * num_planets), (count, bodies)))
    radius = np.sqrt(rng.uniform(0.1**2, 1.0, (count, num_planets)))  # uniform in the area
    angle = rng.uniform(0, 2 * np.pi, (count, num_planets))
    outward = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)
    along = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], axis=-1)
    sense = rng.choice([-1.0, 1.0], (count, num_planets))
    speed = sense * np.sqrt(masses[:, :1] / radius)
    still = np.zeros((count, 1, 3))
    positions = np.concatenate([still, radius[..., None] * outward], axis=1)
    velocities = np.concatenate([still, speed[..., None] * along + rng.normal(0, 0.01, along.shape)], axis=1)
    order = rng.permuted(np.tile(np.arange(bodies), (count, 1)), axis=1)
    rotation = random_rotations(count, rng)
    shift = rng.normal(0, 20, (count, 1, 3))
    positions, velocities = (
        np.einsum("sij,sbj->sbi", rotation, np.take_along_axis(array, order[..., None], axis=1))
        for array in (positions, velocities)
    )
    return State(positions + shift, velocities, np.take_along_axis(masses, order, axis=1))


def fit_linear(velocities: Float[np.ndarray, "..."], displacements: Float[np.ndarray, "..."]) -> float:
    """The time t of the best extrapolation x + t · v in the least-squares sense: the simplest baseline there is."""
    return float((velocities * displacements).sum() / (velocities**2).sum())


def _advance(x: Array, v: Array, coupling: Array, *, first: int, count: int, steps: int, max_force: Any, box: Any) -> Any:
    """Positions and velocities (frames, bodies, 3, simulations) of `count` frames from frame `first` on."""
    bodies = x.shape[0]
    diagonal = jnp.asarray(np.eye(bodies, dtype=bool))[:, :, None]
    coupling = jnp.where(diagonal, 0, coupling)

    def step(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, v = state
        separation = x[:, None] - x[None]  # bodies bodies 3 simulations
        squared = jnp.where(diagonal, 1, (separation**2).sum(axis=2))
        force = ((coupling / (squared * jnp.sqrt(squared)))[:, :, None] * separation).sum(axis=1)
        if max_force is not None:
            force = jnp.clip(force, -max_force, max_force)
        v = v + TIME_STEP * force
        x = x + TIME_STEP * v
        if box is not None:
            over, under = x > box, x < -box
            # What is far outside stays there, for the caller to see.
            beyond = jnp.abs(x) >= _FAR * box
            v = jnp.where(over, -jnp.abs(v), jnp.where(under, jnp.abs(v), v))
            x = jnp.where(beyond, x, jnp.where(over, 2 * box - x, jnp.where(under, -2 * box - x, x)))
        return x, v

    def record(state: tuple[Array, Array], _: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        return jax.lax.fori_loop(0, steps, step, state), state

    state = jax.lax.fori_loop(0, first * steps, step, (jnp.asarray(x), jnp.asarray(v)))
    last, recorded = jax.lax.scan(record, state, None, length=count - 1)
    return tuple(jnp.concatenate([frames, end[None]]) for frames, end in zip(recorded, last))
