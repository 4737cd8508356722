"""What training prints and logs: messages, a live line while something is compiled, a progress bar with ETA and throughput."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from equiform.training.metrics import in_millis


class Reporter:
    """Prints messages on standard error; in a terminal it also draws a progress bar.

    Args:
        enabled: Whether to print anything at all.
        verbose: Whether to print every entry of the metrics log too.
        log: Called with every line, printed or not.
    """

    def __init__(self, enabled: bool, verbose: bool = False, log: Callable[[str], None] | None = None):
        self._enabled, self._verbose, self._log = enabled, verbose, log
        self._bar: Any = None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._keep(text)
        if self._enabled:
            self._console().print(text, highlight=False, markup=False, soft_wrap=True)

    def detail(self, text: str) -> None:
        """Log one line, and print it if all details are wanted."""
        self._keep(text)
        if self._enabled and self._verbose:
            self._console().print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def working(self, what: str, expected: float | None = None) -> Iterator[None]:
        """Announce work that takes a while; in a terminal a line shows the seconds elapsed and expected.

        Args:
            what: The work, such as "compiling the training step".
            expected: How long it is expected to take, seconds.
        """
        about = "" if expected is None else f", expected to take about {expected:.0f} s"
        if not (self._enabled and self._console().is_terminal) or self._bar is not None:
            self.say(f"{what} ...{about}")
            yield
            return
        from rich import progress

        self._keep(f"{what} ...{about}")
        columns = (progress.SpinnerColumn(), progress.TextColumn("{task.description}"), _elapsed(expected))
        with progress.Progress(*columns, console=self._console(), transient=True, refresh_per_second=4) as line:
            line.add_task(what, total=None)
            yield

    def start(self, step: int, total_steps: int) -> None:
        """Draw the bar."""
        if not self._enabled or not self._console().is_terminal:
            return
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("ETA"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console(),
            refresh_per_second=2,
        )
        self._task = self._bar.add_task("training", total=total_steps, completed=step, rate="")
        self._bar.start()

    def update(self, step: int, rate: str | None = None, total_steps: int | None = None) -> None:
        """Update the bar.

        Args:
            step: Number of completed steps.
            rate: The throughput as text; None leaves it unchanged.
            total_steps: The length of the run; None leaves it unchanged.
        """
        if self._bar is not None:
            fields: dict[str, Any] = {} if rate is None else {"rate": rate}
            self._bar.update(self._task, completed=step, total=total_steps, **fields)

    def _keep(self, text: str) -> None:
        if self._log is not None:
            self._log(text)

    def _console(self) -> Any:
        if not hasattr(self, "_shared_console"):
            from rich.console import Console

            self._shared_console = Console(stderr=True)
        return self._shared_console


def _elapsed(expected: float | None) -> Any:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Elapsed(ProgressColumn):
        """Seconds elapsed and expected."""

        def render(self, task: Task) -> Text:
            of = "" if expected is None else f" of about {expected:.0f}"
            return Text(f"{task.elapsed or 0:.0f}{of} s")

    return Elapsed()


class Meter:
    """Training throughput since the last reading, excluding pauses."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._structures = self._atoms = self._steps = 0

    def add(self, structures: int, atoms: int) -> None:
        """Count a step."""
        self._structures, self._atoms, self._steps = (
            self._structures + structures,
            self._atoms + atoms,
            self._steps + 1,
        )

    def pause(self, seconds: float) -> None:
        """Exclude this much time (compilation, validation, checkpoints)."""
        self._start += seconds

    def read(self) -> dict[str, float]:
        """Seconds per step, structures and atoms per second; resets the meter."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        result = {
            "seconds_per_step": seconds / max(self._steps, 1),
            "structures_per_second": self._structures / seconds,
            "atoms_per_second": self._atoms / seconds,
        }
        self.__init__()
        return result


def errors_in_words(errors: dict[str, dict[str, Any]]) -> str:
    """Mean absolute errors with their units, such as `energy 3.1 meV/atom, forces 42 meV/Å`."""
    parts = []
    for name, values in errors.items():
        if values["mae"] is not None:
            factor, unit = in_millis(values["unit"])
            parts.append(f"{name.removesuffix('_per_atom')} {factor * values['mae']:.3g} {unit}".rstrip())
    return ", ".join(parts)
