"""A tiny model of water, and data of another level of theory, for the tests of fine-tuning and uncertainty."""

import shutil
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.build import molecule
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator

from equiform.jobs.train import train
from equiform.recipes.schema import load_recipe

WATER_MODEL: dict[str, Any] = {
    "name": "torchmd-et",
    "elements": (1, 8),
    "num_layers": 2,
    "channels": 8,
    "num_heads": 2,
    "num_basis": 4,
    "cutoff": 3.0,
}
"""The settings of a model that compiles fast."""


def write(path: Path, name: str, count: int, seed: int, offsets: dict[str, float], forces: float = 1.0) -> Path:
    """Distorted molecules with Morse energies plus an offset for each atom, eV."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = molecule(name)
        atoms.positions += rng.normal(scale=0.08, size=(len(atoms), 3))
        atoms.calc = MorsePotential(epsilon=1.0, rho0=1.8, r0=1.2, rcut1=3.0, rcut2=3.9)
        energy = atoms.get_potential_energy() + sum(offsets[symbol] for symbol in atoms.get_chemical_symbols())
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces * atoms.get_forces())
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


def run(folder: Path, data: Path, *settings: str) -> tuple[Any, list[str]]:
    """A training run, and what it said."""
    lines: list[str] = []
    recipe, _ = load_recipe(None, list(settings), {"data": {"train": str(data)}})
    return train(recipe, folder, say=lines.append, warn=lines.append, progress=False), lines


def interrupted(folder: Path, copy: Path) -> Path:
    """A copy of a finished run, as it was at its last checkpoint but one."""
    shutil.copytree(folder, copy)
    newest = max(path.stem for path in (copy / "checkpoints").iterdir())
    for path in (copy / "checkpoints").glob(f"{newest}.*"):
        path.unlink()
    for name in ("best", "last"):
        shutil.rmtree(copy / name)
    return copy
