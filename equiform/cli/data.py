"""`equiform data …`: data sets by name."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, print_table, progress_bar, say, start_jax

data = typer.Typer(no_args_is_help=True, help="Published data sets by name.", epilog=examples("equiform data make nbody-egnn"))
app.add_typer(data, name="data")

SCENES = "rays-scenes"


@data.command(
    epilog=examples(
        "equiform data make nbody-egnn",
        "equiform data make nbody-se3 -o data/walls --train 5000",
        "equiform data make rays-scenes -o data/scenes --train 300 --pictures 3",
    )
)
def make(
    name: Annotated[
        str, typer.Argument(help="nbody-egnn, nbody-egnn-sweep, nbody-se3, nbody-demetar, nbody-gravity or rays-scenes.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; where recipes look for it, if not given.")
    ] = None,
    train: Annotated[int | None, typer.Option(help="Training simulations or scenes, fewer than published.")] = None,
    validation: Annotated[int | None, typer.Option(help="Validation simulations or scenes.")] = None,
    test: Annotated[int | None, typer.Option(help="Test simulations or scenes.")] = None,
    protocol: Annotated[str, typer.Option(help="Scenes: upright, or each after a random motion.", metavar="I|SO(3)")] = "I",
    views: Annotated[int, typer.Option(min=2, help="Scenes: views of each.")] = 4,
    pixels: Annotated[int, typer.Option(min=4, help="Scenes: rows and columns of a view.")] = 24,
    pictures: Annotated[int, typer.Option(min=0, help="Scenes: also write so many test scenes as PNG and JSON.")] = 0,
) -> None:
    """Make a data set of simulated particles or of rendered scenes: the same numbers every time.

    Scenes are made some at a time; a stopped command resumes.
    """
    if name == SCENES:
        _make_scenes(output, (train, validation, test), protocol, views, pixels, pictures)
        return
    from equiform.data.sets.nbody_prepare import nbody_folder
    from equiform.data.sets.nbody_samples import SPLITS, NBodySamples, find_set, linear_baseline, make_set

    settings = find_set(name)
    folder = output or nbody_folder(name)
    counts = {split: count for split, count in zip(SPLITS, (train, validation, test)) if count is not None}
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


def _make_scenes(
    output: Path | None, counts: tuple[int | None, ...], protocol: str, views: int, pixels: int, pictures: int
) -> None:
    from equiform.data.sets.rays_scenes import SPLITS
    from equiform.data.sets.rays_store import ScenesConfig, make_scenes, read_scenes, write_pictures

    if protocol not in ("I", "SO(3)"):
        raise typer.BadParameter(f"--protocol is I or SO(3), not {protocol!r}")
    folder = output or Path("data") / SCENES
    config = ScenesConfig(protocol=protocol, views=views, pixels=pixels)  # pyright: ignore[reportArgumentType]
    rows = []
    for split, count in zip(SPLITS, counts, strict=True):
        wanted = SPLITS[split][1] if count is None else count
        if wanted:
            with progress_bar(split) as advance:
                make_scenes(folder, split, wanted, config, progress=advance)
            rows.append((split, str(wanted)))
    print_table("", ("split", "scenes"), rows, (1,))
    for number, scene in enumerate(read_scenes(folder, "test", pictures) if pictures else []):
        write_pictures(folder / f"scene-{number:03d}", scene)
    say(f"{views} views of {pixels} × {pixels} pixels each, protocol {protocol}, in {folder}")
