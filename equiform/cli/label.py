"""`equiform label`: energies and forces of structures by an electronic-structure method."""

from pathlib import Path
from typing import Annotated

import typer

from equiform.cli.app import app, examples, progress_bar, say
from equiform.cli.reading import Settings, Types, how_to_read, say_lost


@app.command(
    epilog=examples(
        "equiform label structures.xyz -o labelled.extxyz --with gfn2",
        "equiform label SMILES:CCO -o ethanol.extxyz --with gfn1",
        "equiform label structures.xyz -o labelled.extxyz --with my_module:my_calculator",
    )
)
def label(
    structures: Annotated[Path, typer.Argument(help="Structures, in any format that is read.", metavar="STRUCTURES")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")],
    settings: Settings = None,
    method: Annotated[
        str, typer.Option("--with", help="gfn2, gfn1, or MODULE:NAME, a function that returns an ASE calculator.")
    ] = "gfn2",
    types: Types = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Compute energies (eV) and forces (eV/Å) to train on, by GFN2-xTB or any ASE calculator."""
    from equiform.cli.reading import read_structures_or_smiles
    from equiform.data.formats.extxyz import check_output, structure_text, write_frames
    from equiform.simulate.labels import label as compute, method_name

    check_output(output, overwrite=overwrite)
    reading = read_structures_or_smiles(structures, how_to_read(structures, settings, types))
    with progress_bar("labelling") as advance:
        labels = compute(reading.structures, method, names=reading.names, progress=advance)
    texts, lost = [], {}
    for atoms, (energy, forces) in zip(reading.structures, labels):
        text, missing = structure_text(atoms, {"forces": forces}, {"energy": energy, "method": method_name(method)})
        texts.append(text)
        lost.update(dict.fromkeys(missing))
    write_frames(output, texts)
    say_lost(list(lost), output)
    say(f"wrote {len(labels)} structures to {output} ({method_name(method)}: energy eV, forces eV/Å)")
