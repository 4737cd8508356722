"""`equiform data …`: data sets by name."""

from pathlib import Path
from typing import Annotated, Any

import typer

from equiform.cli.app import Interrupted, app, examples, print_table, progress_bar, say, start_jax

data = typer.Typer(no_args_is_help=True, help="Published data sets by name.", epilog=examples("equiform data make nbody-egnn"))
app.add_typer(data, name="data")

SCENES = "rays-scenes"


@data.command(
    epilog=examples(
        "equiform data make nbody-egnn",
        "equiform data make nbody-se3 -o data/walls --train 5000",
        "equiform data make polymers                     # resumes where it stopped",
        "equiform data make polymers --families PE,PEO --conformers 4 -o data/two",
        "equiform data make rays-scenes -o data/scenes --train 300 --pictures 3",
    )
)
def make(
    name: Annotated[
        str,
        typer.Argument(
            help="nbody-egnn, nbody-egnn-sweep, nbody-se3, nbody-demetar, nbody-gravity, nbody-gatr, polymers or rays-scenes."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder; where recipes look for it, if not given.")
    ] = None,
    train: Annotated[int | None, typer.Option(help="Training simulations or scenes, fewer than published.")] = None,
    validation: Annotated[int | None, typer.Option(help="Validation simulations or scenes.")] = None,
    test: Annotated[int | None, typer.Option(help="Test simulations or scenes, of every test set.")] = None,
    families: Annotated[str | None, typer.Option(help="Polymers: which, PE,PEO,…; default: all, and small molecules.")] = None,
    method: Annotated[str | None, typer.Option(help="Polymers: labels by gfn2 (default), gfn1 or MODULE:NAME.")] = None,
    conformers: Annotated[int | None, typer.Option(min=1, help="Polymers: per family, 30 by default.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Polymers: per conformer, 4 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Polymers: 1 by default; 7 is reserved for a hold-out.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Polymers: conformers sampled at a time.")] = 1,
    protocol: Annotated[str, typer.Option(help="Scenes: upright, or each after a random motion.", metavar="I|SO(3)")] = "I",
    views: Annotated[int, typer.Option(min=2, help="Scenes: views of each.")] = 4,
    pixels: Annotated[int, typer.Option(min=4, help="Scenes: rows and columns of a view.")] = 24,
    pictures: Annotated[int, typer.Option(min=0, help="Scenes: also write so many test scenes as PNG and JSON.")] = 0,
) -> None:
    """Make a data set: simulated particles, rendered scenes (the same numbers every time), or labelled polymers.

    Scenes and polymers are made in parts; a stopped command resumes.
    """
    sampling = {"method": method, "conformers": conformers, "frames": frames, "seed": seed}
    sampling = {key: value for key, value in sampling.items() if value is not None}
    if name == "polymers":
        if any(count is not None for count in (train, validation, test)):
            raise typer.BadParameter(
                "--train, --validation and --test are for N-body sets and scenes; polymers have --conformers, --frames"
            )
        _make_polymers(output, families, processes, sampling)
        return
    if sampling or families is not None:
        raise typer.BadParameter("--families, --method, --conformers, --frames and --seed are for polymers")
    if name == SCENES:
        _make_scenes(output, (train, validation, test), protocol, views, pixels, pictures)
        return
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


def _make_polymers(output: Path | None, families: str | None, processes: int, sampling: dict[str, Any]) -> None:
    from equiform.data.sets.polymers import polymers_folder
    from equiform.jobs.polymers import PolymerConfig, make_polymers

    names = tuple(part.strip() for part in (families or "").split(",") if part.strip())
    config = PolymerConfig(families=names, **sampling)
    folder = polymers_folder(output)
    try:
        with progress_bar("polymers") as advance:
            statistics = make_polymers(config, folder, processes=processes, progress=advance)
    except KeyboardInterrupt as error:
        raise Interrupted(f"finished conformers are in {folder}; the same command resumes") from error
    rows = []
    for split, found in statistics.items():
        forces = [family["force_rms"] for family in found["families"].values()]
        spread = f"{min(forces):.2f} to {max(forces):.2f}" if forces else "–"
        rows.append((split, str(found["frames"]), str(found["trajectories"]), str(len(forces)), str(found["atoms"]), spread))
    columns = ("split", "frames", "conformers", "families", "atoms", "RMS force of a family (eV/Å)")
    print_table("", columns, rows, (1, 2, 3, 4))
    say(f"{folder}: SPLIT.extxyz, {config.method} labels in eV and eV/Å")


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
