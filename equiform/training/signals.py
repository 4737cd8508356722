"""Graceful stop: SIGTERM and Ctrl-C end the run after the current step."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from equiform.errors import UserError


class TrainingInterrupted(UserError):
    """The run was asked to stop and wrote a checkpoint. The command line exits with `exit_code`.

    Attributes:
        reached: How far the run got, as text.
        folder: The run folder.
        exit_code: 128 + the signal number, as shells report it.
    """

    def __init__(self, reached: str, folder: Path, exit_code: int, command: str = "equiform train"):
        super().__init__(f"{reached}, resume with: {command} --resume {folder}")
        self.reached, self.folder, self.exit_code = reached, folder, exit_code


class StopRequest:
    """Context manager that notes SIGTERM and SIGINT in `received` (a second one acts as usual).

    Signal handlers belong to the main thread; in another thread nothing is installed and `received` stays None.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    @property
    def exit_code(self) -> int:
        """128 + the signal number, as shells report it."""
        return 128 + int(self.received or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
