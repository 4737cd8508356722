"""What surrounds the steps of the training loop: start or resume, log, validate, checkpoint, finish."""

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from equiform.data.pipeline.batching import NO_LIMITS, Batching, plan_epoch, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.graph import Capacity
from equiform.persist.modelfile import load_weights
from equiform.persist.parameters import with_dtype
from equiform.tasks.api import Task
from equiform.training import budget, parallel
from equiform.training.batches import Batch
from equiform.training.checkpoint import restored
from equiform.training.config import LossConfig, TrainingConfig
from equiform.training.duration import (
    CHECKS,
    SHORTEST_CHECKED,
    TOLERANCE,
    TRAINING_SHARE,
    Duration,
    Speed,
    corrected,
    duration,
    measure,
    steps_within,
)
from equiform.training.evaluate import Validator, labelled
from equiform.training.fingerprint import check_resumable, fingerprint
from equiform.training.heads import heads_of
from equiform.training.metrics import MetricsLog
from equiform.training.optimizer import learning_rate
from equiform.training.position import Position, Times
from equiform.training.progress import Meter, Reporter, errors_in_words
from equiform.training.run_folder import RunFolder
from equiform.training.scale import loss_terms_of
from equiform.training.step import NO_STEP, TrainingStep, explain_failure
from equiform.training.verdict import ENOUGH_EPOCHS, cautions, rules_on

