"""Study: does equivariance matter at scale? GATr, a transformer, and the transformer with augmented data on colliding bodies.

Every model is trained at several sizes on fresh data (each frame is seen about once) and, at one size, on fewer frames, many
times over. The learning rate is constant, and what is tested is a running average of the weights over about the last tenth of
the steps so far: a test at any step then stands for a run of so many steps, and one run gives a whole curve.

    w̄_t = w̄_{t−1} + (w_t − w̄_{t−1}) (γ + 1) / (γ + t),   γ = 8

Frames are tested as they are, the floor below, and after a random rotation each. All of it is in a folder: trajectories,
checkpoints, a file of results for each run. A study that was stopped resumes, and one with more seeds, sizes or models goes on.

Source: the questions of Brehmer, Behrends, de Haan and Cohen, TMLR 2025 (arXiv:2410.23179); scenes and sizes are ours.
"""

import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.so3.rotations import random_rotations
from equiform.data.sets.rigid_bodies import ThrownConfig
from equiform.data.sets.thrown_bodies import BodyTokens, make_thrown, read_tokens
from equiform.errors import UserError
from equiform.papers.scaling_fit import FRAMES, ScalingPoint
from equiform.papers.scaling_models import Kind, Size, body_model
from equiform.papers.scaling_plot import draw_scaling
from equiform.papers.scaling_report import RESULTS, analyse, as_markdown, gathered, read_points
from equiform.persist.parameters import num_parameters, split
from equiform.runtime.files import to_json, write_atomically
from equiform.training.state_file import restored_state, save_state

Progress = Callable[[int, int, str], Any]

GROWING = ("models", "gatr_sizes", "transformer_sizes", "fewer", "seeds")
_AT_ONCE = 10  # steps in one call of the program
_TESTED = 200  # frames in one call
_AVERAGE = 8.0  # γ
_SAVE_EVERY = 200


