"""Does a force field for polymers hold in dynamics, and does it move as GFN2-xTB does?

    python -m benchmarks.polymer_dynamics survival MODEL [--temperatures 300 500] [--time 20] [--seeds 0] -o runs/survival.jsonl
    python -m benchmarks.polymer_dynamics decane MODEL [--time 5] -o runs/decane.json

`survival` runs Langevin dynamics of eight oligomers (two of lengths seen in training, two longer, four of families not seen),
0.5 fs, friction 0.002/fs. A run fails when a bond leaves ±0.5 Å of its length in the relaxed molecule, the run explodes, or the
temperature is three times the thermostat's. GFN2-xTB then labels 20 frames of each run: the error where the model itself goes.

`decane` runs the same dynamics with the model and with GFN2-xTB, two seeds each: the distribution h(r) of distances, the
fraction of trans dihedrals, and the drift of the energy without a thermostat. The difference of two seeds of GFN2-xTB is the
scale. Needs `equiform[polymers]`. A repeated command only makes the missing runs.
"""

import argparse
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

OLIGOMERS = {
    "PS": (2, "seen"),
    "PEO": (3, "seen"),
    "PE": (8, "longer"),
    "PLA": (5, "longer"),
    "PVDF": (4, "unseen"),
    "PVAc": (2, "unseen"),
    "PCL": (2, "unseen"),
    "PET": (1, "unseen"),
}
"""Family: number of units, and what training has seen of it."""

TIMESTEP, BETWEEN = 0.5, 100
"""fs; steps from one frame to the next, where bonds are looked at."""


