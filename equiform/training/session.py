"""What surrounds the steps of the training loop: start or resume, log, validate, checkpoint, finish."""

import hashlib
import math
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np

from equiform.data.pipeline.batching import plan_epoch, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.persist.modelfile import load_weights
from equiform.persist.parameters import with_dtype
from equiform.tasks.api import Task
from equiform.training import parallel
from equiform.training.batches import Batch
from equiform.training.checkpoint import restored
from equiform.training.config import LossConfig, TrainingConfig
from equiform.training.duration import TRAINING_SHARE, Duration, duration, measure, steps_within
from equiform.training.evaluate import Validator, labelled
from equiform.training.metrics import MetricsLog
from equiform.training.optimizer import learning_rate
from equiform.training.progress import Meter, Reporter, errors_in_words
from equiform.training.run_folder import RunFolder
from equiform.training.scale import loss_terms_of
from equiform.training.step import NO_STEP, TrainingStep, explain_failure

FREE_TO_CHANGE = ("checkpoint_minutes", "checkpoint_every", "devices")
"""Settings that a resumed run may change: they affect only the rounding of sums over devices."""


@dataclass
class Position:
    """The position of a run.

    Attributes:
        step: Number of completed steps.
        epoch: Number of completed epochs.
        position: Number of completed batches in the current epoch.
        logged_step: Step of the last training entry in the metrics log.
        best_loss: Lowest validation loss.
        best_step: Step at which it was reached.
        best_errors: Validation errors at that step.
        stale: Number of validations since then.
        stopped_early: Whether patience ran out.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    logged_step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    best_errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: int = 0
    stopped_early: bool = False


class Session:
    """A run in one process. `at` is its position, `state` holds the arrays on the device.

    Args: see `fit`; `reporter` prints the messages.
    """

    duration: Duration

    def __init__(
        self,
        task: Task,
        train: Dataset,
        validation: Dataset | None,
        config: TrainingConfig,
        run: RunFolder,
        reporter: Reporter,
    ):
        self.started = time.perf_counter()
        if not len(train):
            raise UserError("there is no structure to train on")
        self.task, self.train, self.config = task, train, config
        self.folder, self.reporter = run, reporter
        validation = validation if validation is not None and len(validation) else None
        self.terms = terms_with_labels(loss_terms_of(config, task), config, train, reporter)
        self.step = TrainingStep(task, config, self.terms, reporter.say)
        self.state = self.step.initial_state()
        self.validator = None
        if validation is not None:
            size = config.evaluation_batch_size or config.batch_size
            self.validator = Validator(self.step.static, validation, self.terms, size, config.dtype)
        self.fingerprint = fingerprint(task, config, train, validation)
        self.at = Position()
        self.meter = Meter()
        self._rate = self._epochs = 0.0
        self._log: MetricsLog | None = None
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=config.log_every)
        self._last_checkpoint = time.perf_counter()

    @property
    def compilations(self) -> int:
        """Number of programs compiled in this process."""
        return self.step.compilations + (self.validator.compilations if self.validator else 0)

    @property
    def log(self) -> MetricsLog:
        if self._log is None:
            raise RuntimeError("the session has not begun")
        return self._log

    def begin(self, resume: bool) -> None:
        """Fix the length of the run, or resume from the last checkpoint."""
        say = self.reporter.say
        found = self.folder.checkpoints.latest(say) if resume else None
        if found is not None:
            progress = found.progress
            check_resumable(progress["fingerprint"], self.fingerprint)
            self.state = parallel.replicated(self.step.mesh, restored(self.state, found))
            self.at, self.duration = Position(**progress["at"]), Duration(**progress["duration"])
            self._log = MetricsLog(self.folder.path, progress["metrics_bytes"], self.at.step)
            say(f"resumed at step {self.at.step} of {self.duration.total_steps}")
        else:
            self._log = MetricsLog(self.folder.path)
            self.duration = self._fix_duration()
            self.checkpoint()
        self.reporter.start(self.at.step, self.duration.total_steps)
        self.meter = Meter()

    def advance(self, batch: Batch) -> jax.Array:
        """Dispatch one step. Returns its loss without waiting for it."""
        at, compile_seconds = self.at, self.step.compile_seconds
        self._rate = learning_rate(
            self.config,
            at.step,
            batch.epoch,
            steps_per_epoch=self.duration.steps_per_epoch,
            total_steps=self.duration.total_steps,
        )
        self.state, loss = self.step(self.state, batch, self._rate, self._weights())
        self.meter.pause(self.step.compile_seconds - compile_seconds)
        self.meter.add(len(batch.indices), batch.num_atoms)
        self._recent.append((at.step, batch.indices))
        at.step += 1
        at.epoch, at.position = batch.epoch, batch.position + 1
        self._epochs = batch.epoch + at.position / batch.per_epoch
        if at.position == batch.per_epoch:
            at.epoch, at.position = at.epoch + 1, 0
        self.reporter.update(at.step)
        return loss

    def log_training(self) -> None:
        """Write the means since the last entry, and reset the sums.

        Raises:
            UserError: A loss or gradient was not finite.
        """
        sums = self._finite_sums()
        steps = self.at.step - self.at.logged_step
        timing = self.meter.read()
        means = {name: sums[name] / steps for name in ("loss", *self.terms, "gradient_norm")}
        self.log.write(
            {"kind": "train", "step": self.at.step, "epoch": self._epochs, **means}
            | {"learning_rate": self._rate, "timing": timing}
        )
        self.state = eqx.tree_at(lambda state: state.sums, self.state, self.step.zero_sums())
        self.at.logged_step = self.at.step
        speed = f"{timing['structures_per_second']:.3g} structures/s, loss {means['loss']:.3g}"
        self.reporter.update(self.at.step, speed)

    def validate(self) -> None:
        """Validate the EMA weights, save them if they are the best so far, count towards the patience if not."""
        self._finite_sums()
        if self.validator is None:
            return
        start, at = time.perf_counter(), self.at
        loss, errors = self.validator(self.step.weights_to_keep(self.state))
        loss = parallel.agreed(loss)
        better = math.isfinite(loss) and (at.best_loss is None or loss < at.best_loss)
        if better:
            at.best_loss, at.best_step, at.best_errors, at.stale = loss, at.step, errors, 0
            self.folder.save_model(self.folder.best, self._task_to_keep(), self._about())
        else:
            at.stale += 1
        patience = self.config.early_stopping
        at.stopped_early = patience is not None and at.stale >= patience
        flat = {f"{name}_{kind}": values[kind] for name, values in errors.items() for kind in ("mae", "rmse")}
        seconds = time.perf_counter() - start
        self.log.write(
            {"kind": "validation", "step": at.step, "epoch": self._epochs, "loss": loss, **flat}
            | {"best": better, "timing": {"seconds": seconds}}
        )
        self.reporter.say(
            f"step {at.step} of {self.duration.total_steps}, epoch {self._epochs:.4g}: validation loss "
            f"{loss:.4g}, {errors_in_words(errors)}{' (best so far)' if better else ''}"
        )
        if at.stopped_early:
            self.reporter.say(f"no better validation loss in {at.stale} validations: stopped early")
        self.meter.pause(time.perf_counter() - start)

    def checkpoint_is_due(self) -> bool:
        """Whether enough time or steps have passed since the last checkpoint."""
        every, minutes = self.config.checkpoint_every, self.config.checkpoint_minutes
        due = time.perf_counter() - self._last_checkpoint > 60 * minutes
        return due or (every is not None and self.at.step % every == 0)

    def checkpoint(self) -> None:
        """Write everything that the rest of the run depends on.

        Raises:
            UserError: The disk cannot be written, or a loss was not finite; the last good checkpoint stays.
        """
        start = time.perf_counter()
        self._finite_sums()
        progress = {
            "at": asdict(self.at),
            "duration": self.duration._asdict(),
            "metrics_bytes": self.log.sync(),
            "fingerprint": self.fingerprint,
        }
        self.folder.checkpoints.save(self.at.step, self.state, progress)
        self._last_checkpoint = time.perf_counter()
        self.meter.pause(self._last_checkpoint - start)

    def save_last(self) -> None:
        """Write the model file of the current weights."""
        self.folder.save_model(self.folder.last, self._task_to_keep(), self._about())

    def finish(self) -> tuple[Task, dict[str, dict[str, Any]]]:
        """Write the last model; returns the best one and its errors."""
        self.save_last()
        if self.at.best_loss is None:
            self.at.best_step = self.at.step
            self.folder.save_model(self.folder.best, self._task_to_keep(), self._about())
        minutes = (time.perf_counter() - self.started) / 60
        self.reporter.say(
            f"finished after {self.at.step} steps ({minutes:.1f} minutes, {self.compilations} programs "
            f"compiled); the best model is from step {self.at.best_step}: {self.folder.best}"
        )
        like = with_dtype(self.task, self.step.dtype)
        return load_weights(self.folder.best, like), self.at.best_errors

    def close(self) -> None:
        """Close the metrics log."""
        if self._log is not None:
            self._log.close()

    def _fix_duration(self) -> Duration:
        config, say = self.config, self.reporter.say
        plan = plan_epoch(
            self.train.num_atoms,
            self.train.num_edges,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=0,
            shuffle=True,
        )
        capacities = dict.fromkeys(tuple(planned.capacity) for planned in plan)
        sizes = "; ".join(f"{atoms} atoms, {edges} edges, {n} structures" for atoms, edges, n in capacities)
        say(
            f"{len(self.train)} structures in {len(plan)} batches per epoch, "
            f"{100 * waste(plan):.0f} % padding, "
            f"{len(capacities)} {'capacity' if len(capacities) == 1 else 'capacities'}: {sizes}"
        )
        if config.max_minutes is None:
            return duration(config, len(plan), None)
        say("measuring the speed ...")
        speed = measure(self.step, self.state, self.train, config, self.validator)
        left = 60 * config.max_minutes - (time.perf_counter() - self.started)
        least = TRAINING_SHARE * 60 * config.max_minutes
        if left < least:
            say(
                f"compiling and measuring took {time.perf_counter() - self.started:.3g} s of the {config.max_minutes:g} "
                f"minutes of "
                f"training.max_minutes: training gets {least:.3g} s all the same, so that the run takes longer"
            )
            left = least
        possible = int(parallel.agreed(float(steps_within(left, speed, config, len(plan)))))
        fixed = duration(config, len(plan), possible)
        say(
            f"a step takes {speed.step:.3g} s and a validation {speed.validation:.3g} s: {fixed.total_steps} "
            f"steps ({fixed.total_steps / len(plan):.3g} epochs) in the {max(left, 0) / 60:.3g} minutes left"
        )
        return fixed

    def _weights(self) -> list[float]:
        fraction = self.at.step / max(self.duration.total_steps - 1, 1)
        return [_weight_at(term, fraction) for term in self.terms.values()]

    def _task_to_keep(self) -> Task:
        return eqx.combine(self.step.weights_to_keep(self.state), self.step.static)

    def _about(self) -> dict[str, Any]:
        errors = self.at.best_errors if self.at.best_step == self.at.step else {}
        return {"step": self.at.step, "total_steps": self.duration.total_steps, "validation": errors}

    def _finite_sums(self) -> dict[str, float]:
        sums = {name: float(value) for name, value in jax.device_get(self.state.sums).items()}
        bad = int(sums.pop("bad_step"))
        if bad == NO_STEP:
            return sums
        kept = self.folder.checkpoints.steps()
        advice = f"the checkpoint of step {kept[0]} is kept in {self.folder.path}" if kept else "nothing was lost"
        raise explain_failure(bad, sums, dict(self._recent).get(bad), advice)


def terms_with_labels(
    terms: dict[str, LossConfig], config: TrainingConfig, train: Dataset, reporter: Reporter
) -> dict[str, LossConfig]:
    """The terms of the loss that have labels in the training set; dropped terms are reported.

    Raises:
        UserError: No term has labels, or one named under `other` has none.
    """
    requested = {name: term for name, term in terms.items() if term.weight or term.final_weight}
    found = labelled(train, requested)
    for name in requested:
        if name in found:
            continue
        if name in config.losses.other:
            have = sorted({*train[0].graph_fields, *train[0].node_fields})
            raise UserError(f"training.losses.other.{name}: no structure has a label {name!r}; available: {', '.join(have)}")
        reporter.say(f"no structure has {name}: the loss term is dropped")
    if not found:
        raise UserError(
            f"no training structure has a label for {' or '.join(requested)}; check data.energy_key and data.forces_key"
        )
    return {name: requested[name] for name in requested if name in found}


def fingerprint(task: Task, config: TrainingConfig, train: Dataset, validation: Dataset | None) -> dict[str, Any]:
    """What must be unchanged for a run to be resumed: settings, model, data."""
    settings = config.model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
    return {
        "training": settings,
        "task": {"kind": task.kind, **task.settings()},
        "model": task.model.config.model_dump(mode="json"),
        "data": {"train": _hash_of(train), "validation": _hash_of(validation)},
    }


def check_resumable(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise if something differs; a training setting that the run's version did not have yet counts as its default.

    Raises:
        UserError: Names everything that differs, with both values.
    """
    defaults = TrainingConfig().model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
    old, new = _flat({**before, "training": {**defaults, **before["training"]}}), _flat(now)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        changes = "; ".join(f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in changed[:5])
        raise UserError(f"the run cannot be resumed, it would not be the same run: {changes}. Start a new run instead")


def _weight_at(term: LossConfig, fraction: float) -> float:
    if term.final_weight is None:
        return term.weight
    return term.weight + min(fraction, 1.0) * (term.final_weight - term.weight)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _hash_of(dataset: Dataset | None, samples: int = 1000) -> str | None:
    """Hash of the sizes of all structures and of the full content of up to `samples` of them."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    digest.update(np.asarray(dataset.num_atoms, np.int64).tobytes())
    digest.update(np.asarray(dataset.num_edges, np.int64).tobytes())
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(samples, len(dataset))).astype(int)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(dataset[int(index)]):
            digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
