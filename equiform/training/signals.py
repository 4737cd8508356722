"""Stopping politely: SIGTERM and Ctrl-C end the run after the step that is being computed."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from equiform.errors import UserError


class TrainingInterrupted(UserError):
    """The run was asked to stop; a checkpoint was written. The command line exits with `exit_code`.

    Attributes:
        reached: How far the run came.
        folder: Of the run.
        exit_code: As shells report the signal.
    """

    def __init__(self, reached: str, folder: Path, exit_code: int, command: str = "equiform train"):
        super().__init__(f"{reached}, go on with: {command} --resume {folder}")
        self.reached, self.folder, self.exit_code = reached, folder, exit_code


class StopRequest:
    """While it is entered, SIGTERM and SIGINT are noted in `received` (a second one acts as usual).

    Handlers belong to the main thread; elsewhere nothing is installed and `received` stays None.
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
        """128 + the number of the signal, as shells report it."""
        return 128 + int(self.received or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
