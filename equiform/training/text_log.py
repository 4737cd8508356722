"""The text log of a run: every line that was printed, with the time of day."""

from datetime import datetime
from pathlib import Path

from equiform.runtime.files import explained

LOG_FILE = "log.txt"


class TextLog:
    """Collects lines, and appends them to `log.txt` as soon as there is a run folder."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._waiting: list[str] = []

    def open(self, folder: Path) -> None:
        """Write what was collected into the folder, and all later lines."""
        self._path = folder / LOG_FILE
        self._write(self._waiting)
        self._waiting = []

    def __call__(self, text: str) -> None:
        """Add a line.

        Raises:
            UserError: The file cannot be written.
        """
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n"
        if self._path is None:
            self._waiting.append(line)
        else:
            self._write([line])

    def _write(self, lines: list[str]) -> None:
        if self._path is None or not lines:
            return
        with (
            explained("cannot write the text log", "free some space or fix the permissions, and resume"),
            self._path.open("a", encoding="utf-8") as file,
        ):
            file.writelines(lines)
