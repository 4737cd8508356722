"""Frames of thrown rigid bodies as tokens: eight points of every body, the floor, and where the points are a frame later.

The points of a box are its corners, those of a sphere lie on it in the directions of the corners of a cube. What is predicted
is what contact, gravity and rotation add to uniform motion,

    target = (x(t + Δ) − x(t) − Δ v(t)) / σ,        σ: root mean square over the training points

so that a loss of 1 is that of uniform motion.

Source: ours; faces of meshes as tokens as in Brehmer et al., TMLR 2025 (arXiv:2410.23179).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from equiform.data.sets.rigid_bodies import Thrown, ThrownConfig, throw
from equiform.data.store.shards import make_shards, read_shards

SHARD = 250
FIRST_SEED = {"train": 0, "test": 1_000_000_000}
"""Seed of the first trajectory of a split; the next trajectories have the next seeds."""
CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3, indexing="ij"), axis=-1).reshape(8, 3)
NUM_VECTORS, NUM_SCALARS = 5, 6


class BodyTokens(NamedTuple):
    """Frames as tokens, the floor last.

    Attributes:
        vectors: Position, outward normal (of a corner: away from the centre), centre of the body, velocity, and normal of the
            floor, of each token.
        scalars: Whether the token is of a box, of a sphere, of the floor; logarithm of the mass; height above the floor and
            velocity away from it.
        targets: Targets before division by σ; not of the floor.
    """

    vectors: Float[np.ndarray, "frames tokens 5 3"]
    scalars: Float[np.ndarray, "frames tokens 6"]
    targets: Float[np.ndarray, "frames moving 3"]


def make_thrown(
    folder: Path, split: str, count: int, config: ThrownConfig, *, progress: Callable[[int, int], Any] | None = None
) -> None:
    """Make the first trajectories of a split, those that are missing.

    Args:
        folder: An existing folder, for one configuration.
        split: One of `FIRST_SEED`.
        count: How many.
        config: Settings.
        progress: Progress callback `(done, total)`, in trajectories.
    """
    first = FIRST_SEED[split]
    make_shards(folder, split, count, lambda number: throw(first + number, config), size=SHARD, progress=progress)


def read_tokens(folder: Path, split: str, count: int, interval: float) -> BodyTokens:
    """The frames of the first trajectories of a split, as tokens in float32."""
    return body_tokens(read_shards(Thrown, folder, split, count, size=SHARD), interval)


def body_tokens(thrown: Thrown, interval: float) -> BodyTokens:
    """All frames but the last of trajectories, as tokens in float32.

    Args:
        thrown: Trajectories, stacked.
        interval: Time between frames.
    """
    arms = CORNERS * thrown.half_sizes[:, :, None]  # trajectories, bodies, 8, 3
    arms[~thrown.boxes] /= np.sqrt(3)
    arms = np.einsum("tfbij,tbcj->tfbci", thrown.rotations, arms)
    centres = np.broadcast_to(thrown.positions[:, :, :, None], arms.shape)
    points = centres + arms
    velocities = thrown.velocities[:, :, :, None] + np.cross(thrown.spins[:, :, :, None], arms)
    normals = arms / np.linalg.norm(arms, axis=-1, keepdims=True)
    targets = points[:, 1:] - points[:, :-1] - interval * velocities[:, :-1]
    up = np.broadcast_to(np.array([0.0, 0, 1]), points.shape)
    vectors = np.stack([points, normals, centres, velocities, up], axis=-2)[:, :-1]
    vectors = vectors.reshape(-1, vectors.shape[2] * 8, NUM_VECTORS, 3)
    kinds = np.stack([thrown.boxes, ~thrown.boxes, np.zeros_like(thrown.boxes), np.log(thrown.masses) / 3], axis=-1)
    kinds = np.broadcast_to(kinds[:, None, :, None], (*targets.shape[:-1], 4)).reshape(*vectors.shape[:2], -1)
    kinds = np.concatenate([kinds, vectors[:, :, [0, 3], 2]], axis=-1)
    floor = np.zeros((len(vectors), 1, NUM_VECTORS, 3))
    floor[:, :, [1, 4], 2] = 1
    ground = np.broadcast_to(np.array([0.0, 0, 1, 0, 0, 0]), (len(vectors), 1, NUM_SCALARS))
    arrays = np.concatenate([vectors, floor], 1), np.concatenate([kinds, ground], 1), targets.reshape(len(vectors), -1, 3)
    return BodyTokens(*(array.astype(np.float32) for array in arrays))
