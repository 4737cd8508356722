"""`equiform data fetch | info`: the published data sets."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import examples, print_json, print_table, progress_bar, say
from equiform.cli.data import data

_SETS = "qm9, md17, rmd17 or oc20-is2re."


@data.command(
    "fetch",
    epilog=examples(
        "equiform data fetch qm9",
        "equiform data fetch md17 ethanol",
        "equiform data fetch qm9 --from FOLDER     # use files that are already downloaded",
        "equiform data fetch oc20-is2re val_id --to FOLDER",
    ),
)
def fetch_data(
    name: Annotated[str, typer.Argument(help=_SETS)],
    part: Annotated[str | None, typer.Argument(help="A molecule of (r)MD17, a part of OC20.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the published files; nothing is downloaded.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Download folder; default: the user's cache.")] = None,
) -> None:
    """Download a published data set, check it, and prepare it for training."""
    from equiform.data.sets import catalogue

    part = catalogue.check_name(name, part)
    if source is None and not catalogue.is_here(name, part):
        source = fetch_with_bar(name, part, to)
    with progress_bar(f"preparing {name}") as advance:
        store = catalogue.open_store(name, part, source, progress=advance)
    say(f"{catalogue.SETS[name].about}: {len(store):,} structures, ready in {store.path}")
    for line in catalogue.checks(store):
        say(line)


@data.command(
    "info",
    epilog=examples(
        "equiform data info qm9",
        "equiform data info rmd17 ethanol --plots plots",
        "equiform data info qm9 --from FOLDER --json",
    ),
)
def show_data(
    name: Annotated[str, typer.Argument(help=_SETS)],
    part: Annotated[str | None, typer.Argument(help="A molecule of (r)MD17, a part of OC20.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Folder with the published files.")] = None,
    plots: Annotated[Path | None, typer.Option("--plots", help="Folder for histograms (PNG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Counts, fields, units, splits, statistics and histograms of a data set."""
    from equiform.data.sets import catalogue
    from equiform.data.sets.summary import summarize, write_histograms

    with progress_bar(f"preparing {name}") as advance:
        store = catalogue.open_store(name, part, source, progress=advance)
    summary = summarize(store, name)
    if as_json:
        print_json(summary.as_dict())
    else:
        for fact, value in summary.facts:
            say(f"{fact:<22}{value}")
        say()
        columns = ("field", "unit", "per", "mean", "std", "min", "max", "description")
        print_table("", columns, summary.fields, right=(3, 4, 5, 6))
        for title, heads, rows in summary.tables:
            say()
            print_table(title, heads, rows, right=range(1, len(heads)))
    if plots is not None:
        for path in write_histograms(store, plots):
            say(f"histograms: {path}", error=as_json)


def fetch_with_bar(name: str, part: str | None, to: Path | None) -> Path:
    """Download with a progress bar."""
    from equiform.data.sets import catalogue

    say(f"{name} is not here; downloading it from its publishers (licence: {catalogue.SETS[name].licence})")
    with progress_bar(f"downloading {name}") as advance:
        # In kilobytes: the bar shows integers.
        return catalogue.fetch(name, part, to, lambda done, total: advance(done // 1000, max(total, done) // 1000, "kB"))
