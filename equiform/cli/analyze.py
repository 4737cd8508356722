"""`equiform analyze …`: attention of a trained model, and its predicted displacements of atoms and particles."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_json, print_table, progress_bar, say, start_jax

analyze = typer.Typer(no_args_is_help=True, help="Analyse trained models.")
app.add_typer(analyze, name="analyze")


@analyze.callback()
def _analyses() -> None:
    """Analyse trained models."""


@analyze.command(
    epilog=examples(
        "equiform analyze attention runs/qm9-alpha-1 qm9 --structures 500",
        "equiform analyze attention runs/ethanol rmd17:ethanol -o attention",
        "equiform analyze attention MODEL molecules.xyz",
    )
)
def attention(
    model: Annotated[Path, typer.Argument(help="A model or run folder.")],
    data: Annotated[str, typer.Argument(help="A structure file, or a data set: qm9, md17:MOLECULE, oc20-is2re:PART.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for plots and numbers.")] = Path("attention"),
    structures: Annotated[int, typer.Option("--structures", min=1, help="Maximum number of structures, evenly spaced.")] = 200,
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the published files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Attention by element pair and distance, and for bonded and non-bonded pairs; as numbers and plots."""
    from equiform.data.sets.structures import some_structures
    from equiform.deploy.predictor import load
    from equiform.report.attention import KINDS, as_dict, collect_attention, overall, write_analysis

    chosen = some_structures(data, structures, source)
    start_jax()
    predictor = load(model)
    with progress_bar("collecting attention") as advance:
        statistics = collect_attention(predictor, chosen, advance)
    paths = write_analysis(statistics, output, f"{model}: {len(chosen)} structures of {data}")
    if as_json:
        print_json(as_dict(statistics))
        return
    names = as_dict(statistics)["elements"]
    share = statistics.share().mean(axis=0)
    rows = [(name, *(f"{value:.3f}" for value in line)) for name, line in zip(names, share)]
    print_table("fraction of an atom's (row) attention that goes to", ("", *names), rows, right=range(1, len(names) + 1))
    say()
    for kind in KINDS:
        say(f"attention relative to uniform, {kind} pairs: {overall(statistics, kind):.3f}")
    for path in paths:
        say(f"written: {path}")


@analyze.command(
    epilog=examples(
        "equiform analyze relaxation runs/oc20-is2rs-1", "equiform analyze relaxation runs/oc20-is2rs-1 --from FOLDER"
    )
)
def relaxation(
    model: Annotated[Path, typer.Argument(help="A run on OC20 relaxations split by system, or its model.")],
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the relaxations.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Displacement to the relaxed structure on held-out systems: the model against no motion and motion along the forces."""
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.report.relaxation import compare_relaxations

    start_jax()
    about, found = compare_relaxations(load_model(find_model(model)), folder=None if source is None else str(source))
    if as_json:
        content = [{**part._asdict(), "rules": [rule._asdict() for rule in part.rules]} for part in found]
        print_json({"split": about, "comparisons": content})
        return
    say(f"split: {about}")
    for part in found:
        say()
        rows = [(rule.name, f"{rule.mae:.4f}", f"{rule.cosine:.3f}") for rule in part.rules]
        heads = ("prediction", "MAE (Å)", "cosine with the true displacement")
        print_table(f"{part.count} {part.frames}, atoms of tag > 0", heads, rows, right=(1, 2))


@analyze.command(
    epilog=examples(
        "equiform analyze trajectory runs/nbody-egnn-1",
        "equiform analyze trajectory runs/nbody-egnn-1 nbody-egnn -o paths.gif --simulations 4",
    )
)
def trajectory(
    model: Annotated[Path, typer.Argument(help="A run on simulated particles, or its model.")],
    data: Annotated[Path | None, typer.Argument(help="A set's name, folder or .npz file; default: the set of the run.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="GIF file to write.")] = Path("trajectory.gif"),
    simulations: Annotated[
        int, typer.Option("--simulations", min=1, max=12, help="Number of simulations, from best to worst.")
    ] = 6,
    split: Annotated[str, typer.Option(help="Which part of the set: train, validation or test.")] = "test",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Animate simulated particles: true paths, and the prediction at the target time."""
    from equiform.data.formats.extxyz import check_place
    from equiform.data.sets.nbody_prepare import read_particles
    from equiform.errors import UserError
    from equiform.jobs.particles import gives_vectors, own_folder, predict_particles
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.report.animation import animate
    from equiform.report.trajectories import mean_squared_errors, spread_over

    if output.suffix != ".gif":
        raise UserError(f"{output}: animations are written as GIF; name the file *.gif")
    check_place(output, overwrite=overwrite)
    loaded = load_model(find_model(model))
    own = own_folder(loaded)
    if not gives_vectors(loaded):
        raise UserError(f"{model} predicts {loaded.task.quantity} of structures, not the motion of particles")
    if data is None and not own:
        raise UserError(f"{model} does not record the set it was trained on; name one, such as nbody-egnn")
    start_jax()
    particles = read_particles(data or next(iter(own)), split, folders=own)
    if particles.samples.horizon == 0:
        raise UserError(f"{particles.about}: there is no true path to compare with")
    with progress_bar("predicting") as advance:
        predicted = predict_particles(loaded, particles.samples, progress=advance)
    if "displacement" not in predicted:
        raise UserError(f"{model} predicts {', '.join(predicted)}, but no displacement: there is no path to draw")
    errors = mean_squared_errors(particles.samples, predicted["displacement"])
    chosen = spread_over(errors, simulations)
    animate(output, particles.samples, predicted["displacement"], chosen, title=f"{model}: {particles.about.partition(';')[0]}")
    say(f"mean squared error over {len(errors)} simulations of {particles.about}: {errors.mean():.4g}")
    say(f"written: {output}, simulations {', '.join(map(str, chosen))}")


@analyze.command(
    epilog=examples(
        "equiform analyze scaling runs/scaling-bodies", "equiform analyze scaling runs/small runs/large -o scaling.png"
    )
)
def scaling(
    folders: Annotated[list[Path], typer.Argument(help="Folders of recipe run scaling-bodies; finished or not.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")] = Path("scaling.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Scaling laws of equivariant and other models, with intervals, and the conclusions that they support."""
    from equiform.data.formats.extxyz import check_place
    from equiform.errors import UserError
    from equiform.papers.scaling_plot import draw_scaling
    from equiform.papers.scaling_report import analyse, as_dict, as_markdown, gathered

    if output.suffix != ".png":
        raise UserError(f"{output}: the plot is written as PNG; name the file *.png")
    check_place(output, overwrite=overwrite)
    found = analyse(gathered(folders))
    draw_scaling(output, found)
    if as_json:
        print_json(as_dict(found))
        return
    say(as_markdown(found))
    say(f"written: {output}")
