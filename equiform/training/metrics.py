"""The record of a run: `metrics.jsonl`, one JSON object per line, and the same numbers for TensorBoard.

Keys of a line: `kind` ("train", "validation" or "event"), `step`, `epoch`, then numbers. What depends on the
clock is under `timing`, so that two runs that computed the same wrote the same up to `timing`. A number that
is not finite is written as null.
"""

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from equiform.runtime.files import explained

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends to the record of a run.

    Args:
        folder: The run folder.
        keep_bytes: Length of the record that is kept; later lines come from steps that will be done again.
            None starts a new one.
        step: Steps done when the record goes on.
    """

    def __init__(self, folder: Path, keep_bytes: int | None = None, step: int = 0):
        self._advice = "free some space or mend the permissions, and resume"
        self._path = folder / METRICS_FILE
        with explained("cannot write the metrics", self._advice):
            # A record that is gone or shorter than it was is no reason to lose the run.
            keep = min(keep_bytes or 0, self._path.stat().st_size if self._path.exists() else 0)
            self._file = open(self._path, "r+b" if keep else "wb")  # noqa: SIM115
            self._file.truncate(keep)
            self._file.seek(keep)
            self._board = _TensorBoard(folder / TENSORBOARD_FOLDER, None if keep_bytes is None else step + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            UserError: The disk refuses.
        """
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"
        with explained("cannot write the metrics", self._advice):
            self._file.write(line.encode())
            self._file.flush()
            self._board.write(record)

    def sync(self) -> int:
        """Force the record to the disk; its length in bytes, for a checkpoint."""
        with explained("cannot write the metrics", self._advice):
            self._board.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the files; what the disk does not take any more is left out (a checkpoint has been told)."""
        for file in (self._board, self._file):
            with suppress(OSError):
                file.close()


class _TensorBoard:
    """One event file, written where it is called.

    Differs: tensorboardX's `SummaryWriter` writes from a thread; once the disk is full that thread is dead
        and the
    next call waits for it for ever.
    """

    def __init__(self, folder: Path, purge_step: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        folder.mkdir(exist_ok=True)
        # The classes are made at run time; a type checker cannot see them.
        self._events: Any = event_pb2
        self._summaries: Any = summary_pb2
        # Two sessions may begin within one second, the resolution of the name.
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


def in_millis(unit: str) -> tuple[float, str]:
    """Factor and unit in which an error is shown: electronvolts as millielectronvolts, the size that people quote."""
    return (1e3, f"m{unit}") if unit.startswith("eV") else (1.0, unit)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's record; an incomplete last one (the run was killed) is left out."""
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
