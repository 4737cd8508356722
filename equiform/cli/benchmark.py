"""`equiform benchmark`: the speed of Equiform on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_table, progress_bar, say


@app.command(
    epilog=examples(
        "equiform benchmark",
        "equiform benchmark qm9 md17-l2 --json speed.json",
        "equiform benchmark all --plot runs/benchmark --repeats 10",
        "equiform benchmark crystal-10000",
        "equiform benchmark --scaling --plot runs/benchmark",
    )
)
def benchmark(
    cases: Annotated[list[str] | None, typer.Argument(help="Cases, or all; default: the quick ones.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results as JSON.", metavar="FILE")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write figures.", metavar="FOLDER")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Number of timed calls after the first.")] = 5,
    inputs: Annotated[
        Path | None,
        typer.Option("--inputs", help="Folder with bench_inputs_qm9_32.npz and bench_inputs_aspirin8.npz.", exists=True),
    ] = None,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling", help="Scaling with structures, atoms, edges, degree and channels; alone if no CASES are given."
        ),
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="List the cases.")] = False,
) -> None:
    """Measure the speed of Equiform on this machine, relative to the machine's peak rates, in single precision.

    Nothing else should be running. The weights are random: they do not affect the speed.
    """
    from equiform.benchmark import cases as suite, report, rows as table

    if list_only:
        rows = [(name, "yes" if case.quick else "", case.about) for name, case in suite.CASES.items()]
        print_table("", ("case", "by default", "measures"), rows)
        return
    chosen = suite.choose(list(cases or [])) if cases or not scaling else []
    if json_file is not None:
        report.check_writable(json_file)
    measured: list[table.Row] = []
    done: list[str] = []
    with progress_bar("measuring") as advance:
        settings = suite.Settings(repeats, inputs, lambda line: advance(len(done), len(chosen), line))
        machine, roofs = report.describe_machine()
        for line in report.machine_lines(machine, roofs):
            say(line)
        for name in chosen:
            measured += suite.CASES[name].run(settings)
            done.append(name)
            report.write(json_file, None, machine, roofs, measured, [])  # results so far survive a later failure
        points = report.scaling_points(settings) if scaling else []
    if as_markdown:
        say(
            "\n\n".join(
                part
                for part in (table.markdown(measured) if measured else "", report.scaling_markdown(points) if points else "")
                if part
            )
        )
    elif measured:
        print_table("", table.COLUMNS, [table.cells(row) for row in measured], right=table.RIGHT)
    for line in () if as_markdown else report.scaling_lines(points):
        say(line)
    for line in report.EXPLANATION if measured else ():
        say(line)
    for path in report.write(json_file, plot, machine, roofs, measured, points):
        say(f"written: {path}")
