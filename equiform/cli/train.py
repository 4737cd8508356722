"""`equiform train`: from a data file or a recipe to a run folder."""

from difflib import get_close_matches
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

from equiform.cli.app import Interrupted, app, examples, print_table, say, silent, start_jax, warn
from equiform.errors import UserError


@app.command(
    epilog=examples(
        "equiform train data.xyz",
        "equiform train data.xyz training.max_minutes=30 model.preset=small",
        "equiform train data.xyz isolated_atoms.xyz    # several files, or a folder of them",
        "equiform train data.xyz data.test=hot.xyz data.energy_key=REF_energy",
        "equiform train recipe.yaml model.num_layers=4 -o runs/deeper",
        "equiform train ethanol                # a built-in recipe",
        "equiform train data.xyz from=runs/base-1 freeze=embedding",
        "equiform train data.xyz from=runs/base-1 adapters=4",
        "equiform train --resume runs/data-1   # resumes exactly where it stopped",
    )
)
def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Data files or folders (any ASE format), a recipe file (.yaml), or the name of a built-in recipe.",
            metavar="DATA|RECIPE",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further data files, and changes to the recipe, such as training.max_minutes=30.", metavar="[DATA|KEY=VALUE]"
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Run folder; default: runs/DATA-N.", metavar="RUN"),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Resume an interrupted run.", metavar="RUN")] = None,
    devices: Annotated[
        int | None,
        typer.Option("--devices", min=1, help="Number of local devices that share each batch; default: all.", metavar="N"),
    ] = None,
    processes: Annotated[
        str | None,
        typer.Option("--processes", help="Number of processes that train together, or 'auto' (SLURM, Open MPI).", metavar="N"),
    ] = None,
    process: Annotated[int | None, typer.Option("--process", min=0, help="Index of this process, from 0.", metavar="I")] = None,
    coordinator: Annotated[
        str | None, typer.Option("--coordinator", help="Address of process 0, reachable from all.", metavar="HOST:PORT")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print warnings and results only; log.txt in the run folder has it all.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every entry of the metrics log too.")] = False,
) -> None:
    """Train a potential and report its errors.

    Without a recipe everything is determined automatically: energies and forces in
    the file, units, reference energies, a split, and a model that suits the data and
    this machine. KEY=VALUE changes any of it; 'equiform recipe schema' lists the keys.
    """
    from equiform.jobs import train as job
    from equiform.report.html import error_rows
    from equiform.training import parallel
    from equiform.training.verdict import in_one_line

    changes = list(settings or [])
    if devices is not None:
        changes.append(f"training.devices={devices}")
    if resume is not None:
        changes = ([source] if source else []) + changes
        if output is not None or (source and "=" not in source):
            raise typer.BadParameter("--resume takes a run folder and no other source or output")
        folder = resume
    else:
        recipe = _read(source, changes, output)
        folder = Path(recipe.run.folder) if recipe.run.folder else _default_folder(recipe)
    start_jax()
    if processes is not None:
        if processes != "auto" and not processes.isdecimal():
            raise typer.BadParameter(f"--processes is a number or 'auto', not {processes!r}")
        parallel.start(None if processes == "auto" else int(processes), process, coordinator)
    printing: dict[str, Any] = {"say": silent if quiet else say, "warn": warn, "progress": not quiet, "verbose": verbose}
    try:
        if resume is not None:
            outcome = job.resume(folder, changes, **printing)
        else:
            outcome = job.train(recipe, folder, **printing)
    except KeyboardInterrupt as error:
        kept = (folder / "run.json").is_file()
        raise Interrupted(f"resume with: equiform train --resume {folder}" if kept else "nothing was saved") from error
    if outcome is None:  # Only the first process reports.
        return
    rows = [(row.data, row.quantity, row.mae, row.rmse, row.unit) for row in error_rows(outcome.errors)]
    say()
    print_table("", ("data", "quantity", "MAE", "RMSE", "unit"), rows, right=(2, 3))
    say()
    places = {"model": outcome.model, **outcome.plots, "report": outcome.report}
    print_table("", ("", ""), [(name, str(path)) for name, path in places.items()])
    quantities = {name for errors in outcome.errors.values() for name in errors}
    if quantities & {"energy", "energy_per_atom", "forces"}:
        say(f"try: equiform evaluate {folder} DATA   or   equiform md {folder} STRUCTURE --temperature 300")
    elif "trajectories" in outcome.plots:
        say(f"try: equiform analyze trajectory {folder}   or   equiform predict {folder} STATES.npz -o later.npz")
    if outcome.cautions:
        warn(in_one_line(outcome.cautions))


def _read(source: str | None, changes: list[str], output: str | None) -> Any:
    from equiform.recipes.schema import builtin_recipes, find_recipe, load_recipe

    base: dict[str, dict[str, Any]] = {} if output is None else {"run": {"folder": output}}
    files = [text for text in changes if _is_file(text)]
    changes = [text for text in changes if text not in files]
    if source is None:
        raise typer.BadParameter("name a data file or a recipe, such as: equiform train data.xyz")
    if "=" in source and not Path(source).exists():
        return load_recipe(None, [source, *changes], base)[0]
    if source.endswith((".yaml", ".yml")) or (source in builtin_recipes() and not Path(source).exists()):
        if files:
            raise typer.BadParameter(f"{source} is a recipe, which names its data; change them with data.train={files[0]}")
        return load_recipe(find_recipe(source), changes, base)[0]
    near = get_close_matches(source, builtin_recipes(), n=1, cutoff=0.75)
    if near and not glob(source):
        raise UserError(f"{source}: no such file or recipe; did you mean the recipe {near[0]}?")
    sources = [source, *files]
    instead = [text for text in changes if text.startswith("data.train=")]
    if instead:
        warn(f"{instead[-1]} wins: {', '.join(sources)} {'is' if len(sources) == 1 else 'are'} not read for training")
    return load_recipe(None, changes, {**base, "data": {"train": sources if files else source}})[0]


def _is_file(text: str) -> bool:
    """Whether an argument names data: `KEY=VALUE` does not, unless a file is called that."""
    return "=" not in text or Path(text).exists()


def _default_folder(recipe: Any) -> Path:
    from equiform.data.sets.config import SetConfig
    from equiform.training.run_folder import free_folder

    if isinstance(recipe.data, SetConfig):
        return free_folder("runs", "-".join(filter(None, (recipe.data.set, recipe.data.target, recipe.data.molecule))))
    first = recipe.data.train if isinstance(recipe.data.train, str) else recipe.data.train[0]
    stem = Path(first.partition("@")[0].removeprefix("equiform:")).stem
    name = "".join(c for c in stem if c.isalnum() or c in "-_.").strip(".") or "data"
    return free_folder("runs", name)
