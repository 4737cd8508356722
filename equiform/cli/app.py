"""The application, helpers shared by the commands, and the conversion of exceptions to one line and an exit status."""

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from equiform.errors import UserError

USER_ERROR, BUG, INTERRUPTED = 1, 70, 130

EVERYWHERE = ("--debug", "--no-cache")
"""Options of the application that are also accepted after the name of a command."""

COMMANDS = ["train", "evaluate", "predict", "md", "relax", "label", "models", "info", "recipe", "table", "data", "analyze"]
COMMANDS += ["uncertainty", "committee", "select", "doctor", "demo", "convert", "export-official", "benchmark", "lattice"]
COMMANDS += ["lammps", "socket", "engines"]
"""Commands in the order of the help text."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a hint on how to resume."""


class Application(TyperGroup):
    """Turns exceptions into one line on stderr and an exit status."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options, rest = [], list(args)
        for option in EVERYWHERE:
            before, stop = (rest, []) if "--" not in rest else _split(rest, "--")
            if option in before:
                options.append(option)
            rest = [arg for arg in before if arg != option] + stop
        return super().parse_args(ctx, options + rest)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=COMMANDS.index)

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except UserError as error:
            # The error of an interrupted training run carries its own hint and exit code.
            status = getattr(error, "exit_code", USER_ERROR)
            raise _ended(f"error: {error}" if status == USER_ERROR else str(error), status) from error
        except KeyboardInterrupt as error:
            hint = f"; {error}" if isinstance(error, Interrupted) else ""
            raise _ended(f"interrupted{hint}", INTERRUPTED) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise _ended(f"error: {where}{error.strerror or error}", USER_ERROR) from error
        except MemoryError as error:
            raise _ended(f"error: out of memory ({_first_line(error)}); use a smaller batch", USER_ERROR) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            if "RESOURCE_EXHAUSTED" in str(error):
                line = "error: the device is out of memory; use a smaller batch (--batch-size)"
                raise _ended(line, USER_ERROR) from error
            line = f"error: {type(error).__name__}: {_first_line(error)} (this is a bug, run with --debug)"
            raise _ended(line, BUG) from error


app = typer.Typer(
    cls=Application,
    name="equiform",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  equiform train data.xyz   or   equiform demo",
)


def _version(requested: bool) -> bool:
    if requested:
        from equiform import __version__

        typer.echo(f"equiform {__version__}")
        raise typer.Exit
    return requested


@app.callback()
def _application(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do not use the cache of compiled programs.")] = False,
) -> None:
    """Equivariant transformers for atoms, molecules and materials: train, evaluate, simulate."""
    _settings["cache"] = not no_cache


_settings = {"cache": False}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; raises SystemExit with the exit status."""
    # On CPUs with slow gathers XLA reports, at length and for each program it loads from the cache, that
    # "prefer-no-gather" is not an instruction set; the program was compiled here and runs (openxla/xla issue 44565). XLA
    # reads this variable when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        # In a log file, lines of both streams keep their order; a terminal without Å or ≤ shows a question mark.
        reconfigure = getattr(stream, "reconfigure", lambda **_: None)
        reconfigure(line_buffering=True, errors="replace")
    app(args=list(arguments) if arguments is not None else None, prog_name="equiform")


def start_jax() -> None:
    """Enable the compilation cache in the user's cache folder; called by commands that compute."""
    if _settings["cache"]:
        from equiform.runtime.cache import enable_compilation_cache

        enable_compilation_cache()


def examples(*lines: str) -> str:
    """The examples at the end of a help text."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(line.replace("[", "\\[") for line in lines)


def say(text: str = "", *, error: bool = False) -> None:
    """Print a line of text as it is, without markup or wrapping."""
    typer.echo(text, err=error)


def silent(text: str = "") -> None:
    """Print nothing, in place of `say`."""


def warn(text: str) -> None:
    """Print a warning on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {text}", style="yellow", markup=False)


def print_json(value: Any) -> None:
    """Print one line of JSON on stdout; NaN, which JSON does not have, becomes null."""
    typer.echo(json.dumps(_without_nan(value), ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table on stdout, as wide as it needs to be."""
    named = any(columns)
    table = Table(title=title or None, box=None, pad_edge=False, show_header=named, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, width=1000).print(table)


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Any]:
    """A progress bar on stderr, if that is a terminal; yields a function `advance(done, total, note="")`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=1, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield advance


def _ended(line: str, status: int) -> typer.Exit:
    # Written as it is: the message may be wider than the terminal and contain brackets that are not markup.
    print(line, file=sys.stderr)
    return typer.Exit(status)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _split(arguments: list[str], mark: str) -> tuple[list[str], list[str]]:
    index = arguments.index(mark)
    return arguments[:index], arguments[index:]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and value != value else value
