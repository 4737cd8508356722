"""GATr's n-body states: a star with planets, drawn from NumPy's legacy generator in the published order, bit for bit.

For each set of n samples, c = round(1.1 n) candidates are drawn; all sets share one stream:

1. star masses: c, log-uniform in [1, 10];   2. planet masses: (c, P), log-uniform in [0.01, 0.1]
3. planet positions: (c, P, 2), uniform in [−1, 1]²; while any lies outside the annulus 0.1 … 1, all are drawn again and those
   outside are replaced
4. senses of rotation: (c, P), ±1;   5. noise: (c, P, 3), N(0, 0.01²), added to the velocity of a circular orbit
6. a permutation of the P + 1 bodies for each candidate
7. rotations: normals (c, 3, 3), QR, columns times the signs of R's diagonal, first row divided by the determinant
8. shifts: (c, 1, 3), N(0, 20²);   9. for the set "e3": + 200 along x

Samples in which a body moves farther than 2 are left out after the simulation, and the first n of the others are the set.

Source: the generator of Brehmer et al., NeurIPS 2023, authors' code, release 1.4.3; step 7 is SciPy's `special_ortho_group`.
Differs: nothing; integration agrees to rounding, which close encounters amplify.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from equiform.data.sets.nbody import State

FAR_SHIFT = 200.0
"""Displacement along x of the set "e3"."""


def candidates(count: int) -> int:
    """Samples that are drawn for a set of `count`."""
    return round(1.1 * count)


def gatr_states(seed: int, counts: Mapping[str, int], planets: Mapping[str, int], far: str) -> dict[str, State]:
    """Initial states of all candidates of each set, in the order of the stream.

    Args:
        seed: Seed of the stream.
        counts: Samples of each set, by name, in the published order.
        planets: Planets of each set.
        far: The set that is displaced.
    """
    random = np.random.RandomState(seed)  # the published data come from this generator
    return {
        name: drawn_states(random, candidates(count), planets[name], shift=FAR_SHIFT if name == far else 0.0)
        for name, count in counts.items()
    }


def drawn_states(random: np.random.RandomState, count: int, num_planets: int, *, shift: float = 0.0) -> State:
    """The next candidates of the stream.

    Args:
        random: The stream.
        count: Number of candidates.
        num_planets: Planets of each.
        shift: Added to x.
    """
    star = np.exp(random.uniform(np.log(1.0), np.log(10.0), (count, 1)))
    planets = np.exp(random.uniform(np.log(0.01), np.log(0.1), (count, num_planets)))
    flat = random.uniform(-1, 1, (count, num_planets, 2))
    while (outside := _outside(flat)).any():
        flat = np.where(outside[..., None], random.uniform(-1, 1, flat.shape), flat)
    sense = random.choice([-1.0, 1.0], (count, num_planets), p=[0.5, 0.5])  # with weights it takes doubles from the stream
    noise = random.normal(0, 0.01, (count, num_planets, 3))
    radius = np.sqrt((flat**2).sum(-1, keepdims=True))
    across = np.stack([-flat[..., 1], flat[..., 0], np.zeros_like(flat[..., 0])], axis=-1)
    velocities = sense[..., None] * np.sqrt(star)[:, None] * across / radius**1.5 + noise
    positions = np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)
    still = np.zeros((count, 1, 3))
    masses, x, v = (np.concatenate(parts, axis=1) for parts in ((star, planets), (still, positions), (still, velocities)))
    order = np.stack([random.permutation(num_planets + 1) for _ in range(count)])
    masses = np.take_along_axis(masses, order, axis=1)
    x, v = (np.take_along_axis(array, order[..., None], axis=1) for array in (x, v))
    rotation = drawn_rotations(random, count)
    x, v = (np.einsum("sij,sbj->sbi", rotation, array) for array in (x, v))
    x = x + random.normal(0, 20, (count, 1, 3))
    x[..., 0] += shift
    return State(x, v, masses)


def drawn_rotations(random: np.random.RandomState, count: int) -> Float[np.ndarray, "samples 3 3"]:
    """Rotations, uniform in SO(3)."""
    q, r = np.linalg.qr(random.normal(size=(count, 3, 3)))
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    q = q * (diagonal / np.abs(diagonal))[:, None, :]
    q[:, 0] /= np.linalg.det(q)[:, None]
    return q


def _outside(flat: np.ndarray) -> np.ndarray:
    radius = np.sqrt((flat**2).sum(-1))
    return (radius < 0.1) | (radius > 1.0)
