"""`equiform engines`, `equiform lammps`, `equiform socket`: a model inside other simulation programs."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import USER_ERROR, app, examples, print_json, print_table, say, start_jax
from equiform.cli.predict import Dtype, Model
from equiform.cli.reading import Settings, Types, how_to_read, read_for


@app.command(
    epilog=examples(
        "equiform lammps runs/data-1 in.lmp --types Si,O",
        "equiform lammps runs/data-1 in.lmp --types Si,O --var T=300 --var STEPS=1000",
        "mpiexec -n 2 equiform lammps runs/data-1 in.lmp --types Si,O   # beside pair styles that gain from it",
    )
)
def lammps(
    model: Model,
    script: Annotated[Path, typer.Argument(help="Input script with a line fix equiform all external pf/callback 1 1.")],
    types: Annotated[
        str | None, typer.Option(help="Element of each atom type, from 1 on: Si,O. As the labelmap says if not given.")
    ] = None,
    variable: Annotated[list[str] | None, typer.Option("--var", help="A variable of the script, NAME=VALUE.")] = None,
    log: Annotated[str, typer.Option(help="LAMMPS' log file.")] = "log.lammps",
    dtype: Dtype = "float64",
) -> None:
    """Run an input script of LAMMPS with a model."""
    from equiform.deploy.lammps_input import run_input
    from equiform.deploy.predictor import Predictor, load
    from equiform.persist.find import find_model

    variables = {}
    for text in variable or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--var {text}: write NAME=VALUE")
        variables[name] = value

    def loaded() -> Predictor:
        start_jax()
        return load(find_model(model), dtype=dtype)

    run_input(script, loaded, types=types, variables=variables, log=log)


@app.command(
    epilog=examples(
        "equiform socket runs/data-1 start.xyz --unix equiform",
        "equiform socket runs/data-1 start.xyz --host node7 --port 31415",
    )
)
def socket(
    model: Model,
    structure: Annotated[Path, typer.Argument(help="The atoms, in the server's order.", metavar="STRUCTURE")],
    settings: Settings = None,
    types: Types = None,
    unix: Annotated[str | None, typer.Option(help="Name of a UNIX socket, /tmp/ipi_NAME.")] = None,
    host: Annotated[str, typer.Option(help="The server's machine.")] = "localhost",
    port: Annotated[int, typer.Option(help="The server's port.")] = 31415,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the server.")] = 60.0,
    dtype: Dtype = "float64",
) -> None:
    """Be the force provider of i-PI, or of ASE's SocketIOCalculator, until it ends."""
    from equiform.deploy.predictor import load
    from equiform.deploy.sockets import drive
    from equiform.persist.find import find_model

    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    atoms = read_for(predictor, structure, how_to_read(structure, settings, types), 0).structures[0]
    calls = drive(predictor, atoms, unix=unix, host=host, port=port, patience=patience)
    say(f"{calls} evaluations")


@app.command(epilog=examples("equiform engines", "equiform engines --json"))
def engines(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """List the simulation programs that a model runs in: installed, working, and how to install the others."""
    from equiform.deploy.engines import ENGINES, state_of

    states = [state_of(engine) for engine in ENGINES]
    if as_json:
        print_json(
            {
                state.engine.name: {
                    "version": state.version,
                    "works": state.works,
                    "problem": state.problem,
                    "install": state.engine.pip,
                    "use": state.engine.use,
                }
                for state in states
            }
        )
    else:
        rows = []
        for state in states:
            how = state.engine.use if state.works else state.problem or state.engine.pip
            word = "works" if state.works else "does not work" if state.version else "not installed"
            rows.append((state.engine.name, state.version or "", word, how))
        print_table("", ("engine", "version", "", "use, or what is missing"), rows)
    if any(state.problem for state in states):
        raise typer.Exit(USER_ERROR)
