"""The model `organic-gfn2` of the package: training in stages, energies, and its card's errors.

    python -m benchmarks.organic_gfn2 train DATA RUN [--start RUN] [--steps N] [--rate R] [--final R]
        [--energy W]
    python -m benchmarks.organic_gfn2 export RUN DATA FOLDER [--as-trained]
    python -m benchmarks.organic_gfn2 evaluate MODEL DATA
    python -m benchmarks.organic_gfn2 stability MODEL SMILES… [--temperature K] [--time PS]

`DATA` is the folder of `equiform data make polymers`. A stage resumes where it was stopped; `--start` begins a new one from
the best model of another, with whatever DATA holds by then.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

CUTOFF = 5.0
SIZE = {"channels": 64, "num_layers": 3, "num_heads": 8}
SEED = 1
GROUPS = ("test", "longer", "unseen", "molecules")


def train(data: Path, run: Path, start: Path | None, steps: int, rate: float, final: float, energy: float) -> None:
    """One stage."""
    from equiform.jobs.train import new_model
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model
    from equiform.recipes.schema import ModelChoice, model_config
    from equiform.training.config import EnergyLoss, ForcesLoss, Losses, TrainingConfig
    from equiform.training.fit import fit
    from equiform.training.run_folder import RunFolder
    from equiform.training.scale import initial_task

    prepared = _prepared(data, run)
    settings = TrainingConfig(
        batch_size=8,
        max_steps=steps,
        learning_rate=rate,
        final_learning_rate=final,
        warmup_fraction=min(100 / steps, 0.1),
        weight_decay=0,
        losses=Losses(energy=EnergyLoss(weight=energy) if energy else None, forces=ForcesLoss(weight=1.0)),
        validate_every=500,
        checkpoint_minutes=3,
        seed=SEED,
    )
    config = model_config(ModelChoice.model_validate({"name": "torchmd-et", "cutoff": CUTOFF, **SIZE}), prepared.elements, None)
    task: Any = initial_task(new_model(config, SEED), settings, prepared.train, prepared.elements)
    if start is not None:
        task = load_model(find_model(start)).task
    resume = (run / "run.json").exists()
    folder = RunFolder.open(run) if resume else RunFolder.create(run, reference_energies=prepared.reference_energies)
    fit(task, prepared.train, prepared.validation, settings, folder, resume=resume)


def _prepared(data: Path, run: Path) -> Any:
    """The data as they were when the stage began."""
    from equiform.data.config import DataConfig
    from equiform.data.pipeline.prepare import prepare_files
    from equiform.data.sets.polymers import ATOM_ENERGIES
    from equiform.runtime.files import write_atomically

    own = run.with_name(f"{run.name}-data")
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "train.extxyz").exists():
        for split in ("validation", "train"):
            parts = sorted((data / "trajectories").glob(f"*-{split}-*.extxyz"))
            write_atomically(own / f"{split}.extxyz", b"".join(path.read_bytes() for path in parts))
    validation = own / "validation.extxyz"
    return prepare_files(
        DataConfig(
            train=str(own / "train.extxyz"),
            validation=str(validation) if validation.stat().st_size else 0.08,
            reference_energies=ATOM_ENERGIES["gfn2"],
            seed=SEED,
        ),
        CUTOFF,
    )


def export(run: Path, data: Path, folder: Path, as_trained: bool) -> None:
    """The best model of a run as a model file, with energies by the linear map; as it is if it was trained on energies too."""
    import jax

    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model, save_model
    from equiform.training.energy_map import fit_energy_map

    found = load_model(find_model(run))
    task: Any = found.task
    mapped, better = fit_energy_map(task, _prepared(data, run).train)
    task = task if as_trained else better
    about = {"name": "organic-gfn2", "labels": "GFN2-xTB", "licence": "MIT", "energy_map": {"alpha": mapped.alpha}}
    save_model(folder, task, found.reference_energies, about, overwrite=True)
    symbols = {z: round(offset, 4) for z, offset in mapped.offsets.items()}
    size = sum(leaf.size for leaf in jax.tree.leaves(task.model) if hasattr(leaf, "size"))
    print(f"{size:,} parameters; alpha {mapped.alpha:.4f}, offsets {symbols} eV, {1e3 * mapped.residual:.1f} meV/atom rms")


def evaluate(model: str, data: Path) -> dict[str, Any]:
    """Errors by split, family and temperature, on the trajectories that the labelling method moved.

    The small molecules of the test split are a group of their own, `molecules`: other molecules than those in training.

    Returns:
        By group: force MAE, RMSE and mean cosine; MAE of energies per atom, and of energies relative to the mean of their
        trajectory; by family and by temperature the force MAE (meV/Å, meV).
    """
    from ase.io import read

    from equiform.deploy.predictor import load

    predictor = load(model)
    result: dict[str, Any] = {}
    for group in GROUPS:
        split = "test" if group == "molecules" else group
        paths = sorted((data / "trajectories").glob(f"*-{split}-method-*.extxyz"))
        paths = [path for path in paths if path.name.startswith("small-") == (group == "molecules")]
        frames: list[Any] = [atoms for path in paths if path.stat().st_size for atoms in read(path, ":")]
        if not frames:
            continue
        predictions = predictor.predict(frames)
        labels = [atoms.get_forces() for atoms in frames]
        errors = [p.forces - f for p, f in zip(predictions, labels)]
        energies = np.array([p.energy - atoms.get_potential_energy() for p, atoms in zip(predictions, frames)])
        sizes = np.array([len(atoms) for atoms in frames])
        names = np.array([f"{a.info['family']}-{a.info['units']}-{a.info['conformer']}" for a in frames])
        relative = np.concatenate([energies[names == n] - energies[names == n].mean() for n in np.unique(names)])
        result[group] = {
            "frames": len(frames),
            "forces_mae": _mae(errors),
            "forces_rmse": 1e3 * float(np.sqrt(np.mean(np.concatenate(errors) ** 2))),
            "zero_mae": _mae(labels),
            "cosine": float(np.mean(np.concatenate([_cosine(p.forces, f) for p, f in zip(predictions, labels)]))),
            "energy_per_atom_mae": 1e3 * float(np.abs(energies / sizes).mean()),
            "relative_energy_mae": 1e3 * float(np.abs(relative).mean()),
            "families": _by([a.info["family"] for a in frames], errors),
            "temperatures": _by([int(a.info["temperature"]) for a in frames], errors),
        }
    return result


def stability(model: str, molecules: list[str], temperature: float, picoseconds: float) -> list[dict[str, Any]]:
    """Langevin dynamics of molecules with the model; how long bonds hold, and the error of forces along the way.

    A run has failed when a bond leaves ±0.5 Å of its length at the start, the run explodes, or a temperature is three times
    that of the thermostat.
    """
    from equiform.data.formats.smiles import molecule_from_smiles
    from equiform.deploy.predictor import load
    from equiform.errors import UserError
    from equiform.simulate.labels import label
    from equiform.simulate.md.dynamics import MDConfig, run_md
    from equiform.simulate.relax import relax

    predictor, rows = load(model), []
    for smiles in molecules:
        start = relax(predictor, molecule_from_smiles(smiles, 1), optimizer="FIRE", fmax=0.05, steps=300).atoms
        atoms, survived, frames, count = start.copy(), 0.0, [], max(1, round(picoseconds / 0.1))
        for part in range(count):
            config = MDConfig(
                ensemble="nvt",
                temperature=temperature,
                keep_velocities=part > 0,
                steps=200,
                timestep=0.5,
                friction=0.002,
                seed=part,
                max_temperature=3 * temperature * (2 if part == 0 else 1),
            )
            try:
                atoms = run_md(predictor, atoms, config).atoms
            except UserError:
                break
            if _broken(start, atoms):
                break
            survived = 0.1 * (part + 1)
            frames.append(atoms.copy())
        labels = label(frames[:: max(1, len(frames) // 5)], "gfn2") if frames else []
        own = predictor.predict(frames[:: max(1, len(frames) // 5)]) if frames else []
        error = _mae([p.forces - forces for p, (_, forces) in zip(own, labels)]) if frames else float("nan")
        rows.append({"smiles": smiles, "atoms": len(start), "survived_ps": round(survived, 1), "forces_mae_on_the_way": error})
        print(rows[-1], flush=True)
    return rows


def _broken(start: Any, now: Any) -> bool:
    from ase.neighborlist import natural_cutoffs, neighbor_list

    i, j = neighbor_list("ij", start, natural_cutoffs(start))
    before, after = start.get_all_distances()[i, j], now.get_all_distances()[i, j]
    return bool((np.abs(after - before) > 0.5).any())


def _mae(arrays: Any) -> float:
    return 1e3 * float(np.abs(np.concatenate(arrays)).mean())


def _cosine(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (one * two).sum(1) / np.maximum(np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1), 1e-12)


def _by(keys: list[Any], errors: list[np.ndarray]) -> dict[str, float]:
    return {str(key): round(_mae([e for k, e in zip(keys, errors) if k == key]), 1) for key in sorted(set(keys))}


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stage = commands.add_parser("train")
    stage.add_argument("data", type=Path)
    stage.add_argument("run", type=Path)
    stage.add_argument("--start", type=Path)
    stage.add_argument("--steps", type=int, default=20_000)
    stage.add_argument("--rate", type=float, default=1e-3)
    stage.add_argument("--final", type=float, default=1e-6)
    stage.add_argument("--energy", type=float, default=0.0)
    out = commands.add_parser("export")
    out.add_argument("run", type=Path)
    out.add_argument("data", type=Path)
    out.add_argument("folder", type=Path)
    out.add_argument("--as-trained", action="store_true")
    check = commands.add_parser("evaluate")
    check.add_argument("model")
    check.add_argument("data", type=Path)
    runs = commands.add_parser("stability")
    runs.add_argument("model")
    runs.add_argument("smiles", nargs="+")
    runs.add_argument("--temperature", type=float, default=300)
    runs.add_argument("--time", type=float, default=2)
    given = parser.parse_args()
    if given.command == "train":
        train(given.data, given.run, given.start, given.steps, given.rate, given.final, given.energy)
    elif given.command == "export":
        export(given.run, given.data, given.folder, given.as_trained)
    elif given.command == "stability":
        stability(given.model, given.smiles, given.temperature, given.time)
    else:
        print(json.dumps(evaluate(given.model, given.data), indent=1))


if __name__ == "__main__":
    main()