LEAST_COMPILATION = 3.0
"""Seconds: a program that is there sooner came from the cache."""
VALIDATION_COMPILATION = 0.4
"""Compilation of a program that predicts, of one that trains."""


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
        batching: Batching = NO_LIMITS,
        least: Capacity | None = None,
        wandb: str | None = None,
    ):
        self.started = time.perf_counter()
        if not len(train):
            raise UserError("there is no structure to train on")
        self.task, self.train, self.config = task, train, config
        self.folder, self.reporter, self._wandb = run, reporter, wandb
        largest = int(np.max(train.num_edges, initial=1))
        self.batching = batching._replace(edges=batching.edges and max(batching.edges, largest))
        validation = validation if validation is not None and len(validation) else None
        self.terms = terms_with_labels(loss_terms_of(config, task), config, train, reporter)
        self.expected = budget.estimate(task, config, self.terms)
        self.step = TrainingStep(task, config, self.terms, reporter.say, self._compiling)
        if self.step.adaptation is not None:
            reporter.say(self.step.adaptation.in_words())
        self.state = self.step.initial_state()
        self.validator = None
        if validation is not None:
            size = config.evaluation_batch_size or config.batch_size
            self.validator = Validator(self.step.static, validation, self.terms, size, config.dtype, least)
        self.rules = rules_on(validation, task, tuple(self.terms)) if validation is not None else {}
        self.fingerprint = fingerprint(task, config, train, validation, batching)
        self.at, self._earlier = Position(), Times()
        self.meter = Meter()
        self._rate = self._epochs = 0.0
        self._validation_compile = self._compiled_before_training = 0.0
        self._training_since: float | None = None
        self._checks: list[int] = []
        self._checked = (0, 0.0)
        self._log: MetricsLog | None = None
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=config.log_every)
        self._last_checkpoint = time.perf_counter()

    @property
    def compilations(self) -> int:
        """Number of programs compiled in this process."""
        return self.step.compilations + (self.validator.compilations if self.validator else 0)

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling in this process."""
        return self.step.compile_seconds + self._validation_compile

    @property
    def times(self) -> Times:
        """The times of all parts of the run."""
        now, training = time.perf_counter(), 0.0
        if self._training_since is not None:
            training = now - self._training_since - (self.compile_seconds - self._compiled_before_training)
        earlier = self._earlier
        return Times(
            earlier.training + training, earlier.compilation + self.compile_seconds, earlier.total + now - self.started
        )

    @property
    def cautions(self) -> list[str]:
        """What must be said of the best model; see `verdict`."""
        return cautions(self.at.best_epochs, self.at.best_errors, self.rules)

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
            self._earlier = Times(**progress.get("times", {}))
            self._log = MetricsLog(self.folder.path, progress["metrics_bytes"], self.at.step, self._wandb)
            self._epochs = self.at.epoch + self.at.position / self.duration.steps_per_epoch
            say(f"resumed at step {self.at.step} of {self.duration.total_steps}")
        else:
            self._log = MetricsLog(self.folder.path, wandb=self._wandb)
            self.duration = self._fix_duration()
            self.checkpoint()
        self.reporter.start(self.at.step, self.duration.total_steps)
        self.meter = Meter()
        self._training_since, self._compiled_before_training = time.perf_counter(), self.compile_seconds
        self._checks, self._checked = self._steps_to_check(CHECKS), (self.at.step, self.times.training)

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
        if self._checks and at.step >= self._checks[0]:
            self._keep_time()
        self._stop_in_time()
        return loss

    def log_training(self) -> None:
        """Write the means since the last entry, and reset the sums.

        Raises:
            UserError: A loss or gradient was not finite.
        """
        sums = self._finite_sums()
        steps = self.at.step - self.at.logged_step
        timing = self.meter.read()
        means = {name: sums[name] / steps for name in self.step.summed}
        self.log.write(
            {"kind": "train", "step": self.at.step, "epoch": self._epochs, **means}
            | {"learning_rate": self._rate, "timing": timing}
        )
        self.state = eqx.tree_at(lambda state: state.sums, self.state, self.step.zero_sums())
        self.at.logged_step = self.at.step
        speed = f"{timing['structures_per_second']:.3g} structures/s, loss {means['loss']:.3g}"
        self.reporter.update(self.at.step, speed)
        left = self.duration.total_steps - self.at.step
        self.reporter.detail(
            f"step {self.at.step} of {self.duration.total_steps}, epoch {self._epochs:.4g}: {speed}, "
            f"about {left * timing['seconds_per_step'] / 60:.1f} minutes left"
        )

    def validate(self) -> None:
        """Validate the EMA weights, save them if they are the best so far, count towards the patience if not."""
        self._finite_sums()
        if self.validator is None:
            return
        start, at = time.perf_counter(), self.at
        loss, errors = self._validated(self.step.weights_to_keep(self.state))
        loss = parallel.agreed(loss)
        better = math.isfinite(loss) and (at.best_loss is None or loss < at.best_loss)
        if better:
            at.best_loss, at.best_step, at.best_errors, at.stale = loss, at.step, errors, 0
            at.best_epochs = self._epochs
            self._save(self.folder.best)
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
            f"{loss:.4g}, {errors_in_words(errors)}{self._praise() if better else ''}"
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
            "times": self.times._asdict(),
            "duration": self.duration._asdict(),
            "metrics_bytes": self.log.sync(),
            "fingerprint": self.fingerprint,
        }
        self.folder.checkpoints.save(self.at.step, self.state, progress)
        self._last_checkpoint = time.perf_counter()
        self.meter.pause(self._last_checkpoint - start)

    def save_last(self) -> None:
        """Write the model file of the current weights."""
        self._save(self.folder.last)

    def finish(self) -> tuple[Task, dict[str, dict[str, Any]]]:
        """Write the last model; returns the best one and its errors."""
        self.save_last()
        at = self.at
        if at.best_loss is None:
            at.best_step, at.best_epochs = at.step, self._epochs
            self._save(self.folder.best)
        limits = {
            "training.max_minutes": self.config.max_minutes,
            "training.max_minutes_in_all": self.config.max_minutes_in_all,
        }
        given = "".join(f" ({name}={minutes:g})" for name, minutes in limits.items() if minutes)
        self.reporter.say(
            f"finished after {at.step} steps: {self.times.in_words()}{given}; {self.compilations} programs compiled; "
            f"{'the model' if self.cautions else 'the best model'} is from step {at.best_step}: {self.folder.best}"
        )
        like = with_dtype(heads_of(self.task)[0], self.step.dtype)
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
            edge_budget=self.batching.edges,
            most_groups=self.batching.groups,
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
        if config.max_minutes is None and config.max_minutes_in_all is None:
            return duration(config, len(plan), None)
        step = measure(self.step, self.state, self.train, config, self.batching)
        edges = sum(planned.capacity.edges for planned in plan) / len(plan)
        self.expected.remember(seconds_per_edge=step / max(edges, 1.0))
        validation = 0.0
        if self.validator is not None:
            params = self.step.weights_to_keep(self.state)
            self._validated(params)  # compiles
            start = time.perf_counter()
            self.validator(params)
            validation = time.perf_counter() - start
        left = parallel.agreed(self._seconds_left(validation))
        possible = int(parallel.agreed(float(steps_within(left, Speed(step, validation), config, len(plan)))))
        fixed = duration(config, len(plan), possible)._replace(seconds=left)
        epochs = fixed.total_steps / len(plan)
        say(
            f"a step takes {step:.3g} s and a validation {validation:.3g} s: {fixed.total_steps} steps ({epochs:.3g} epochs) "
            f"in {left / 60:.3g} minutes; compilation took {self.compile_seconds:.3g} s"
        )
        if epochs < ENOUGH_EPOCHS:
            say(
                f"warning: that is less than one pass over the {len(self.train)} training structures; give more time "
                "(training.max_minutes), or a smaller model (model.preset=tiny) or data set (data.max_structures)"
            )
        return fixed

    def _seconds_left(self, validation: float) -> float:
        """Time for training and validation."""
        limits = [60 * self.config.max_minutes] if self.config.max_minutes else []
        if self.config.max_minutes_in_all:
            whole = 60 * self.config.max_minutes_in_all
            left = whole - (time.perf_counter() - self.started) - 2 * validation
            if left < (least := TRAINING_SHARE * whole):
                self.reporter.say(
                    f"compiling and measuring took {time.perf_counter() - self.started:.3g} s of the "
                    f"{self.config.max_minutes_in_all:g} minutes of training.max_minutes_in_all: training gets {least:.3g} s "
                    "all the same, so that the run takes longer"
                )
            limits.append(max(left, least))
        return min(limits)

    def _steps_to_check(self, count: int) -> list[int]:
        """Steps at which the length of the run is compared with its time limit, evenly among those that are left."""
        left = self.duration.total_steps - self.at.step
        if self.duration.seconds is None or left <= count:
            return []
        return [self.at.step + math.ceil(number * left / (count + 1)) for number in range(1, count + 1)]

    def _keep_time(self) -> None:
        """Correct the length of the run if the machine has become faster or slower, and store the new one."""
        self._checks = self._checks[1:]
        planned, at, seconds = self.duration, self.at, parallel.agreed(self.times.training)
        pace = (seconds - self._checked[1]) / max(at.step - self._checked[0], 1)
        self._checked = (at.step, seconds)
        self.duration = corrected(planned, self.config, at.step, seconds, pace)
        if self.duration.total_steps == planned.total_steps:
            return
        how = "slower" if self.duration.total_steps < planned.total_steps else "faster"
        self.reporter.say(
            f"step {at.step}: the machine has become {how}; {self.duration.total_steps} steps instead of {planned.total_steps} "
            f"keep to {self.duration.seconds / 60 if self.duration.seconds else 0:.3g} minutes"
        )
        self.reporter.update(at.step, total_steps=self.duration.total_steps)
        self._checks = self._steps_to_check(len(self._checks))
        self.checkpoint()

    def _stop_in_time(self) -> None:
        """End the run after the next step once its time is over, however slow the machine has become since the last check."""
        planned, at = self.duration, self.at
        if planned.seconds is None or planned.seconds < SHORTEST_CHECKED or jax.process_count() > 1:
            return
        if at.step + 1 < planned.total_steps and self.times.training > (1 + TOLERANCE) * planned.seconds:
            self.duration = planned._replace(total_steps=at.step + 1)
            self.reporter.say(f"step {at.step}: the time is over; {planned.total_steps - at.step - 1} steps are left out")

    @contextmanager
    def _compiling(self, what: str) -> Iterator[None]:
        """Announce the compilation of a training step, and remember its time; beside the first the validation is compiled."""
        start = time.perf_counter()
        beside = self.validator is not None and not self.validator.compilations and jax.process_count() == 1
        params = self.step.weights_to_keep(self.state) if beside else None
        with self.reporter.working(f"{what} and the validation" if beside else what, self.expected.pace.compile_seconds):
            if self.validator is not None and beside:
                # Compilers leave cores idle at times: both take less time together than one after the other.
                with ThreadPoolExecutor(1) as pool:
                    validation = pool.submit(self.validator.compile, params)
                    yield
                    validation.result()
            else:
                yield
        seconds = time.perf_counter() - start
        if seconds > LEAST_COMPILATION:  # a program from the cache says nothing
            self.expected.remember(compile_seconds=seconds)

    def _validated(self, params: Any) -> tuple[float, dict[str, dict[str, Any]]]:
        """Validate; the first time counts as compilation."""
        assert self.validator is not None
        if self.validator.compilations:
            return self.validator(params)
        start = time.perf_counter()
        with self.reporter.working("compiling the validation", self.expected.pace.compile_seconds * VALIDATION_COMPILATION):
            result = self.validator(params)
        self._validation_compile += time.perf_counter() - start
        return result

    def _praise(self) -> str:
        return " (kept)" if self.cautions else " (best so far)"

    def _weights(self) -> list[float]:
        fraction = self.at.step / max(self.duration.total_steps - 1, 1)
        return [_weight_at(term, fraction) for term in self.terms.values()]

    def _save(self, folder: Path) -> None:
        """Write the current model, of two heads one of each."""
        task, *old = heads_of(eqx.combine(self.step.weights_to_keep(self.state), self.step.static))
        about = self._about()
        for head in old:
            self.folder.save_old_head(folder, head, {**about, "validation": {}, "rules": {}})
        self.folder.save_model(folder, task, about)

    def _about(self) -> dict[str, Any]:
        errors = self.at.best_errors if self.at.best_step == self.at.step else {}
        rules = self.rules if errors else {}
        about = {"step": self.at.step, "total_steps": self.duration.total_steps, "epochs": self._epochs}
        return {**about, "validation": errors, "rules": rules}

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


def _weight_at(term: LossConfig, fraction: float) -> float:
    if term.final_weight is None:
        return term.weight
    return term.weight + min(fraction, 1.0) * (term.final_weight - term.weight)
