"""Commands as people type them, and what they are given."""

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.morse import MorsePotential
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from equiform.cli import app
from tests.toy import ToyConfig, ToyModel

MORSE = {"epsilon": 1.0, "rho0": 1.8, "r0": 1.2, "rcut1": 3.0, "rcut2": 3.9}


class Result:
    """Exit status and both streams of a command."""

    def __init__(self, *arguments: Any):
        ended = CliRunner().invoke(app, ["--no-cache", *map(str, arguments)])
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        self.status, self.out, self.err = ended.exit_code, ended.stdout, ended.stderr

    def error(self, status: int = 1) -> str:
        """The one line of an error."""
        assert self.status == status, (self.status, self.out, self.err)
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0]


def structures(count: int, seed: int = 0) -> list[Atoms]:
    """Water molecules with energies and forces of ASE's Morse potential."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.08, size=(3, 3))
        atoms.calc = MorsePotential(**MORSE)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        found.append(atoms)
    return found


def save_toy(folder: Path, elements: tuple[int, ...] = (1, 6, 8)) -> None:
    import jax

    from equiform.persist.modelfile import save_model
    from equiform.tasks.energy import Potential

    model = ToyModel(ToyConfig(elements=elements), key=jax.random.key(0))
    save_model(folder, Potential(model), dict.fromkeys(elements, -10.0), {})


def write(path: str, frames: list[Atoms]) -> None:
    ase.io.write(path, frames, format="extxyz")
