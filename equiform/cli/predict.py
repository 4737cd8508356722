"""`equiform evaluate`, `equiform predict`: errors and predictions of a model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from equiform.cli.app import app, examples, print_json, print_table, progress_bar, say, start_jax, warn
from equiform.cli.judged import print_judged
from equiform.cli.reading import Settings, Types, how_to_read, read_for, read_with_labels, say_lost
from equiform.errors import UserError

Model = Annotated[
    Path, typer.Argument(help="A model folder, a run folder (its best model), or a name of `equiform models`.", metavar="MODEL")
]
Data = Annotated[
    Path,
    typer.Argument(
        help="Structures, in any format that ASE reads; for particles a set's name, folder or .npz.", metavar="DATA"
    ),
]
Split = Annotated[str, typer.Option(help="Particles: which part of a set: train, validation or test.")]
Dtype = Annotated[
    Literal["float32", "float64"],
    typer.Option(help="Precision of the computation.", metavar="float32|float64"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Structures per batch, on average.")]


@app.command(
    epilog=examples(
        "equiform evaluate runs/data-1 test.xyz",
        "equiform evaluate runs/data-1 test.xyz --json > errors.json",
        "equiform evaluate runs/data-1 test.xyz --energy-key REF_energy --dtype float64",
        "equiform evaluate runs/data-1 test.xyz data.energy_unit=Hartree data.length_unit=Bohr",
        "equiform evaluate runs/nbody-egnn-1 nbody-egnn   # a model of particles",
    )
)
def evaluate(
    model: Model,
    data: Data,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 32,
    energy_key: Annotated[str | None, typer.Option(help="Label of energies; detected if not given.")] = None,
    forces_key: Annotated[str | None, typer.Option(help="Label of forces; detected if not given.")] = None,
    stress_key: Annotated[str | None, typer.Option(help="Label of stresses; detected if not given.")] = None,
    types: Types = None,
    split: Split = "test",
    plot: Annotated[
        Path | None, typer.Option(help="Draw expected against observed errors (calibrated models).", metavar="PNG")
    ] = None,
) -> None:
    """Errors of a model on labelled structures: mean absolute and root mean square, with units.

    A model of simulated particles is compared with standing still and with one
    multiple of the velocity, vector by vector (mean squared errors).
    """
    from equiform.jobs.evaluate import evaluate_file
    from equiform.jobs.particles import gives_vectors
    from equiform.jobs.uncertainty import judge_file
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.report.html import error_rows

    start_jax()
    keys: dict[str, Any] = {"energy_key": energy_key, "forces_key": forces_key, "stress_key": stress_key}
    if gives_vectors(loaded := load_model(find_model(model))):
        _no_labels(keys)
        _evaluate_particles(loaded, data, split, as_json, dtype, batch_size)
        return
    _no_split(split)
    with progress_bar("evaluating") as advance:
        config = how_to_read(data, settings, types, **keys)
        found = evaluate_file(model, data, config, dtype=dtype, batch_size=batch_size, progress=advance)
    for line in found.warnings:
        warn(line)
    judged = judge_file(model, str(data), config, plot, dtype=dtype)
    if plot is not None and judged is None:
        raise UserError(
            f"{model}: no uncertainty was calibrated, so there is no --plot; do it with: equiform uncertainty {model}"
        )
    if as_json:
        print_json(found.errors if judged is None else {**found.errors, "uncertainty": judged.table})
        return
    for line in found.lines:
        say(line)
    rows = [(r.data, r.quantity, r.mae, r.rmse, r.unit) for r in error_rows({data.name: found.errors})]
    print_table("", ("data", "quantity", "MAE", "RMSE", "unit"), rows, right=(2, 3))
    if judged is not None:
        print_judged(judged)


@app.command(
    epilog=examples(
        "equiform predict runs/data-1 new.xyz -o predicted.extxyz",
        "equiform predict runs/data-1 new.xyz -o predicted.extxyz --dtype float64",
        "equiform predict runs/nbody-egnn-1 states.npz -o later.npz   # a model of particles",
        "equiform predict runs/rays-occupancy-1 scene/ -o mesh.ply    # a model of calibrated views",
        "equiform predict runs/rays-novel-view-1 scene/ -o views/",
    )
)
def predict(
    model: Model,
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Extended XYZ file to write; for particles also .npz; for views a .ply mesh or a folder."
        ),
    ],
    settings: Settings = None,
    types: Types = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    split: Split = "test",
) -> None:
    """Write energies (eV), forces (eV/Å) and stresses (eV/Å³) of structures at full precision.

    Labels that the structures carry are kept as REF_energy, REF_forces and REF_virial
    (eV, eV/Å, eV), and the errors printed.

    A model of another quantity (a polarizability, a gap) writes that; a model of
    simulated particles writes their later states. A model of calibrated views
    (a folder with transforms.json or Middlebury parameters) writes the surface as a
    mesh, or every view as rendered from the others, beside the truth.
    """
    from equiform.data.formats.extxyz import check_output, write_predictions, write_scalars
    from equiform.deploy.predictor import load
    from equiform.deploy.uncertainty import find_uncertainty
    from equiform.jobs.particles import SUFFIXES, gives_vectors
    from equiform.jobs.predictions import as_references, errors_of
    from equiform.jobs.scenes import find_scene_model
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.report.html import error_rows

    if (of_scenes := find_scene_model(model)) is not None:
        _predict_scene(of_scenes, data, output, overwrite)
        return
    if gives_vectors(loaded := load_model(find_model(model))):
        check_output(output, overwrite=overwrite, suffixes=SUFFIXES)
        start_jax()
        _predict_particles(loaded, data, split, output, dtype, batch_size)
        return
    _no_split(split)
    check_output(output, overwrite=overwrite)
    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    config = how_to_read(data, settings, types)
    energies = predictor.task.quantity == "energy"
    reading = read_with_labels(predictor, data, config) if energies else read_for(predictor, data, config)
    structures, names = reading.structures, reading.names
    quantity, unit = predictor.task.quantity, predictor.task.unit
    if quantity != "energy":
        with progress_bar("predicting") as advance:
            values = predictor.scalars(structures, batch_size=batch_size, names=names, progress=advance)
        lost = write_scalars(output, structures, quantity, values, unit)
        say_lost(lost, output)
        say(f"wrote {len(structures)} structures to {output} ({quantity} in {unit}; {dtype})")
        return
    with progress_bar("predicting") as advance:
        predictions = predictor.predict(structures, batch_size=batch_size, names=names, progress=advance)
    doubts = None
    if (uncertainty := find_uncertainty(model, predictor)) is not None:
        with progress_bar("uncertainties") as advance:
            doubts = uncertainty.of_each(structures, progress=advance)
    references = [as_references(atoms, label, reading.keys) for atoms, label in zip(structures, reading.labels)]
    lost = write_predictions(output, structures, predictions, references=references, uncertainties=doubts)
    say_lost(lost, output)
    errors = {data.name: errors_of(structures, reading.labels, predictions)}
    if rows := [(r.data, r.quantity, r.mae, r.rmse, r.unit) for r in error_rows(errors)]:
        print_table("", ("data", "quantity", "MAE", "RMSE", "unit"), rows, right=(2, 3))
        say("the labels are kept as REF_energy (eV), REF_forces (eV/Å) and REF_virial (eV)")
    if doubts is not None:
        say("expected errors (one standard deviation): energy_uncertainty (eV) and forces_uncertainty (eV/Å)")
    say(f"wrote {len(structures)} structures to {output} (energy eV, forces eV/Å, stress eV/Å³; {dtype})")


def _predict_scene(model: Path, scene: Path, output: Path, overwrite: bool) -> None:
    import numpy as np

    from equiform.data.formats.cameras import read_views
    from equiform.errors import UserError
    from equiform.jobs.scenes import predict_mesh, predict_views, write_ply
    from equiform.persist.scene_model_file import load_scene_model
    from equiform.report.scene_plots import draw_surface
    from equiform.tasks.occupancy import Occupancy

    task, metadata = load_scene_model(model)
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists already; choose another name, or replace it with --overwrite")
    is_mesh = isinstance(task, Occupancy)
    if is_mesh != (output.suffix == ".ply"):
        wanted = "a mesh, so -o must end with .ply" if is_mesh else "pictures, so -o must be a folder"
        raise UserError(f"{model} writes {wanted}; received {output}")
    views = read_views(scene)
    start_jax()
    with progress_bar("predicting") as advance:
        if isinstance(task, Occupancy):
            mesh = predict_mesh(task, views, rays=int(metadata["rays"]), progress=advance)
            write_ply(output, mesh)
            camera = np.asarray(views.cameras.centre[0])
            picture = draw_surface(output.with_suffix(".png"), mesh.vertices, mesh.faces, views.images, camera)
            say(f"wrote {len(mesh.vertices):,} vertices and {len(mesh.faces):,} triangles to {output}, a picture to {picture}")
            return
        found = predict_views(task, views, output, sources=int(metadata["sources"]), progress=advance)
    say(f"wrote {len(found)} views beside the truth to {output}, PSNR {sum(found.values()) / len(found):.2f} dB in the mean")


def _evaluate_particles(model: Any, data: Path, split: str, as_json: bool, dtype: Any, batch_size: int) -> None:
    from equiform.jobs.particles import evaluate_particles

    particles = _particles(model, data, split)
    with progress_bar("evaluating") as advance:
        found = evaluate_particles(model, particles, dtype=dtype, batch_size=batch_size, progress=advance)
    if as_json:
        print_json(found.errors)
        return
    for line in found.lines:
        say(line)
    heads = ("vector", "MSE", "MAE", "RMSE", "Δ_EQ", "MSE of no change", "MSE of number · v", "number")
    shown = ("mse", "mae", "rmse", "equivariance_error", "still", "linear", "factor")
    rows = [
        (name, *("–" if error[key] is None else f"{error[key]:.4g}" for key in shown)) for name, error in found.errors.items()
    ]
    print_table("", heads, rows, right=range(1, len(heads)))


def _predict_particles(model: Any, data: Path, split: str, output: Path, dtype: Any, batch_size: int) -> None:
    from equiform.jobs.particles import predict_particles, predicted_states, write_states

    particles = _particles(model, data, split)
    with progress_bar("predicting") as advance:
        vectors = predict_particles(model, particles.samples, dtype=dtype, batch_size=batch_size, progress=advance)
    states = predicted_states(particles.samples, vectors)
    write_states(output, states, {"particles": particles.about, "predicted": " ".join(vectors), "dtype": dtype})
    say(f"wrote {len(particles.samples)} simulations to {output} ({', '.join(states)}; {dtype})")


def _particles(model: Any, data: Path, split: str) -> Any:
    from equiform.data.sets.nbody_prepare import read_particles
    from equiform.jobs.particles import own_folder

    own = own_folder(model)
    with progress_bar(str(data)) as advance:
        particles = read_particles(data, split, folders=own, progress=advance)
    of = particles.samples.metadata.get("set")
    if own and of is not None and of not in own:
        warn(f"these simulations are of {of}, but the model was trained on {', '.join(own)}")
    return particles


def _no_split(split: str) -> None:
    if split != "test":
        raise typer.BadParameter("--split is for models of simulated particles")


def _no_labels(keys: dict[str, Any]) -> None:
    if any(keys.values()):
        raise typer.BadParameter("--energy-key, --forces-key and --stress-key are not for models of simulated particles")
