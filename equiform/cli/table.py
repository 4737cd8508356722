"""`equiform recipe run` and `equiform table`: reproduce entries of published tables, and assemble the tables."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import Interrupted, app, examples, print_json, print_table, progress_bar, say, start_jax, warn
from equiform.cli.inspect import recipes

_RUN = "equiform recipe run"


@recipes.command(
    "run",
    epilog=examples(
        "equiform recipe run qm9-alpha --scaled",
        "equiform recipe run md17-ethanol-l2 -o runs/ethanol",
        "equiform recipe run rmd17-aspirin-l2 --scaled --seed 2 --from DATA_FOLDER",
        "equiform recipe run slmc-double-exchange --scaled -o runs/slmc",
        "equiform recipe run rays-occupancy --scaled",
        "equiform recipe run --resume runs/ethanol",
    ),
)
def run_recipe(
    name: Annotated[str | None, typer.Argument(help="A recipe of a table entry or a study; see equiform recipe list.")] = None,
    settings: Annotated[list[str] | None, typer.Argument(help="Further changes.", metavar="KEY=VALUE")] = None,
    scaled: Annotated[bool, typer.Option("--scaled", help="The form for a small machine; prints what is scaled.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder; default: runs/NAME-N.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the published files.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of weights, dropout and data order.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Resume an interrupted run.", metavar="RUN")] = None,
) -> None:
    """Reproduce an entry of a published table (get the data, train, test, print both values), or run a study.

    The checkpoint is selected on the validation set; the test set is evaluated once, at the end.
    """
    from equiform.papers.studies import STUDIES, is_study

    if name is not None and resume is not None:
        raise typer.BadParameter("--resume takes a run folder and no recipe")
    if name in STUDIES or (resume is not None and is_study(resume)):
        _run_study(name, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])], scaled, output, source, resume)
        return

    from equiform.jobs import train as job
    from equiform.papers import run
    from equiform.recipes.schema import load_recipe
    from equiform.training.run_folder import free_folder
    from equiform.training.signals import TrainingInterrupted

    start_jax()
    clock = run.Clock()
    folder = resume
    try:
        if resume is not None:
            outcome = job.resume(resume, list(settings or []), say=say, warn=warn)
        else:
            if name is None:
                raise typer.BadParameter("name a recipe, such as: equiform recipe run qm9-alpha --scaled")
            changes = [*(settings or [])]
            changes += [f"training.seed={seed}"] if seed is not None else []
            changes += [f"data.folder={source.absolute()}"] if source is not None else []
            recipe = run.read_entry(name, changes, scaled=scaled, folder=output)
            folder = output or free_folder("runs", Path(name).stem)
            for line in run.plan(recipe):
                say(line)
            _fetch_if_missing(recipe)
            outcome = job.train(recipe, folder, say=say, warn=warn)
    except KeyboardInterrupt as error:
        kept = folder is not None and (folder / "run.json").is_file()
        raise Interrupted(f"resume with: {_RUN} --resume {folder}" if kept else "nothing was saved") from error
    except TrainingInterrupted as error:
        run.note_time(error.folder, clock.seconds)
        raise TrainingInterrupted(error.reached, error.folder, error.exit_code, _RUN) from error
    assert outcome is not None  # None only in the other processes of a multi-process run; here there is one process
    result = run.conclude(outcome, load_recipe(outcome.folder / "recipe.yaml")[0], clock.seconds)
    say()
    print_table("", ("entry", "ours", "published", "unit", "protocol"), run.rows(result), right=(1, 2))
    say(run.progress_in_words(result))
    say(f"source of the published value: {result.source}")
    say(f"seed {result.seed}, {result.device}, {result.minutes:.1f} minutes; saved in {outcome.folder}")


@app.command(
    epilog=examples(
        "equiform table qm9 runs/qm9-alpha-1 runs/qm9-gap-1", "equiform table md17 runs/md17-* --markdown --curves md17.png"
    ),
)
def table(
    name: Annotated[str, typer.Argument(help="qm9, md17, rmd17, oc20, nbody or polymers.")],
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of equiform recipe run.", metavar="RUNS")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
    curves: Annotated[Path | None, typer.Option(help="Also plot the runs' validation errors to this PNG file.")] = None,
) -> None:
    """Assemble runs into the paper's table, with the published rows; runs that differ only in the seed give mean ± std."""
    from equiform.errors import UserError, suggest
    from equiform.papers.tables import TABLES, assemble, markdown

    if name not in TABLES:
        raise UserError(f"there is no table {name!r}{suggest(name, TABLES)}; available: {', '.join(TABLES)}")
    paper, rows = assemble(name, runs or [])
    if curves is not None:
        from equiform.papers.curves import draw_curves

        draw_curves(runs or [], curves)
    if as_json:
        print_json({"title": paper.title, "columns": paper.columns, "rows": [row._asdict() for row in rows]})
        return
    if as_markdown:
        say(markdown(paper, rows))
        return
    keys = [key for key in paper.columns if any(key in row.cells for row in rows)]
    cells = [(row.method, *(row.cells.get(key, "") for key in keys)) for row in rows]
    print_table(paper.title, ("method", *(paper.columns[key] for key in keys)), cells, right=range(1, len(keys) + 1))
    for row in rows:
        if row.note:
            say(f"{row.method}: {row.note}")
    say(f"published rows: {paper.source}")


def _run_study(
    name: str | None, changes: list[str], scaled: bool, output: Path | None, source: Path | None, resume: Path | None
) -> None:
    """Run or resume a study; its report goes to the terminal and to its folder."""
    from equiform.papers import studies
    from equiform.training.run_folder import free_folder

    if source is not None:
        raise typer.BadParameter("--from is for recipes of published data sets; this study makes its own data")
    if resume is not None:
        planned = studies.resume(resume, changes)
    else:
        assert name is not None  # a study or a folder of one was named
        planned = studies.plan(name, changes, output or free_folder("runs", name), scaled=scaled)
    for line in studies.describe(planned):
        say(line)
    start_jax()
    try:
        with progress_bar(planned.name) as advance:
            report = studies.run(planned, advance)
    except KeyboardInterrupt as error:
        raise Interrupted(f"resume with: {_RUN} --resume {planned.folder}") from error
    say()
    say(report)
    say(f"saved in {planned.folder}")


def _fetch_if_missing(recipe: object) -> None:
    """Download the published files that a recipe needs, unless they, or a store made from them, exist locally."""
    from equiform.cli.datasets import fetch_with_bar
    from equiform.data.sets import catalogue
    from equiform.data.sets.config import SetConfig

    config = getattr(recipe, "data", None)
    if not isinstance(config, SetConfig) or config.folder is not None or config.set.startswith(("nbody-", "polymers")):
        return  # An N-body set is generated by the run itself, and polymers are not published.
    part = config.molecule
    if config.set == "oc20-is2re":
        part = "sample" if config.split == "systems" else "train" if config.part == "all" else f"train-{config.part}"
    if not catalogue.is_here(config.set, part) and part != "sample":
        fetch_with_bar(config.set, part, None)