def survival(predictor: Any, start: Any, temperature: float, picoseconds: float, seed: int) -> dict[str, Any]:
    """One run of a molecule, and the error of its forces on up to 20 frames of it.

    Args:
        predictor: The model.
        start: The molecule; the model relaxes it first.
        temperature: K.
        picoseconds: Length.
        seed: Of velocities and thermostat.

    Returns:
        Survival time (ps), whether it is the whole length, force error (meV/Å) on the way.
    """
    from ase.io import read

    from equiform.errors import UserError
    from equiform.simulate.labels import label
    from equiform.simulate.md.dynamics import MDConfig, run_md
    from equiform.simulate.relax import relax

    start = relax(predictor, start, optimizer="FIRE", fmax=0.05, steps=500).atoms
    steps = round(picoseconds * 1000 / TIMESTEP)
    config = MDConfig(
        ensemble="nvt",
        temperature=temperature,
        steps=steps,
        timestep=TIMESTEP,
        friction=0.002,
        seed=seed,
        max_temperature=3 * temperature,
        frame_interval=BETWEEN,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.traj"
        with contextlib.suppress(UserError):  # it exploded, or is too hot: the frames until then are there
            run_md(predictor, start, config, trajectory=path)
        frames: list[Any] = read(path, ":")[1:]
    intact = next((k for k, atoms in enumerate(frames) if broken(start, atoms)), len(frames))
    chosen = frames[: max(intact, 1) : max(1, intact // 20)][:20]
    labels, own = label(chosen, "gfn2"), predictor.predict(chosen)
    errors = np.concatenate([prediction.forces - forces for prediction, (_, forces) in zip(own, labels)])
    return {
        "survived_ps": intact * BETWEEN * TIMESTEP / 1000,
        "held": intact == steps // BETWEEN,
        "forces_on_the_way": 1e3 * float(np.abs(errors).mean()),
    }


def broken(start: Any, now: Any) -> bool:
    """Whether a bond of `start` has left ±0.5 Å of its length there."""
    from ase.neighborlist import natural_cutoffs, neighbor_list

    i, j = neighbor_list("ij", start, natural_cutoffs(start, mult=1.2))
    before, after = start.get_all_distances()[i, j], now.get_all_distances()[i, j]
    return bool((np.abs(after - before) > 0.5).any())


def distances(frames: list[Any]) -> np.ndarray:
    """h(r): density of all distances between atoms, 100 bins to 10 Å."""
    upper = np.triu_indices(len(frames[0]), 1)
    values = np.concatenate([atoms.get_all_distances()[upper] for atoms in frames])
    return np.histogram(values, bins=100, range=(0, 10), density=True)[0]


def trans_fraction(frames: list[Any]) -> float:
    """Fraction of carbon dihedrals along the chain beyond 120°; the carbons are in the order of the chain."""
    carbons = [atom.index for atom in frames[0] if atom.symbol == "C"]
    chains = [carbons[k : k + 4] for k in range(len(carbons) - 3)]
    angles = np.array([atoms.get_dihedral(*chain) for atoms in frames for chain in chains])
    return float((np.abs((angles + 180) % 360 - 180) > 120).mean())


def thermal(calculator: Any, start: Any, seed: int, picoseconds: float) -> list[Any]:
    """Frames of Langevin dynamics at 300 K, one every 10 fs, after 0.5 ps."""
    from equiform.simulate.labels import sample_langevin

    steps, interval = round(picoseconds * 1000 / TIMESTEP), round(10 / TIMESTEP)
    settings = {"temperature": 300.0, "timestep": TIMESTEP, "friction": 0.002, "equilibration": 1000, "interval": interval}
    taken = sample_langevin(start, calculator, np.random.default_rng(seed), frames=steps // interval, **settings)
    return [atoms for atoms, _, _ in taken]


def drift(calculator: Any, start: Any, picoseconds: float) -> float:
    """Slope of the total energy of velocity Verlet from 300 K, meV per atom and ps."""
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from equiform.simulate.md.velocities import maxwell_boltzmann

    atoms = start.copy()
    atoms.calc = calculator
    atoms.set_velocities(maxwell_boltzmann(atoms.get_masses(), 300.0, seed=0))
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()))
    dynamics.run(round(picoseconds * 1000 / TIMESTEP))
    times = np.arange(len(energies)) * TIMESTEP / 1000
    return 1e3 * float(np.polyfit(times, energies, 1)[0]) / len(atoms)


def _survivals(options: argparse.Namespace) -> None:
    from equiform.data.formats.smiles import atoms_of, embedded
    from equiform.data.sets.polymers import FAMILIES, chain
    from equiform.deploy.predictor import load

    predictor, out = load(options.model), options.out
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.is_file() else []
    done = {(row["family"], row["temperature"], row["seed"]) for row in rows}
    wanted = [(family, t, seed) for seed in options.seeds for t in options.temperatures for family in OLIGOMERS]
    out.parent.mkdir(parents=True, exist_ok=True)
    for family, temperature, seed in wanted:
        if (family, temperature, seed) in done:
            continue
        units, kind = OLIGOMERS[family]
        start = atoms_of(embedded(chain(FAMILIES[family].unit, units), family, 1000 + seed))
        about = {"family": family, "units": units, "kind": kind, "temperature": temperature, "seed": seed, "atoms": len(start)}
        rows.append(about | survival(predictor, start, temperature, options.time, seed))
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    print("| oligomer | training has seen | atoms | K | seed | survived, ps | force error on the way, meV/Å |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        name = f"{row['family']}, n = {row['units']}"
        time = f"{row['survived_ps']:.1f}{'' if row['held'] else ' (failed)'}"
        numbers = f"{row['atoms']} | {row['temperature']:g} | {row['seed']} | {time} | {row['forces_on_the_way']:.1f}"
        print(f"| {name} | {row['kind']} | {numbers} |")


def _decane(options: argparse.Namespace) -> None:
    from equiform.data.formats.smiles import atoms_of, embedded, parsed_smiles
    from equiform.deploy.ase import calculator
    from equiform.simulate.labels import label_calculator

    start = atoms_of(embedded(parsed_smiles("CCCCCCCCCC"), "decane", 1))
    movers = {"model": lambda: calculator(options.model), "gfn2": lambda: label_calculator("gfn2")}
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, mover in movers.items():
        for seed in (0, 1):
            if f"{name}-{seed}" not in found:
                frames = thermal(mover(), start, seed, options.time)
                found[f"{name}-{seed}"] = {"h": distances(frames).tolist(), "trans": trans_fraction(frames)}
                options.out.write_text(json.dumps(found), encoding="utf-8")
        if f"{name}-drift" not in found:
            found[f"{name}-drift"] = drift(mover(), start, min(options.time, 2.0))
            options.out.write_text(json.dumps(found), encoding="utf-8")
    h = {name: np.array(run["h"]) for name, run in found.items() if isinstance(run, dict)}
    pairs = [(f"model-{k}", f"gfn2-{j}") for k in (0, 1) for j in (0, 1)]
    apart = [float(np.abs(h[one] - h[two]).sum() / h[two].sum()) for one, two in [*pairs, ("gfn2-0", "gfn2-1")]]
    print(f"h(r), relative difference: model and GFN2-xTB {np.mean(apart[:4]):.3f}, two seeds of GFN2-xTB {apart[4]:.3f}")
    for name, shown in (("model", "the model"), ("gfn2", "GFN2-xTB")):
        trans = ", ".join(f"{found[f'{name}-{seed}']['trans']:.2f}" for seed in (0, 1))
        print(f"{shown}: trans {trans}; drift {found[f'{name}-drift']:+.4f} meV/atom/ps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("survival")
    runs.add_argument("--temperatures", nargs="+", type=float, default=[300.0, 500.0])
    runs.add_argument("--time", type=float, default=20.0, help="ps")
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    compared = commands.add_parser("decane")
    compared.add_argument("--time", type=float, default=5.0, help="ps")
    for command in (runs, compared):
        command.add_argument("model")
        command.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    (_survivals if options.command == "survival" else _decane)(options)


if __name__ == "__main__":
    main()
