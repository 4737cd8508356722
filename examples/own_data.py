"""Structures and labels of your own program as extended XYZ, and a potential trained on them.

python examples/own_data.py [section.key=value ...]
"""

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator


def label(calculator: Calculator, count: int = 60) -> list[ase.Atoms]:
    """Displaced water molecules with energies and forces; put your own program in place of the calculator."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.08, size=(3, 3))
        atoms.calc = calculator
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def main(settings: list[str]) -> None:
    Path("runs").mkdir(exist_ok=True)
    frames = label(MorsePotential(epsilon=4.0, rho0=3.0, r0=1.0, rcut1=3.0, rcut2=3.9))
    ase.io.write("runs/water.xyz", frames, format="extxyz")
    equiform = [sys.executable, "-m", "equiform"]
    subprocess.run([*equiform, "info", "runs/water.xyz"], check=True)
    subprocess.run([*equiform, "train", "runs/water.xyz", "training.max_minutes=2", *settings], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
