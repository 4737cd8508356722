"""The metrics log of a run: `metrics.jsonl`, one JSON object per line, and the same values for TensorBoard.

Keys of an entry: `kind` ("train", "validation" or "event"), `step`, `epoch`, then numbers. Clock-dependent
values are under `timing`, so that two runs that computed the same wrote the same log up to `timing`. A
non-finite number is written as null.
"""

import hashlib
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from equiform.errors import UserError
from equiform.runtime.files import explained

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends to the metrics log of a run.

    Args:
        folder: The run folder.
        keep_bytes: Length to truncate the log to; later entries come from steps that will be repeated.
            None starts a new log.
        step: Number of completed steps when the log is resumed.
        wandb: Project of Weights & Biases that the entries also go to; None: none.

    Raises:
        UserError: The file cannot be written, or Weights & Biases is not installed.
    """

    def __init__(self, folder: Path, keep_bytes: int | None = None, step: int = 0, wandb: str | None = None):
        self._advice = "free some space or fix the permissions, and resume"
        self._path = folder / METRICS_FILE
        self._online = None if wandb is None else _WeightsAndBiases(wandb, folder)
        with explained("cannot write the metrics", self._advice):
            # A log that is missing or shorter than expected is no reason to abort the run.
            keep = min(keep_bytes or 0, self._path.stat().st_size if self._path.exists() else 0)
            self._file = open(self._path, "r+b" if keep else "wb")  # noqa: SIM115
            self._file.truncate(keep)
            self._file.seek(keep)
            self._board = _TensorBoard(folder / TENSORBOARD_FOLDER, None if keep_bytes is None else step + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one entry.

        Raises:
            UserError: The file cannot be written.
        """
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        with explained("cannot write the metrics", self._advice):
            self._file.write(line.encode())
            self._file.flush()
            self._board.write(record)
        if self._online is not None:
            self._online.write(record)

    def sync(self) -> int:
        """Sync the log to disk and return its length in bytes, for a checkpoint."""
        with explained("cannot write the metrics", self._advice):
            self._board.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the files; write errors are ignored here, as `sync` has already reported them."""
        if self._online is not None:
            self._online.close()
        for file in (self._board, self._file):
            with suppress(OSError):
                file.close()


class _TensorBoard:
    """One event file, written synchronously.

    Differs: tensorboardX's `SummaryWriter` writes from a thread; once the disk is full that thread is dead
        and the next call hangs.
    """

    def __init__(self, folder: Path, purge_step: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        folder.mkdir(exist_ok=True)
        # The classes are generated at run time; a type checker cannot see them.
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        # Two sessions may start within one second, the resolution of the file name.
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{time.time_ns()}")
        if purge_step is not None:
            self._add(step=purge_step, session_log=self._events.SessionLog(status=self._events.SessionLog.START))

    def write(self, record: dict[str, Any]) -> None:
        numbers = {**record, **record.get("timing", {})}
        values = [
            self._summaries.Summary.Value(tag=f"{record['kind']}/{name}", simple_value=value)
            for name, value in numbers.items()
            if isinstance(value, float) and name != "epoch"
        ]
        self._add(step=record["step"], summary=self._summaries.Summary(value=values))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.write_event(self._events.Event(wall_time=time.time(), **content))


class _WeightsAndBiases:
    """A run of Weights & Biases, named after the run folder; a resumed run continues it."""

    def __init__(self, project: str, folder: Path):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError("run.wandb needs Weights & Biases: pip install 'equiform[wandb]'") from error
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self._run: Any = wandb.init(project=project, name=folder.name, id=name, dir=str(folder), resume="allow")

    def write(self, record: dict[str, Any]) -> None:
        numbers = {**record, **record.get("timing", {})}
        values = {f"{record['kind']}/{name}": value for name, value in numbers.items() if isinstance(value, float)}
        self._run.log(values, step=record["step"])

    def close(self) -> None:
        self._run.finish()


def in_millis(unit: str) -> tuple[float, str]:
    """Factor and unit in which an error is shown: electronvolts as millielectronvolts, as is customary."""
    return (1e3, f"m{unit}") if unit.startswith("eV") else (1.0, unit)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics log; an incomplete last one (the run was killed) is dropped."""
    path = Path(folder) / METRICS_FILE
    with explained(f"cannot read {path}", "is this a run folder?"):
        lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines) - 1:
                raise
    return records


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
