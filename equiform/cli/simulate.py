"""`equiform md`, `equiform relax`: use a model to move atoms."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from equiform.cli.app import (
    USER_ERROR,
    Interrupted,
    app,
    examples,
    print_json,
    print_table,
    progress_bar,
    say,
    start_jax,
)
from equiform.cli.predict import Dtype, Model
from equiform.cli.reading import Settings, Types, how_to_read, read_for, say_lost

Index = Annotated[int, typer.Option(help="Which structure of the file; -1 is the last.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object and nothing else.")]


@app.command(
    epilog=examples(
        "equiform md runs/data-1 start.xyz --temperature 300 --steps 20000",
        "equiform md runs/data-1 start.xyz --ensemble nvt --temperature 500 --time 10",
        "equiform md runs/data-1 --resume start-nvt.restart.npz --steps 40000",
    )
)
def md(
    model: Model,
    structure: Annotated[
        Path | None, typer.Argument(help="Initial structure, in any format that is read, or SMILES:….", metavar="STRUCTURE")
    ] = None,
    settings_of_data: Settings = None,
    types: Types = None,
    ensemble: Annotated[Literal["nve", "nvt"] | None, typer.Option(help="Constant energy (default), or Langevin.")] = None,
    temperature: Annotated[float | None, typer.Option(help="K: of the initial velocities, and of the thermostat.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Number of steps, 20000 by default.")] = None,
    time: Annotated[float | None, typer.Option(min=0, help="Length of the run in ps, instead of steps.")] = None,
    timestep: Annotated[float | None, typer.Option(help="fs, 0.5 by default.")] = None,
    friction: Annotated[float | None, typer.Option(help="Of the thermostat, 1/fs, 0.01 by default.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Trajectory: .extxyz, .xyz or .traj.")] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, help="Steps between frames and between lines of the log, 20 by default.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue from this restart file.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of velocities and thermostat, 0 by default.")] = None,
    skin: Annotated[float | None, typer.Option(help="Å beyond the cutoff in the neighbour list, 1 by default.")] = None,
    no_stop_when_apart: Annotated[
        bool, typer.Option("--no-stop-when-apart", help="Continue when an atom has lost all its neighbours.")
    ] = False,
    stop_above: Annotated[
        float | None,
        typer.Option(help="Stop when the energy's expected error exceeds this, eV/atom (calibrated models)."),
    ] = None,
    index: Index = 0,
    dtype: Dtype = "float32",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Molecular dynamics on the device; writes a trajectory, a log (.csv), a plot and a restart file."""
    from equiform.deploy.predictor import load
    from equiform.deploy.uncertainty import find_uncertainty
    from equiform.persist.find import find_model
    from equiform.simulate.md.dynamics import MDConfig, resume_md, run_md

    settings = {
        "ensemble": ensemble,
        "temperature": temperature,
        "timestep": timestep,
        "friction": friction,
        "interval": interval,
        "seed": seed,
        "skin": skin,
        "stop_when_apart": False if no_stop_when_apart else None,
        "stop_above": stop_above,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if (structure is None) == (resume is None):
        raise typer.BadParameter("give either an initial structure or --resume RESTART")
    if resume is not None and settings:
        fixed = ", ".join(f"--{name}" for name in settings)
        raise typer.BadParameter(f"{fixed}: fixed by the run that --resume continues, which takes only --steps or --time")
    if steps is not None and time is not None:
        raise typer.BadParameter("give either --steps or --time")
    config = _checked(MDConfig, settings, steps, time)
    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    doubt = find_uncertainty(model, predictor)
    with progress_bar("molecular dynamics") as advance:

        def progress(now: Any) -> None:
            advance(now.step, now.steps, f"{now.temperature:.0f} K, {now.steps_per_second:.0f} steps/s")

        start = structure or Path()  # one of the two is given
        how = how_to_read(start, settings_of_data, types)
        trajectory = output or Path(f"{_stem(start)}-{config.ensemble}.extxyz")
        restart = resume or trajectory.with_suffix(".restart.npz")
        try:
            if resume is not None:
                result = resume_md(
                    predictor, resume, steps=steps, time=time, trajectory=output, progress=progress, uncertainty=doubt
                )
            else:
                result = run_md(
                    predictor,
                    read_for(predictor, start, how, index).structures[0],
                    config,
                    trajectory=trajectory,
                    log=trajectory.with_suffix(".csv"),
                    restart=restart,
                    overwrite=overwrite,
                    progress=progress,
                    uncertainty=doubt,
                )
        except KeyboardInterrupt as error:
            raise Interrupted(f"resume with: equiform md {model} --resume {restart} --dtype {dtype}") from error
    summary = dict(result.summary)
    if summary.get("log"):
        summary["plot"] = _plot(Path(summary["log"]), summary)
    if as_json:
        print_json(summary)
        return
    _print_summary(summary)


@app.command(
    epilog=examples(
        "equiform relax runs/data-1 start.xyz -o relaxed.extxyz",
        "equiform relax organic-gfn2 SMILES:CCO -o ethanol.xyz      # a model of the package",
        "equiform relax runs/data-1 crystal.cif -o relaxed.extxyz --cell --fmax 0.001",
    )
)
def relax(
    model: Model,
    structure: Annotated[
        Path, typer.Argument(help="Initial structure, in any format that is read, or SMILES:….", metavar="STRUCTURE")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Extended XYZ file for the relaxed structure.")],
    settings: Settings = None,
    types: Types = None,
    fmax: Annotated[float, typer.Option(help="Largest force on an atom at the end, eV/Å.")] = 0.01,
    steps: Annotated[int, typer.Option(min=0, help="Maximum number of steps.")] = 1000,
    optimizer: Annotated[Literal["FIRE", "LBFGS", "BFGS"], typer.Option(help="ASE's optimiser.")] = "FIRE",
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too.")] = False,
    trajectory: Annotated[Path | None, typer.Option(help="Write every step: .extxyz, .xyz or .traj.")] = None,
    index: Index = 0,
    dtype: Dtype = "float32",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Follow the forces to a minimum of the energy; exit status 1 if it was not reached."""
    from equiform.data.formats.extxyz import check_output, write_predictions
    from equiform.deploy.predictor import Prediction, load
    from equiform.persist.find import find_model
    from equiform.simulate.relax import relax as follow

    check_output(output, overwrite=overwrite)
    start_jax()
    predictor = load(find_model(model), dtype=dtype)
    atoms = read_for(predictor, structure, how_to_read(structure, settings, types), index).structures[0]
    with progress_bar("relaxing") as advance:
        result = follow(
            predictor,
            atoms,
            optimizer=optimizer,
            fmax=fmax,
            steps=steps,
            cell=cell,
            trajectory=trajectory,
            overwrite=overwrite,
            progress=lambda now: advance(now.step, steps, f"{now.energy:.4f} eV, {now.max_force:.4f} eV/Å"),
        )
    results: dict[str, Any] = getattr(result.atoms.calc, "results", {})
    stress = results.get("stress")
    if stress is not None:
        from ase.stress import voigt_6_to_full_3x3_stress

        stress = voigt_6_to_full_3x3_stress(stress)
    energy = float(results["energy"])
    final = Prediction(energy, energy - predictor.reference_energy(result.atoms), results["forces"], stress)
    lost = write_predictions(output, [result.atoms], [final], keep_labels=False)
    say_lost(lost, output)
    summary = {**result.summary, "output": str(output)}
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)
    if (above := summary["above_start_eV"]) is not None:
        say(
            f"error: the end lies {above:.4g} eV above the start: its forces are small, but it is not a minimum reachable "
            f"from there; {output} holds it; try --optimizer LBFGS or BFGS, or --dtype float64",
            error=True,
        )
        raise typer.Exit(USER_ERROR)
    if not result.converged:
        force = result.summary["max_force_eV_per_A"]
        say(
            f"error: not relaxed after {result.summary['steps']} steps: a force of {force:.4g} eV/Å is left, "
            f"not {fmax:g}; {output} holds the last structure: continue from there, or give more --steps",
            error=True,
        )
        raise typer.Exit(USER_ERROR)


def _stem(start: Path) -> str:
    from equiform.data.formats.smiles import smiles_of

    return start.stem if smiles_of(start) is None else "molecule"


def _checked(config: Any, settings: dict[str, Any], steps: int | None, time: float | None) -> Any:
    """Settings from options; what is out of range is wrong usage."""
    from pydantic import ValidationError

    settings = dict(settings)
    if "interval" in settings:
        settings["frame_interval"] = settings["log_interval"] = settings.pop("interval")
    if steps is not None:
        settings["steps"] = steps
    try:
        checked = config(**settings)
        return checked if time is None else config(**settings, steps=round(1000 * time / checked.timestep))
    except ValidationError as error:
        first = error.errors()[0]
        text = first["msg"].removeprefix("Input ")
        raise typer.BadParameter(f"--{first['loc'][0]} {text}, but {first['input']!r} was given") from error


def _plot(log: Path, summary: dict[str, Any]) -> str | None:
    import numpy as np

    from equiform.report.plots import dynamics

    columns = np.genfromtxt(log, delimiter=",", names=True, ndmin=1)
    if len(columns) < 2:
        return None
    path = dynamics(
        log.with_suffix(".png"),
        columns["time_fs"] / 1000,
        columns["temperature_K"],
        columns["total_energy_eV"],
        summary["atoms"],
        drift=summary.get("energy_drift_eV_per_atom_per_ps"),
        title=f"{summary['ensemble'].upper()}, {summary['atoms']} atoms, {summary['timestep_fs']:g} fs",
    )
    return str(path)


def _print_summary(summary: dict[str, Any]) -> None:
    rows = []
    for name, value in summary.items():
        if value is None:
            continue
        words = name
        for unit, written in UNITS.items():
            if name.endswith(unit):
                words = f"{name.removesuffix(unit)} ({written})"
        rows.append((words.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value)))
    print_table("", ("", ""), rows)


UNITS = {
    "_eV": "eV",
    "_K": "K",
    "_fs": "fs",
    "_ps": "ps",
    "_A3": "Å³",
    "_eV_per_atom": "eV/atom",
    "_eV_per_atom_per_ps": "eV/atom/ps",
    "_eV_per_A": "eV/Å",
    "_eV_per_A3": "eV/Å³",
}
"""Endings of names in a summary; a longer one that also matches comes later and wins."""
