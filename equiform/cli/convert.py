"""`equiform convert`, `equiform export-official`: conversion between published checkpoints and our model folders."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, say


@app.command(
    epilog=examples(
        "equiform convert qm9_homo.npz -o models/homo",
        "equiform convert checkpoint.pt -o models/aspirin      # needs torch; runs no code from the file",
    )
)
def convert(
    official: Annotated[Path, typer.Argument(help="A checkpoint: .npz of named arrays, or .pt.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model folder to write.")],
    scale: Annotated[float, typer.Option(help="eV per unit of the output: the training set's standard deviation.")] = 1.0,
    shift: Annotated[float, typer.Option(help="eV added per structure: the training set's mean.")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model.")] = False,
) -> None:
    """Convert a published Equiformer checkpoint to a model folder."""
    from equiform.persist.official import convert as interop

    for line in interop.convert(official, output, scale=scale, shift=shift, overwrite=overwrite).lines():
        say(line)
    say(f"wrote {output}")


@app.command(
    "export-official",
    epilog=examples("equiform export-official models/homo -o homo.npz"),
)
def export_official(
    model: Annotated[Path, typer.Argument(help="A model folder, or a run folder (its best model).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .npz (or .pt) file to write.")],
) -> None:
    """Write a model's parameters under the names of the published code."""
    from equiform.persist.find import find_model
    from equiform.persist.official import convert as interop

    interop.export(find_model(model), output)
    say(f"wrote {output}")
