"""`equiform lattice run | train | scan | analyze`: spins on a lattice, by exact and self-learning Monte Carlo."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from equiform.cli.app import Interrupted, app, examples, print_json, print_table, progress_bar, say, start_jax, warn

lattice = typer.Typer(no_args_is_help=True, help="Spins on a lattice: exact and self-learning Monte Carlo.")
app.add_typer(lattice, name="lattice")

Size = Annotated[str, typer.Option(help="Sites in both directions, at least 3 each.", metavar="LXxLY")]
Coupling = Annotated[float, typer.Option("--coupling", help="J of spins and electrons, in units of the hopping t.")]
Mu = Annotated[float, typer.Option("--mu", help="Chemical potential, in t; 0 is half filling.")]
Chains = Annotated[int, typer.Option(min=1, help="Independent chains, all at once.")]
Begin = Annotated[
    Literal["random", "ferromagnet", "neel", "mixed"],
    typer.Option("--start", help="First configurations; mixed takes ferromagnet, Néel and random in turn."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Keep = Annotated[int, typer.Option(min=1, help="Keep the spins of every n-th step.")]
BurnIn = Annotated[float, typer.Option("--burn-in", min=0.0, max=0.99, help="Fraction of the steps to leave out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the averages as JSON and nothing else.")]
Method = Annotated[
    Literal["determinant", "diagonalization"],
    typer.Option(help="How a flip gets its exact weight; both give the same chain, the first is faster."),
]


@lattice.callback()
def _lattice() -> None:
    """Spins on a lattice: exact and self-learning Monte Carlo."""


@lattice.command(
    epilog=examples(
        "equiform lattice run --temperature 0.05 --sweeps 2000 -o runs/exact",
        "equiform lattice run --temperature 0.05 --effective models/spins --sweeps 1000 -o runs/slmc",
        "equiform lattice run --size 12x12 --temperature 0.05 --effective models/spins --block 6 -o runs/large",
        "equiform lattice run --resume runs/exact --sweeps 4000",
    )
)
def run(
    temperature: Annotated[float | None, typer.Option(help="T, in units of the hopping t.")] = None,
    sweeps: Annotated[int, typer.Option("--sweeps", min=1, help="Sweeps, or proposals with --effective; in all.")] = 1000,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run.")] = None,
    size: Size = "6x6",
    coupling: Coupling = 1.0,
    mu: Mu = 0.0,
    effective: Annotated[
        Path | None, typer.Option(help="Self-learning with this model, from equiform lattice train.", metavar="MODEL")
    ] = None,
    effective_sweeps: Annotated[int, typer.Option(min=1, help="Effective sweeps of a proposal.")] = 3,
    local_sweeps: Annotated[int, typer.Option(min=0, help="Exact local sweeps before self-learning begins.")] = 30,
    block: Annotated[int | None, typer.Option(min=1, help="Edge of the blocks that proposals change, in sites.")] = None,
    method: Method = "determinant",
    chains: Chains = 4,
    start: Begin = "mixed",
    seed: Seed = 0,
    keep: Keep = 5,
    burn_in: BurnIn = 0.1,
    resume: Annotated[Path | None, typer.Option(help="Resume this run, up to --sweeps.", metavar="RUN")] = None,
    as_json: AsJson = False,
) -> None:
    """Sample the double-exchange model at one temperature; print averages with errors, write arrays and plots.

    Without --effective flips are local and exact. With it the effective model
    proposes and the exact weight decides: averages stay exact.
    """
    from equiform.persist.spin_model_file import load_effective
    from equiform.simulate.monte_carlo.chain_file import load_simulation
    from equiform.simulate.monte_carlo.run import advance, run_folder

    if resume is not None:
        if temperature is not None or output is not None or effective is not None:
            raise typer.BadParameter("--resume continues a run as it is, and takes only --sweeps")
        folder = resume
    elif temperature is None or output is None:
        raise typer.BadParameter("give --temperature and -o FOLDER, or --resume RUN")
    else:
        folder = output
        config = _settings(
            _model(size, coupling, mu),
            temperature=temperature,
            method=method,
            effective_sweeps=effective_sweeps,
            local_sweeps=local_sweeps,
            block=block,
            num_chains=chains,
            start=start,
            seed=seed,
            keep=keep,
        )
        if block is not None and effective is None:
            raise typer.BadParameter("--block is for proposals of an effective model; add --effective MODEL")
    start_jax()
    with progress_bar("sampling") as bar, _resumable(f"equiform lattice run --resume {folder} --sweeps {sweeps}"):
        if resume is not None:
            simulation, model = load_simulation(folder)
            advance(folder, simulation, sweeps, model, bar)
        else:
            model = load_effective(effective)[0] if effective is not None else None
            run_folder(folder, config, sweeps, model, progress=bar)
    _report([folder], burn_in, as_json)


@lattice.command(
    epilog=examples(
        "equiform lattice train runs/exact -o models/spins",
        "equiform lattice train runs/exact runs/slmc -o models/spins --layers 4 --seed 1",
        "equiform lattice train runs/exact -o models/linear --kind linear --shells 9",
    )
)
def train(
    runs: Annotated[list[Path], typer.Argument(help="Runs at one temperature, exact or self-learning.", metavar="RUNS")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the model.")],
    kind: Annotated[Literal["transformer", "linear"], typer.Option(help="The effective model.")] = "transformer",
    layers: Annotated[int, typer.Option(min=0, help="Layers of attention, added one by one.")] = 3,
    shells: Annotated[int, typer.Option(min=1, help="Shells of neighbours that are coupled, nearest first.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Training steps for each layer.")] = 5000,
    seed: Seed = 0,
    burn_in: BurnIn = 0.1,
) -> None:
    """Fit an effective model to the configurations and exact free energies of runs.

    The last fifth of every run is held out; the mean squared error on it says how
    often proposals will be accepted.
    """
    from math import erfc, sqrt

    from equiform.errors import UserError
    from equiform.persist.spin_model_file import save_effective
    from equiform.simulate.monte_carlo.chain_file import load_chain
    from equiform.simulate.monte_carlo.training import FitConfig, fit_linear, fit_transformer, mean_squared_error, split_runs

    found = [load_chain(folder)[:2] for folder in runs]
    first = found[0][0]
    if any((config.model, config.temperature) != (first.model, first.temperature) for config, _ in found):
        raise UserError("the runs are of different models or temperatures; an effective model is fitted to one of them")
    grid, temperature = first.model.lattice, first.temperature
    if shells > len(grid.shells):
        raise UserError(f"a {grid} lattice has {len(grid.shells)} shells of neighbours, not {shells}")
    start_jax()
    fitted, held_out = split_runs(found, burn_in)
    chosen = grid.shells[:shells]
    with progress_bar("training") as bar:
        if kind == "linear":
            model = fit_linear(grid, fitted, chosen)
        else:
            config = FitConfig(num_layers=layers, shells=chosen, steps=steps, seed=seed)
            model = fit_transformer(grid, fitted, temperature, config, progress=bar)[-1]
    error = mean_squared_error(grid, model, held_out, temperature)
    about = {"temperature": temperature, "model": first.model.model_dump(mode="json"), "held_out_mse": error, "seed": seed}
    save_effective(output, model, about)
    say(f"fitted to {len(fitted.free_energy)} configurations; held out: {len(held_out.free_energy)}")
    expected = erfc(sqrt(error) / 2)
    say(f"mean squared error of βF, held out: {error:.3f} (acceptance of independent proposals about {expected:.2f})")
    say(f"written: {output}")


@lattice.command(
    epilog=examples(
        "equiform lattice scan --from 0.5 --to 0.05 --points 10 --sweeps 1000 -o runs/scan",
        "equiform lattice scan --temperature 0.4 --temperature 0.1 --mu -0.5 --size 4x4 -o runs/doped",
        "equiform lattice scan --temperature 0.05 --mu 0 --mu -0.5 --mu -1 --mu -2 --start random -o runs/doping",
    )
)
def scan(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the scan; a scan there is resumed.")],
    temperatures: Annotated[list[float] | None, typer.Option("--temperature", help="One temperature; repeat it.")] = None,
    highest: Annotated[float, typer.Option("--from", help="Highest temperature.")] = 0.5,
    lowest: Annotated[float, typer.Option("--to", help="Lowest temperature.")] = 0.05,
    points: Annotated[int, typer.Option(min=2, help="Temperatures, evenly spaced in the logarithm.")] = 8,
    sweeps: Annotated[int, typer.Option("--sweeps", min=1, help="Sweeps at each temperature.")] = 500,
    size: Size = "6x6",
    coupling: Coupling = 1.0,
    mu: Annotated[
        list[float] | None, typer.Option("--mu", help="Chemical potential, in t (0: half filling); repeat it to scan doping.")
    ] = None,
    chains: Chains = 4,
    start: Begin = "mixed",
    seed: Seed = 0,
    keep: Keep = 5,
    burn_in: BurnIn = 0.1,
    as_json: AsJson = False,
) -> None:
    """Anneal from high to low temperature with the exact local sampler: energy, specific heat, magnetisations, density.

    Several --mu scan doping: each chemical potential is annealed separately.
    """
    import numpy as np

    from equiform.errors import UserError
    from equiform.simulate.monte_carlo.run import scan_folder

    if min(highest, lowest) <= 0:
        raise UserError(f"temperatures must be positive, got {highest:g} and {lowest:g}")
    chosen = temperatures or [float(f"{t:.4g}") for t in np.geomspace(highest, lowest, points)]
    potentials = mu or [0.0]
    models = [_model(size, coupling, potential) for potential in potentials]
    config = _settings(models[0], temperature=max(chosen), num_chains=chains, start=start, seed=seed, keep=keep)
    start_jax()
    with progress_bar("annealing") as bar, _resumable("the same command"):
        several = potentials if len(potentials) > 1 else ()
        folders = scan_folder(output, config, chosen, sweeps, chemical_potentials=several, progress=bar)
    _report(folders, burn_in, as_json, output)


@lattice.command(
    epilog=examples(
        "equiform lattice analyze runs/exact runs/slmc",
        "equiform lattice analyze runs/scan/* -o runs/scan --burn-in 0.2",
        "equiform lattice analyze runs/exact --json",
    )
)
def analyze(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUNS")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for a table and plot of all runs.")] = None,
    burn_in: BurnIn = 0.1,
    as_json: AsJson = False,
) -> None:
    """Averages of runs with errors by blocking, autocorrelation times, R̂, structure factor and correlations."""
    _report(runs, burn_in, as_json, output)


def _model(size: str, coupling: float, mu: float) -> Any:
    from equiform.lattice import parse_lattice
    from equiform.simulate.monte_carlo.double_exchange import DoubleExchangeConfig

    return _checked(DoubleExchangeConfig, size=parse_lattice(size).size, coupling=coupling, chemical_potential=mu)


def _settings(model: Any, **settings: Any) -> Any:
    from equiform.simulate.monte_carlo.simulation import SimulationConfig

    return _checked(SimulationConfig, model=model, **settings)


def _checked(config: Callable[..., Any], **settings: Any) -> Any:
    """A configuration; a value out of range gives one line."""
    from pydantic import ValidationError

    from equiform.errors import UserError

    try:
        return config(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name, text = first["loc"][0], first["msg"].removeprefix("Input ")
        raise UserError(f"{str(name).replace('_', ' ')} {text}, but {first['input']!r} was given") from error


class _resumable:
    """Says how to resume when the user stops a run; all steps so far are on disk."""

    def __init__(self, how: str):
        self._how = how

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"resume with: {self._how}") from error


def _report(folders: list[Path], burn_in: float, as_json: bool, together: Path | None = None) -> None:
    """Print the averages of runs, and write arrays and plots beside them."""
    from equiform.report.lattice_plots import draw_run, draw_scan
    from equiform.simulate.monte_carlo.analysis import correlations, summarize
    from equiform.simulate.monte_carlo.chain_file import load_chain
    from equiform.simulate.monte_carlo.tables import columns, write_correlations, write_summaries

    summaries, written = [], []
    for folder in folders:
        config, trace, _ = load_chain(folder)
        summaries.append(summarize(config, trace, burn_in))
        found = correlations(config.model.lattice, trace, burn_in)
        written.append(write_summaries(folder / "averages.csv", summaries[-1:]))
        written.append(write_correlations(folder / "correlations.npz", found))
        written.append(draw_run(folder / "run.png", config, trace, found))
    if together is not None:
        together.mkdir(parents=True, exist_ok=True)
        written = [write_summaries(together / "scan.csv", summaries)]
        written.append(draw_scan(together / "scan.png", summaries, f"{config.model.lattice}, J = {config.model.coupling:g}"))
    if as_json:
        print_json([{"run": str(folder), **columns(one)} for folder, one in zip(folders, summaries)])
        return
    heads = ("run", "T", "μ", "steps", "acceptance", "E/N", "C/N", "electrons/N", "|m|", "|m_s|", "τ_F", "τ_m", "τ_ms", "R̂")
    rows = [_row(folder, one) for folder, one in zip(folders, summaries)]
    print_table("", heads, rows, right=range(1, len(heads)))
    for folder, one in zip(folders, summaries):
        longest = max((time for time in one.times if time == time), default=0.0)
        if longest > one.steps / 20:
            warn(f"{folder}: an autocorrelation time of {longest:.0f} in {one.steps} steps; errors are too small, run longer")
        if max((value for value in one.r_hat if value == value), default=1.0) > 1.1:
            warn(f"{folder}: the chains have not mixed (R̂ above 1.1); run longer, or leave out more with --burn-in")
    for path in written:
        say(f"written: {path}")


def _row(folder: Path, one: Any) -> tuple[str, ...]:
    averages = (one.acceptance, one.energy, one.specific_heat, one.density, one.magnetization, one.staggered)
    shown = [f"{found.value:.4f} ± {found.error:.4f}" for found in averages]
    times = [f"{time:.1f}" for time in one.times]
    return (
        str(folder),
        f"{one.temperature:g}",
        f"{one.chemical_potential:g}",
        str(one.steps),
        *shown,
        *times,
        f"{max(one.r_hat):.3f}",
    )
