"""The training loop, written out; resuming, the metrics log, checkpoints and the best model are in `session.py`.

A run is a pure function of its initial weights, the data, the configuration and the number of steps:
data order and dropout depend on (seed, step) alone. So a run that was interrupted at any moment and resumed
from its last checkpoint ends bitwise identical to one that was not (on one machine; on GPUs as far as their
kernels are deterministic, `XLA_FLAGS=--xla_gpu_deterministic_ops=true`).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from equiform.data.pipeline.batching import NO_LIMITS, Batching
from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.graph import Capacity
from equiform.tasks.api import Task
from equiform.training import parallel
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.evaluate import Program
from equiform.training.heads import heads_of
from equiform.training.position import Times
from equiform.training.progress import Reporter
from equiform.training.run_folder import RunFolder
from equiform.training.session import Session
from equiform.training.signals import StopRequest, TrainingInterrupted

IN_FLIGHT = 4
"""Steps dispatched before the host waits for the oldest: bounds memory, hides the host's work."""

STEPS_BETWEEN_QUESTIONS = 10


class FitResult(NamedTuple):
    """The result of a run.

    Attributes:
        task: The best model by validation loss (with EMA weights, if the EMA is on).
        best_step: The step it was saved at.
        best_loss: Its validation loss; None without a validation set.
        errors: Its validation errors by target.
        steps: Number of completed steps.
        total_steps: Number of planned steps.
        stopped_early: Whether patience ran out.
        compilations: Number of programs compiled in this session.
        compile_seconds: Time spent compiling the training step in this session.
        epochs: Passes over the training set that the best model has seen.
        times: Seconds of training, of compilation and in all, over all parts of the run.
        cautions: What must be said of the best model; empty if it is better than trivial rules.
        program: The validation's program, for evaluation; None without a validation set, and after training two heads.
    """

    task: Task
    best_step: int
    best_loss: float | None
    errors: dict[str, dict[str, Any]]
    steps: int
    total_steps: int
    stopped_early: bool
    compilations: int
    compile_seconds: float
    epochs: float
    times: Times
    cautions: list[str]
    program: Program | None


def fit(
    task: Task,
    train: Dataset,
    validation: Dataset | None,
    config: TrainingConfig,
    run: RunFolder,
    *,
    progress: bool = True,
    verbose: bool = False,
    log: Callable[[str], None] | None = None,
    resume: bool = False,
    batching: Batching = NO_LIMITS,
    least: Capacity | None = None,
    wandb: str | None = None,
) -> FitResult:
    """Train the model of a task.

    Args:
        task: The model to start from; its weights are not changed.
        train: Host graphs with label fields.
        validation: The same, for choosing the best model; if None or empty, the last model is the best.
        config: Training settings.
        run: Where checkpoints, metrics log and models go.
        progress: Whether to print messages and a progress bar on standard error.
        verbose: Whether to print every entry of the metrics log too.
        log: Called with every message, printed or not.
        resume: Resume from the last checkpoint of the run folder, or start if there is none yet.
        batching: How structures are put into batches.
        least: Capacity that evaluation batches are padded to where that is cheap.
        wandb: Project of Weights & Biases that the metrics also go to.

    Raises:
        UserError: No labels to train on, a non-finite loss, a full disk, another model's checkpoint.
        TrainingInterrupted: SIGTERM or Ctrl-C; a checkpoint was written.
    """
    with (
        jax.enable_x64(config.dtype == "float64"),
        run.locked(),
        StopRequest() as stop,
        Reporter(progress, verbose, log) as reporter,
    ):
        session = Session(task, train, validation, config, run, reporter, batching, least, wandb)
        try:
            session.begin(resume)
            _train(session, stop)
            best, errors = session.finish()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                if jax.process_count() > 1:
                    raise UserError(
                        "another process of the run has exited, so this one exits too; restart all of them with "
                        f"equiform train --resume RUN ({str(error).splitlines()[0][:150]})"
                    ) from error
                raise
            raise UserError(
                f"the device is out of memory; halve training.batch_size (it is {config.batch_size}) or "
                f"data.batch_edges (it is {batching.edges}), and start again"
            ) from error
        finally:
            session.close()
    at = session.at
    return FitResult(
        task=best,
        best_step=at.best_step,
        best_loss=at.best_loss,
        errors=errors,
        steps=at.step,
        total_steps=session.duration.total_steps,
        stopped_early=at.stopped_early,
        compilations=session.compilations,
        compile_seconds=session.step.compile_seconds,
        epochs=at.best_epochs,
        times=session.times,
        cautions=session.cautions,
        # A task with two heads is not the one that is returned.
        program=session.validator.program if session.validator and len(heads_of(task)) == 1 else None,
    )


def _train(session: Session, stop: StopRequest) -> None:
    """The training loop."""
    config, at, batching = session.config, session.at, session.batching
    several = jax.process_count() > 1
    in_flight: deque[jax.Array] = deque()
    with BatchStream(
        session.train,
        batch_size=config.batch_size,
        edge_budget=batching.edges,
        most_groups=batching.groups,
        seed=config.seed,
        epoch=at.epoch,
        position=at.position,
        dtype=config.dtype,
        mesh=session.step.mesh,
        rotate=config.random_rotations,
    ) as stream:
        while at.step < session.duration.total_steps and not at.stopped_early:
            batch = next(stream)
            in_flight.append(session.advance(batch))
            if len(in_flight) > IN_FLIGHT:
                in_flight.popleft().block_until_ready()
            done = at.step == session.duration.total_steps
            if at.step % config.log_every == 0 or done:
                session.log_training()
            if at.step % session.duration.validate_every == 0 or done:
                session.validate()
            stopping = stop.received is not None
            if several:  # All processes must stop at the same step; agreeing on it is a collective operation.
                stopping = at.step % STEPS_BETWEEN_QUESTIONS == 0 and parallel.anywhere(stopping)
            if done or at.stopped_early or stopping or session.checkpoint_is_due():
                session.checkpoint()
            if stopping and not done:
                session.save_last()
                signal = stop.received.name if stop.received is not None else "a signal to another process"
                reached = f"stopped by {signal} after step {at.step} of {session.duration.total_steps}; everything is saved"
                raise TrainingInterrupted(reached, session.folder.path, stop.exit_code)
