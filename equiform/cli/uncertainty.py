"""`equiform uncertainty`, `equiform committee`, `equiform select`: when is a model wrong, and what should be labelled next."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_json, progress_bar, say, silent, start_jax
from equiform.cli.judged import print_judged
from equiform.cli.predict import Dtype, Model
from equiform.cli.reading import Settings, how_to_read, read_for, say_lost
from equiform.errors import UserError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing one.")]


@app.command(
    epilog=examples(
        "equiform uncertainty runs/data-1               # with the data of the run",
        "equiform uncertainty MODEL labelled.xyz        # a model without its run",
        "equiform uncertainty runs/committee data.xyz   # the spread of a committee",
    )
)
def uncertainty(
    model: Model,
    data: Annotated[
        str | None, typer.Argument(help="Labelled structures; default: the run's own data.", metavar="DATA")
    ] = None,
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Calibrate expected errors of energies and forces, without training.

    They are stored beside the model, and used by evaluate, predict, md and the ASE calculator from then on.
    """
    from equiform.jobs.uncertainty import calibrate

    start_jax()
    judged = calibrate(model, data, dtype=dtype, say=silent if as_json else say)
    if as_json:
        print_json(judged.table)
        return
    print_judged(judged)


@app.command(
    epilog=examples("equiform committee runs/data-1 runs/data-2 runs/data-3 -o runs/committee"),
)
def committee(
    runs: Annotated[list[Path], typer.Argument(help="Run folders or models of one architecture.", metavar="RUN RUN …")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new model.", metavar="MODEL")],
    overwrite: Overwrite = False,
) -> None:
    """One model of several: it predicts their mean, and their spread is the expected error.

    Train the members on the same data with training.seed=1, 2, 3, …
    """
    from equiform.jobs.uncertainty import make_committee

    start_jax()
    folder = make_committee(runs, output, overwrite=overwrite)
    say(f"committee of {len(runs)} models: {folder}")
    say(f"calibrate its spread: equiform uncertainty {folder} LABELLED")


@app.command(
    epilog=examples(
        "equiform select start-nvt.extxyz --count 50 --model runs/data-1 -o chosen.extxyz",
        "equiform train labelled.extxyz from=runs/data-1   # when they are labelled",
    )
)
def select(
    trajectory: Annotated[Path, typer.Argument(help="Candidates, in any format that is read.", metavar="TRAJ")],
    model: Annotated[Path, typer.Option("--model", help="A run or model with an uncertainty.", metavar="RUN")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of structures.")] = 50,
    pool: Annotated[float, typer.Option(min=0, max=1, help="Fraction of the candidates that counts as uncertain.")] = 0.3,
    settings: Settings = None,
    dtype: Dtype = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Choose structures to label: among the most uncertain, the farthest from each other in descriptors."""
    from equiform.data.formats.extxyz import check_output, structure_text, write_frames
    from equiform.deploy.predictor import load
    from equiform.deploy.uncertainty import require_uncertainty
    from equiform.jobs.uncertainty import choose
    from equiform.persist.find import find_model

    check_output(output, overwrite=overwrite)
    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    doubt = require_uncertainty(model, predictor)
    structures = read_for(predictor, trajectory, how_to_read(trajectory, settings)).structures
    if not structures:
        raise UserError(f"{trajectory} holds no structures")
    with progress_bar("uncertainties") as advance:
        chosen, sigma = choose(structures, doubt, count, pool=pool, progress=advance)
    frames, lost = [], {}
    for index in chosen:
        entries = {"candidate": index, "energy_uncertainty_per_atom": float(sigma[index])}
        text, missing = structure_text(structures[index], {}, entries, keep_labels=False)
        frames.append(text)
        lost.update(dict.fromkeys(missing))
    write_frames(output, frames)
    say_lost(list(lost), output)
    if len(chosen) < count:
        say(f"only {len(chosen)} of the {len(structures)} candidates differ from each other")
    say(
        f"wrote {len(chosen)} of {len(structures)} structures to {output}; expected error of the energy: "
        f"{1000 * sigma[chosen].mean():.4g} meV/atom, of all candidates {1000 * sigma.mean():.4g}"
    )
