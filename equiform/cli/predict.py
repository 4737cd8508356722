"""`equiform evaluate`, `equiform predict`: what a model says about structures."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from equiform.cli.app import app, examples, print_json, print_table, progress_bar, say, start_jax, warn

Model = Annotated[Path, typer.Argument(help="A model folder, or a run folder (its best model).", metavar="MODEL")]
Data = Annotated[Path, typer.Argument(help="Structures, in any format that ASE reads.", metavar="DATA")]
Dtype = Annotated[
    Literal["float32", "float64"],
    typer.Option(help="Precision of the computation.", metavar="float32|float64"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Structures per batch, on average.")]


@app.command(
    epilog=examples(
        "equiform evaluate runs/data-1 test.xyz",
        "equiform evaluate runs/data-1 test.xyz --json > errors.json",
        "equiform evaluate models/homo test.xyz --energy-key REF_energy --dtype float64",
    )
)
def evaluate(
    model: Model,
    data: Data,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 32,
    energy_key: Annotated[str | None, typer.Option(help="Label of energies; found if not given.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Label of forces; found if not given.")] = None,
    stress_key: Annotated[str | None, typer.Option(help="Label of stresses; found if not given.")] = None,
) -> None:
    """Errors of a model on labelled structures: mean absolute and root mean square, with units."""
    from equiform.analysis.report import error_rows
    from equiform.job import evaluate_file

    start_jax()
    keys: dict[str, Any] = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    with progress_bar("evaluating") as advance:
        found = evaluate_file(model, data, keys, dtype=dtype, batch_size=batch_size, progress=advance)
    for line in found.warnings:
        warn(line)
    if as_json:
        print_json(found.errors)
        return
    for line in found.lines:
        say(line)
    rows = [(r.data, r.quantity, r.mae, r.rmse, r.unit) for r in error_rows({data.name: found.errors})]
    print_table("", ("data", "quantity", "MAE", "RMSE", "unit"), rows, right=(2, 3))


@app.command(
    epilog=examples(
        "equiform predict runs/data-1 new.xyz -o predicted.extxyz",
        "equiform predict runs/data-1 new.xyz -o predicted.extxyz --dtype float64",
    )
)
def predict(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file to write.")],
    dtype: Dtype = "float32",
    batch_size: BatchSize = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write energies (eV), forces (eV/Å) and stresses (eV/Å³) of structures, every digit of them.

    A model of another quantity (a polarizability, a gap) writes that.
    """
    from equiform.about import find_model
    from equiform.data.read import read_structures
    from equiform.extxyz import check_output, write_predictions, write_scalars
    from equiform.predictor import load

    check_output(output, overwrite=overwrite)
    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    structures = read_structures(str(data))
    quantity, unit = predictor.potential.quantity, predictor.potential.unit
    if quantity != "energy":
        with progress_bar("predicting") as advance:
            values = predictor.scalars(structures, batch_size=batch_size, progress=advance)
        write_scalars(output, structures, quantity, values)
        say(f"wrote {len(structures)} structures to {output} ({quantity} in {unit}; {dtype})")
        return
    with progress_bar("predicting") as advance:
        predictions = predictor.predict(structures, batch_size=batch_size, progress=advance)
    write_predictions(output, structures, predictions)
    say(f"wrote {len(structures)} structures to {output} (energy eV, forces eV/Å, stress eV/Å³; {dtype})")
