"""The model `organic-gfn2` of the package: its file, and the errors on its card.

    equiform data make polymers -o DATA
    equiform train DATA/train.extxyz data.validation=DATA/validation.extxyz data.test=DATA/test.extxyz model=tiny \\
        training.max_steps=17000 training.learning_rate=1e-2 \\
        "data.reference_energies={H: -10.7072, C: -48.7981, N: -70.9081, O: -102.5218, \\
        F: -125.6986, Si: -42.7113, S: -85.6195, Cl: -121.9757}" -o RUN
    equiform uncertainty RUN
    python -m benchmarks.organic_gfn2 export RUN FOLDER
    python -m benchmarks.organic_gfn2 evaluate MODEL DATA

Training resumes with `equiform train --resume RUN`. Dynamics: `benchmarks.polymer_dynamics`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = ("test", "longer", "unseen", "molecules")


def export(run: Path, folder: Path) -> None:
    """The best model of a run, with its uncertainty, as a model of the package.

    Raises:
        UserError: No uncertainty was calibrated: `equiform uncertainty RUN` does it.
    """
    import jax

    from equiform.errors import UserError
    from equiform.persist.find import find_model
    from equiform.persist.modelfile import load_model, save_model
    from equiform.persist.uncertainty import load_uncertainty, save_uncertainty

    found, spread = load_model(find_model(run)), load_uncertainty(find_model(run))
    if spread is None:
        raise UserError(f"calibrate its uncertainty first: equiform uncertainty {run}")
    about = {"name": "organic-gfn2", "labels": "GFN2-xTB", "licence": "MIT"}
    save_model(folder, found.task, found.reference_energies, about, overwrite=True)
    save_uncertainty(folder, spread, {"validation": "the validation split of the polymer set"})
    size = sum(leaf.size for leaf in jax.tree.leaves(found.task) if hasattr(leaf, "size"))
    print(f"{folder}: {size:,} numbers")


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
    out = commands.add_parser("export")
    out.add_argument("run", type=Path)
    out.add_argument("folder", type=Path)
    check = commands.add_parser("evaluate")
    check.add_argument("model")
    check.add_argument("data", type=Path)
    given = parser.parse_args()
    if given.command == "export":
        export(given.run, given.folder)
    else:
        print(json.dumps(evaluate(given.model, given.data), indent=1))


if __name__ == "__main__":
    main()