class ScalingStudy(BaseModel):
    """Sizes of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Kind, ...] = ("gatr", "transformer", "transformer-augmented")
    gatr_sizes: tuple[Size, ...] = ((4, 2), (8, 2), (16, 3), (32, 4), (64, 6))
    transformer_sizes: tuple[Size, ...] = ((16, 2), (32, 3), (64, 4), (128, 6), (256, 8))
    trajectories: int = Field(default=40_000, ge=1, description="Training trajectories, of 12 frames each.")
    fewer: tuple[int, ...] = Field(default=(100, 1000), description="Fewer trajectories, for the middle size.")
    tests: int = Field(default=300, ge=2, description="Test trajectories.")
    steps: int = Field(default=20_000, ge=32, multiple_of=_AT_ONCE)
    batch: int = Field(default=32, ge=1, description="Frames of a step.")
    gatr_rate: float = Field(default=1e-2, gt=0, description="Learning rate.")
    transformer_rate: float = Field(default=3e-3, gt=0, description="Learning rate.")
    seeds: tuple[int, ...] = (0, 1, 2)
    bodies: int = Field(default=4, ge=1)
    gravity: float = Field(default=9.81, ge=0)

    def scaled(self) -> "ScalingStudy":
        """A small form, for two cores."""
        small: dict[str, Any] = {"gatr_sizes": self.gatr_sizes[:3], "transformer_sizes": self.transformer_sizes[:4]}
        small |= {"trajectories": 2000, "fewer": (50, 300), "tests": 100, "steps": 1600, "batch": 16, "seeds": (0, 1)}
        return self.model_copy(update=small)

    @property
    def scenes(self) -> ThrownConfig:
        """Settings of the trajectories."""
        return ThrownConfig(bodies=self.bodies, gravity=self.gravity, frames=FRAMES + 1)


class Run(NamedTuple):
    """One training run of the study."""

    model: Kind
    size: Size
    trajectories: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.model}-{self.size[0]}x{self.size[1]}-{self.trajectories}-{self.seed}"


def runs(study: ScalingStudy) -> list[Run]:
    """All runs, small ones first."""
    found = []
    for seed, model in product(study.seeds, study.models):
        sizes = study.gatr_sizes if model == "gatr" else study.transformer_sizes
        found += [Run(model, size, study.trajectories, seed) for size in sizes]
        found += [Run(model, sizes[len(sizes) // 2], count, seed) for count in study.fewer]
    return sorted(found, key=lambda run: (run.seed, run.size[0] * run.size[1]))


def milestones(steps: int) -> list[int]:
    """Steps at which a run is tested: the last, and as often as it can be halved down to a 32nd."""
    halves = [steps / 2**power for power in range(5, -1, -1)]
    return sorted({max(_AT_ONCE, round(step / _AT_ONCE) * _AT_ONCE) for step in halves})


def rotated(tokens: BodyTokens, rng: np.random.Generator) -> BodyTokens:
    """Every frame after a random rotation about the origin, floor included."""
    by = random_rotations(len(tokens.vectors), rng).astype(np.float32)
    vectors = np.einsum("fij,ftcj->ftci", by, tokens.vectors)
    return BodyTokens(vectors, tokens.scalars, np.einsum("fij,ftj->fti", by, tokens.targets))


def batches(tokens: BodyTokens, run: Run, first: int, batch: int) -> BodyTokens:
    """The batches of the next steps, stacked; they follow from the run and the number of the step alone."""
    count = len(tokens.vectors)
    places = np.arange(first * batch, (first + _AT_ONCE) * batch)
    epochs = range(first * batch // count, ((first + _AT_ONCE) * batch - 1) // count + 1)
    orders = {epoch: np.random.default_rng([run.seed, epoch]).permutation(count) for epoch in epochs}
    rows = np.array([orders[place // count][place % count] for place in places.tolist()])
    chosen = BodyTokens(*(array[rows] for array in tokens))
    if run.model == "transformer-augmented":
        chosen = rotated(chosen, np.random.default_rng([run.seed, 1, first]))
    return BodyTokens(*(array.reshape(_AT_ONCE, batch, *array.shape[1:]) for array in chosen))


def train(
    folder: Path, run: Run, study: ScalingStudy, data: BodyTokens, tests: tuple[BodyTokens, BodyTokens], tick: Any
) -> list[ScalingPoint]:
    """Train one model, tested along the way; goes on where it was stopped.

    Args:
        folder: Of checkpoint and results.
        run: Which run.
        study: Settings.
        data: Training frames, targets divided by σ.
        tests: Test frames as they are and rotated.
        tick: Called with the number of steps done.

    Raises:
        UserError: The loss is not finite.
    """
    with jax.enable_x64(False):
        params, static = split(body_model(run.model, run.size, run.seed))
        rate = study.gatr_rate if run.model == "gatr" else study.transformer_rate
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        state = (params, optimizer.init(params), params)
        results, checkpoint = folder / f"{run.name}.json", folder / f"{run.name}.checkpoint"
        first, seconds, points = 0, 0.0, []
        if checkpoint.exists():
            state, first, seconds = restored_state(checkpoint, state)
            points = [point for point in read_points(results) if point.step <= first] if results.exists() else []

        def loss(params: Any, batch: BodyTokens) -> jax.Array:
            out = eqx.combine(params, static)(jnp.asarray(batch.vectors), jnp.asarray(batch.scalars))
            return ((out[:, : batch.targets.shape[1]] - batch.targets) ** 2).mean(axis=(1, 2))

        @jax.jit
        def steps(state: Any, number: jax.Array, batches: BodyTokens) -> tuple[Any, jax.Array]:
            def step(carry: Any, batch: BodyTokens) -> Any:
                (params, moments, average), number = carry
                value, slopes = jax.value_and_grad(lambda p: loss(p, batch).mean())(params)
                # Optax relies on implicit promotion (an integer count), which our tests forbid.
                with jax.numpy_dtype_promotion("standard"):
                    updates, moments = optimizer.update(slopes, moments, params)
                params = optax.apply_updates(params, updates)
                weight = (_AVERAGE + 1) / (_AVERAGE + number)
                average = jax.tree.map(lambda mean, new: mean + (new - mean) * weight, average, params)
                return ((params, moments, average), number + 1), value

            (state, _), values = jax.lax.scan(step, (state, number), batches)
            return state, values.mean()

        errors = jax.jit(loss)
        model = body_model(run.model, run.size, run.seed)
        tokens = data.vectors.shape[1]
        for done in range(first, study.steps, _AT_ONCE):
            begun = time.process_time()
            state, value = steps(state, jnp.float32(done + 1), batches(data, run, done, study.batch))
            value = float(value)
            seconds += time.process_time() - begun
            step = done + _AT_ONCE
            if not np.isfinite(value):
                raise UserError(f"{run.name}: the loss is not finite at step {step}; try a lower learning rate")
            tick(step)
            if step in milestones(study.steps):
                upright, moved = (frame_errors(errors, state[2], part) for part in tests)
                points.append(
                    ScalingPoint(
                        model=run.model,
                        size=run.size,
                        trajectories=run.trajectories,
                        limited=run.trajectories < study.trajectories,
                        seed=run.seed,
                        parameters=num_parameters(model),
                        step=step,
                        frames=step * study.batch,
                        flops=float(model.flops_per_token) * tokens * study.batch * step,
                        loss=float(upright.mean()),
                        standard_error=float(upright.std(ddof=1) / np.sqrt(len(upright))),
                        rotated=float(moved.mean()),
                        train=value,
                        seconds=round(seconds, 2),
                    )
                )
                write_atomically(results, to_json([point.model_dump(mode="json") for point in points]))
            if step in milestones(study.steps) or step % _SAVE_EVERY == 0:
                save_state(checkpoint, state, step, seconds)
    return points


def frame_errors(errors: Any, params: Any, tokens: BodyTokens) -> np.ndarray:
    """The error of every trajectory, the mean of its frames: frames of one trajectory are alike."""
    parts = [BodyTokens(*(array[k : k + _TESTED] for array in tokens)) for k in range(0, len(tokens.vectors), _TESTED)]
    found = np.concatenate([np.asarray(errors(params, part), float) for part in parts])
    return found.reshape(-1, FRAMES).mean(-1)


def run_study(folder: Path, study: ScalingStudy, progress: Progress) -> Iterator[str]:
    """Do what is missing of a study; the report after every run.

    Args:
        folder: Where everything goes.
        study: Settings.
        progress: Progress callback `(done, total, note)`.
    """
    for split_name, count in (("train", study.trajectories), ("test", study.tests)):
        make_thrown(folder, split_name, count, study.scenes, progress=lambda done, total: progress(done, total, "trajectories"))
    data = read_tokens(folder, "train", study.trajectories, study.scenes.interval)
    sigma = np.sqrt((data.targets**2).mean())
    data = data._replace(targets=data.targets / sigma)
    upright = read_tokens(folder, "test", study.tests, study.scenes.interval)
    upright = upright._replace(targets=upright.targets / sigma)
    tests = upright, rotated(upright, np.random.default_rng(5))
    results = folder / RESULTS
    results.mkdir(exist_ok=True)
    planned = runs(study)
    total = len(planned) * study.steps
    for number, run in enumerate(planned):
        part = BodyTokens(*(array[: FRAMES * run.trajectories] for array in data))
        done = number * study.steps
        finished = results / f"{run.name}.json"
        if finished.exists() and read_points(finished)[-1].step >= study.steps:
            continue
        train(results, run, study, part, tests, lambda step, done=done, name=run.name: progress(done + step, total, name))
        (results / f"{run.name}.checkpoint").unlink(missing_ok=True)
        yield _reported(folder)
    yield _reported(folder)


def _reported(folder: Path) -> str:
    """The report, with a plot beside it."""
    found = analyse(gathered([folder]))
    draw_scaling(folder / "scaling.png", found)
    return as_markdown(found)
