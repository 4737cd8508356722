"""`equiform data …`: data sets by name."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_table, progress_bar, say, start_jax

data = typer.Typer(no_args_is_help=True, help="Published data sets by name.", epilog=examples("equiform data make nbody-egnn"))
app.add_typer(data, name="data")


@data.command(
    epilog=examples(
        "equiform data make nbody-egnn",
        "equiform data make nbody-se3 -o data/walls --train 5000",
    )
)
def make(
    name: Annotated[
        str, typer.Argument(help="nbody-egnn, nbody-egnn-sweep, nbody-se3, nbody-demetar, nbody-gravity or nbody-gatr.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; where recipes look for it, if not given.")
    ] = None,
    train: Annotated[int | None, typer.Option(help="Training simulations, fewer than published.")] = None,
    validation: Annotated[int | None, typer.Option(help="Validation simulations.")] = None,
    test: Annotated[int | None, typer.Option(help="Test simulations, of every test set.")] = None,
) -> None:
    """Simulate an N-body data set: seconds, and the same numbers every time."""
    from equiform.data.sets.nbody_prepare import nbody_folder
    from equiform.data.sets.nbody_samples import SPLITS, NBodySamples, find_set, linear_baseline, make_set
    from equiform.data.sets.nbody_yardsticks import yardstick_lines

    settings = find_set(name)
    folder = output or nbody_folder(name)
    counts = {split: count for split, count in zip(SPLITS, (train, validation, test)) if count is not None}
    counts |= dict.fromkeys(settings.further, test) if test is not None else {}
    start_jax()
    with progress_bar(name) as advance:
        files = make_set(name, folder, counts=counts, progress=lambda split, done, total: advance(done, total, split))
    samples = {split: NBodySamples.read(path) for split, path in files.items()}
    say(f"{name}: {settings.about}")
    print_table("", ("split", "simulations", "file"), [(s, str(len(part)), str(files[s])) for s, part in samples.items()], (1,))
    baseline = linear_baseline(samples["train"], samples["test"])
    say(
        f"mean squared position error on the test split: {baseline['linear']:.4g} of x + {baseline['time']:.3g} v, "
        f"{baseline['still']:.4g} of standing still; a model has to beat these"
    )
    for split in settings.splits[2:] if settings.bound else ():
        for line in yardstick_lines(split, samples[split]):
            say(line)
