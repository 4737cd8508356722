"""How commands are told to read files: `data.KEY=VALUE` behind the file's name, as for training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from equiform.cli.app import warn

Settings = Annotated[
    list[str] | None,
    typer.Argument(help="How to read the file, as for train: data.length_unit=Bohr.", metavar="KEY=VALUE"),
]
Types = Annotated[str | None, typer.Option(help="Elements of the numbered types of LAMMPS and MTP files: C,H,O.")]


def how_to_read(path: Path, settings: Sequence[str] | None, types: str | None = None, **more: str | None) -> Any:
    """The section `data` of settings and options.

    Args:
        path: The file.
        settings: `data.KEY=VALUE`.
        types: Elements of numbered atom types.
        more: Further keys of the section that options give.
    """
    from equiform.recipes.schema import data_settings

    given = {"types": types, **more}
    options = [f"data.{name}={value}" for name, value in given.items() if value is not None]
    return data_settings([*(settings or ()), *options], str(path))


def read_for(predictor: Any, path: Path, config: Any, index: int | str = ":") -> Any:
    """Structures to make predictions for, in Å, of a file or of `SMILES:…`; what is odd about the file is said."""
    from equiform.data.formats.reading import units_in

    return read_structures_or_smiles(path, config, index, remembered=units_in(predictor.metadata))


def read_with_labels(predictor: Any, path: Path, config: Any) -> Any:
    """The same with the labels that the structures carry, if they can be understood."""
    from equiform.data.formats.labels import LabelKeys
    from equiform.data.formats.reading import read_labelled, units_in
    from equiform.data.formats.smiles import smiles_of
    from equiform.data.pipeline.unused import unused_inputs
    from equiform.errors import UserError

    if smiles_of(path) is not None:
        return read_for(predictor, path, config)
    trained = predictor.metadata.get("data") or {}
    preferred = LabelKeys(trained.get("energy_key"), trained.get("forces_key"), trained.get("stress_key"))
    every = config.model_copy(update={"keep_unconverged": True})
    try:
        reading = read_labelled(
            str(path), every, remembered=units_in(predictor.metadata), preferred=preferred, labels_needed=False
        )
    except UserError:
        return read_for(predictor, path, config)
    for line in [*reading.warnings, *unused_inputs(reading.structures)]:
        warn(line)
    return reading


def read_structures_or_smiles(path: Path, config: Any, index: int | str = ":", remembered: Any = None) -> Any:
    """Structures in Å, of a file or of `SMILES:…`; what is odd about the file is said.

    Args:
        path: The file, or `SMILES:…`.
        config: How to read it.
        index: Which structures.
        remembered: Units that a model was trained with, for files that state none.
    """
    from equiform.data.formats.labels import Units
    from equiform.data.formats.reading import read_unlabelled
    from equiform.data.formats.smiles import read_smiles, smiles_of
    from equiform.data.pipeline.unused import unused_inputs

    if (smiles := smiles_of(path)) is not None:
        return read_smiles(smiles)
    reading = read_unlabelled(str(path), config, index=index, remembered=remembered or Units())
    for line in [*reading.warnings, *unused_inputs(reading.structures)]:
        warn(line)
    return reading


def say_lost(lost: list[str], output: Path) -> None:
    """Say what of the input the output has no place for."""
    if lost:
        warn(f"{output}: extended XYZ has no place for {', '.join(lost)}; it is left out")
