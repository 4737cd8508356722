"""`equiform demo`: the whole workflow, on the shipped data."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import USER_ERROR, Interrupted, app, examples, print_table, progress_bar, say, start_jax, warn


@app.command(epilog=examples("equiform demo", "equiform demo -o my_demo"))
def demo(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder; default: runs/ethanol-N.")] = None,
) -> None:
    """Train on the shipped ethanol data, evaluate, simulate 10 ps, report: ten minutes on two cores."""
    from equiform.jobs.demo import run
    from equiform.report.html import error_rows
    from equiform.training.run_folder import free_folder

    start_jax()
    folder = output or free_folder("runs", "ethanol")
    try:
        outcome = run(folder, say=say, warn=warn, bar=progress_bar)
    except KeyboardInterrupt as error:
        raise Interrupted("start again with: equiform demo") from error
    rows = [(row.data, row.quantity, row.mae, row.rmse, row.unit) for row in error_rows(outcome.training.errors)]
    say()
    print_table("", ("data", "quantity", "MAE", "RMSE", "unit"), rows, right=(2, 3))
    say()
    checks = [(name, measured, target, "met" if met else "NOT MET") for name, measured, target, met in outcome.targets]
    print_table("", ("check", "measured", "target", ""), checks, right=(1, 2))
    say()
    say(f"report: {outcome.training.report}")
    say(f"model:  {outcome.training.model}")
    if not all(met for *_, met in outcome.targets):
        raise typer.Exit(USER_ERROR)
