"""Rigid boxes and spheres thrown at one another above a floor, with gravity and friction: seeded trajectories from MuJoCo.

Every trajectory draws its bodies (kind, half sizes, density), places them at random without overlap, and throws them towards
the middle. The solver has elliptic friction cones, the only ones without preferred directions, and contacts that bounce. A
trajectory is a function of its seed alone on one version of MuJoCo and one machine; collisions amplify rounding.

Source: MuJoCo (Todorov, Erez and Tassa, IROS 2012), extra `bodies`; the scenes are ours, after those of Brehmer et al., TMLR
2025 (arXiv:2410.23179), which have meshes of household objects.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.so3.rotations import random_rotations
from equiform.errors import UserError

_MARGIN = 0.05
_TRIES = 1000


class ThrownConfig(BaseModel):
    """What fixes every trajectory, with its seed.

    Attributes:
        bodies: Bodies of a scene.
        frames: Recorded frames of a trajectory.
        interval: Time between frames, s.
        gravity: Acceleration towards the floor, m/s²; 0 leaves the floor out too.
        friction: Coefficient of sliding friction.
        damping: Damping ratio of a contact; 1 does not bounce.
        timestep: Of the integrator, s.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bodies: int = Field(default=4, ge=1)
    frames: int = Field(default=17, ge=2)
    interval: float = Field(default=0.1, gt=0)
    gravity: float = Field(default=9.81, ge=0)
    friction: float = Field(default=0.5, ge=0)
    damping: float = Field(default=0.3, gt=0)
    timestep: float = Field(default=0.002, gt=0)


class Thrown(NamedTuple):
    """Trajectories of rigid bodies in SI units.

    Attributes:
        boxes: Whether a body is a box; the others are spheres.
        half_sizes: Half the edges of boxes; radii of spheres, three times.
        masses: Masses.
        positions: Centres of mass at every frame.
        rotations: Columns are the axes of the body.
        velocities: Of the centres.
        spins: Angular velocities, in the frame of the world.
    """

    boxes: Bool[np.ndarray, "*batch bodies"]
    half_sizes: Float[np.ndarray, "*batch bodies 3"]
    masses: Float[np.ndarray, "*batch bodies"]
    positions: Float[np.ndarray, "*batch frames bodies 3"]
    rotations: Float[np.ndarray, "*batch frames bodies 3 3"]
    velocities: Float[np.ndarray, "*batch frames bodies 3"]
    spins: Float[np.ndarray, "*batch frames bodies 3"]


def mujoco() -> Any:
    """MuJoCo.

    Raises:
        UserError: It is not installed.
    """
    try:
        import mujoco
    except ImportError as error:
        raise UserError(f"colliding bodies need MuJoCo: pip install 'equiform[bodies]' ({error})") from error
    return mujoco


def throw(seed: int, config: ThrownConfig) -> Thrown:
    """One trajectory.

    Args:
        seed: Seed of the scene.
        config: Settings.

    Raises:
        UserError: MuJoCo is missing, or the bodies find no room.
    """
    rng = np.random.default_rng(seed)
    count = config.bodies
    boxes = rng.random(count) < 0.5
    half_sizes = rng.uniform(0.15, 0.4, (count, 3))
    half_sizes[~boxes] = half_sizes[~boxes, :1]
    density = np.exp(rng.uniform(np.log(300), np.log(3000), count))
    volume = np.where(boxes, 8 * half_sizes.prod(-1), 4 / 3 * np.pi * half_sizes[:, 0] ** 3)
    starts = _apart(np.where(boxes, np.linalg.norm(half_sizes, axis=-1), half_sizes[:, 0]), rng)
    target = np.array([0.0, 0.0, 0.8]) + rng.normal(0, 0.2, (count, 3))
    toward = target - starts
    velocities = rng.uniform(1, 4, (count, 1)) * toward / np.linalg.norm(toward, axis=-1, keepdims=True)
    still = Thrown(
        boxes,
        half_sizes,
        density * volume,
        starts[None],
        random_rotations(count, rng)[None],
        velocities[None],
        rng.normal(0, 3, (1, count, 3)),
    )
    return simulate(still, config)


def simulate(start: Thrown, config: ThrownConfig) -> Thrown:
    """The trajectory from the first frame of another one; the floor is the plane z = 0.

    Args:
        start: Bodies and their state at the first frame.
        config: Settings; `bodies` is not looked at.

    Raises:
        UserError: MuJoCo is missing.
    """
    engine = mujoco()
    model = _model(engine, start, config)
    data = engine.MjData(model)
    data.qpos = np.concatenate(
        [np.concatenate([x, _quaternion(engine, r)]) for x, r in zip(start.positions[0], start.rotations[0])]
    )
    # MuJoCo's angular velocities are in the frame of the body.
    local = np.einsum("bji,bj->bi", start.rotations[0], start.spins[0])
    data.qvel = np.concatenate([start.velocities[0], local], axis=-1).reshape(-1)
    steps, frames = round(config.interval / config.timestep), []
    for frame in range(config.frames):
        for _ in range(steps if frame else 0):
            engine.mj_step(model, data)
        engine.mj_forward(model, data)
        speeds = data.qvel.reshape(-1, 6).copy()
        rotations = data.xmat[1:].reshape(-1, 3, 3).copy()
        frames.append((data.xpos[1:].copy(), rotations, speeds[:, :3], np.einsum("bij,bj->bi", rotations, speeds[:, 3:])))
    return start._replace(**{name: np.stack(part) for name, part in zip(Thrown._fields[3:], zip(*frames))})


def _model(engine: Any, bodies: Thrown, config: ThrownConfig) -> Any:
    spec = engine.MjSpec()
    spec.option.timestep = config.timestep
    spec.option.cone = engine.mjtCone.mjCONE_ELLIPTIC
    spec.option.gravity = [0, 0, -config.gravity]
    surface = {"friction": [config.friction, 0.005, 0.0001], "solref": [0.01, config.damping]}
    if config.gravity:
        spec.worldbody.add_geom(type=engine.mjtGeom.mjGEOM_PLANE, size=[0, 0, 1], **surface)
    for box, size, mass in zip(bodies.boxes, bodies.half_sizes, bodies.masses):
        body = spec.worldbody.add_body()
        body.add_freejoint()
        kind = engine.mjtGeom.mjGEOM_BOX if box else engine.mjtGeom.mjGEOM_SPHERE
        body.add_geom(type=kind, size=size, mass=float(mass), **surface)
    return spec.compile()


def _quaternion(engine: Any, rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4"]:
    found = np.zeros(4)
    engine.mju_mat2Quat(found, rotation.reshape(-1))
    return found


def _apart(radii: Float[np.ndarray, " bodies"], rng: np.random.Generator) -> Float[np.ndarray, "bodies 3"]:
    """Positions at which spheres of these radii do not touch."""
    placed: list[np.ndarray] = []
    for radius in radii:
        for _ in range(_TRIES):
            place = rng.uniform([-1.5, -1.5, radius + _MARGIN], [1.5, 1.5, 2.5])
            if all(np.linalg.norm(place - other) > radius + r + _MARGIN for other, r in zip(placed, radii)):
                placed.append(place)
                break
        else:
            raise UserError(f"{len(radii)} bodies find no room; take fewer")
    return np.stack(placed)
