"""A trained model of simulated particles: its errors against baselines, and its predictions."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from equiform.data.formats.extxyz import write_frames
from equiform.data.pipeline.dataset import Dataset
from equiform.data.sets.nbody_prepare import Particles
from equiform.data.sets.nbody_samples import FIELDS, LABELS, NBodySamples, simple_rules
from equiform.errors import UserError
from equiform.persist.modelfile import LoadedModel
from equiform.report.equivariance import equivariance_errors
from equiform.report.trajectories import Vectors, by_simulation
from equiform.runtime.files import explained, write_atomically
from equiform.tasks.motion import Motion
from equiform.training.evaluate import Evaluation, evaluate_with_values

Dtype = Literal["float32", "float64"]
SUFFIXES = (".npz", ".extxyz", ".xyz")
"""Suffixes of prediction files."""


class ParticleErrors(NamedTuple):
    """Errors of a model on simulations.

    Attributes:
        errors: By vector: `mse`, `mae`, `rmse`, `count`, `equivariance_error`, and the baselines' mean squared errors: `still`
            (no change) and `linear` (`factor` times the velocity).
        lines: Human-readable description of the comparison.
    """

    errors: dict[str, dict[str, Any]]
    lines: list[str]


def gives_vectors(model: LoadedModel) -> bool:
    """Whether a model predicts the motion of particles rather than an energy."""
    return isinstance(model.task, Motion)


def own_folder(model: LoadedModel) -> dict[str, str | None]:
    """Folder of the model's training set, by the name of the set."""
    settings = model.metadata.get("data") or {}
    return {settings["set"]: settings.get("folder")} if "set" in settings else {}


def evaluate_particles(
    model: LoadedModel,
    particles: Particles,
    *,
    dtype: Dtype = "float32",
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> ParticleErrors:
    """Errors of every vector that a model predicts, next to two baselines: no change, and a multiple of the velocity.

    Args:
        model: A model of vectors per particle.
        particles: Simulations with the state to be predicted.
        dtype: Precision of the computation.
        batch_size: Number of simulations per batch.
        progress: Progress callback `(done, total)`, in simulations.

    Raises:
        UserError: The simulations have no later state, or the prediction is not finite.
    """
    samples = particles.samples
    if samples.horizon == 0:
        raise UserError(f"{particles.about}: there is no later state to compare with; use equiform predict instead")
    found = _evaluated(model, samples, dtype, batch_size, progress).errors
    dataset = _dataset(model, samples)
    equivariance = equivariance_errors(model.task, dataset, found, dtype=dtype)
    rules = simple_rules(samples if particles.train is None else particles.train, samples)
    errors = {
        name: {"mse": error["rmse"] ** 2, **error, "equivariance_error": equivariance.get(name), **rules[name]._asdict()}
        for name, error in found.items()
    }
    where = "the training part" if particles.train is not None else "these simulations themselves"
    lines = [
        f"{len(samples)} simulations of {particles.about}",
        f"baselines: no change, and the velocity times a factor fitted on {where}",
    ]
    return ParticleErrors(errors, lines)


def predict_particles(
    model: LoadedModel,
    samples: NBodySamples,
    *,
    dtype: Dtype = "float32",
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> Vectors:
    """The model's predicted vectors for the input states of simulations, by name.

    Args: see `evaluate_particles`.

    Raises:
        UserError: The prediction is not finite.
    """
    return by_simulation(_evaluated(model, samples, dtype, batch_size, progress), samples)


def predicted_states(samples: NBodySamples, vectors: Vectors) -> dict[str, np.ndarray]:
    """Input and predicted states: start + displacement, and if the model predicts it, velocity + change of velocity.

    Returns:
        `positions`, `velocities` (if predicted), `charges`, `start_positions`, `start_velocities`.
    """
    rows = np.arange(len(samples))
    starts = np.array([samples.start(int(k)) for k in rows])
    x, v = (array[rows, starts].astype(np.float64) for array in samples.trajectories[:2])
    states = {"positions": x + vectors[LABELS[0]]} if LABELS[0] in vectors else {}
    if LABELS[1] in vectors:
        states["velocities"] = v + vectors[LABELS[1]]
    charges = samples.trajectories.charges.astype(np.float64)
    return states | {"charges": charges, "start_positions": x, "start_velocities": v}


def write_states(path: Path, states: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write predicted states as `.npz` arrays (with `metadata` as JSON text), or as extended XYZ with a frame per simulation.

    In XYZ the positions are the predicted ones; `start` and `start_velocities` are columns, as is `velocities` if predicted.

    Raises:
        UserError: The file cannot be written.
    """
    if path.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **states, metadata=np.array(json.dumps(about, ensure_ascii=False)))  # pyright: ignore[reportArgumentType]
        with explained(f"cannot write {path}", "free some space or choose another place"):
            write_atomically(path, buffer.getvalue())
        return
    columns = {"velocities": "velocities", "start_positions": "start", "start_velocities": "start_velocities"}
    given = {name: states[key] for key, name in columns.items() if key in states}
    properties = "".join(f":{name}:R:3" for name in given) + ":initial_charges:R:1"
    comment = " ".join(f'{key}="{value}"' for key, value in about.items())
    positions = states.get("positions", states["start_positions"])
    numbers = np.concatenate([positions, *given.values(), states["charges"][..., None]], axis=-1)
    frames = []
    for index, rows in enumerate(numbers.tolist()):
        header = f'pbc="F F F" Properties=species:S:1:pos:R:3{properties} simulation={index} {comment}'.rstrip()
        frames.append("\n".join([str(len(rows)), header, *(f"X {' '.join(map(repr, row))}" for row in rows)]) + "\n")
    write_frames(path, frames)


def _dataset(model: LoadedModel, samples: NBodySamples) -> Dataset:
    return Dataset(samples, model.task.model.traits.cutoff, fields=FIELDS, quantity=LABELS[0])


def _evaluated(
    model: LoadedModel,
    samples: NBodySamples,
    dtype: Dtype,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Evaluation:
    found = evaluate_with_values(
        model.task,
        _dataset(model, samples),
        batch_size=batch_size,
        dtype=dtype,
        targets=[target.name for target in model.task.targets],
        progress=(lambda done: progress(done, len(samples))) if progress else None,
    )
    for name, values in found.values.items():
        bad = ~np.isfinite(values.predicted).all(axis=1)
        if bad.any():
            raise UserError(f"the model's {name} of simulation {values.structure[bad].min()} is not finite")
    return found
