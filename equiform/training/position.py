"""Where a run is, and how long it has taken: what a checkpoint stores besides the arrays."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


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
        best_epochs: Passes over the training set at `best_step`.
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
    best_epochs: float = 0.0


class Times(NamedTuple):
    """Seconds over all parts of a run: training with validation, compilation, and in all."""

    training: float = 0.0
    compilation: float = 0.0
    total: float = 0.0

    def in_words(self) -> str:
        """As text, in minutes."""
        return (
            f"{self.training / 60:.2f} minutes of training, {self.compilation / 60:.2f} of compilation, "
            f"{self.total / 60:.2f} in all"
        )
