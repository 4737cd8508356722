"""One round of active learning: train a committee, run it until it is unsure, label what it was unsure of, train again.

python examples/active_learning.py [section.key=value ...]

The reference is ASE's effective medium theory for a cluster of 13 copper atoms; put your own program in its place. The first
data are of 300 K, and the model is asked for 1200 K.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron
from ase.md.langevin import Langevin

FOLDER = Path("runs/active")


def reference() -> EMT:
    """The method that labels: `equiform label --with active_learning:reference`."""
    return EMT()


def sampled(temperature: float, count: int, seed: int) -> list[Atoms]:
    """Frames of molecular dynamics with the reference, 50 fs apart, with energies and forces."""
    atoms, frames = Icosahedron("Cu", 2), []
    atoms.calc = reference()
    rng = np.random.default_rng(seed)
    dynamics = Langevin(atoms, 5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng)
    for _ in range(count):
        dynamics.run(10)
        frame = atoms.copy()
        frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(frame)
    return frames


def equiform(*arguments: object) -> str:
    """Run a command of Equiform in the folder, from which this file can be imported; its output."""
    print("$ equiform", *arguments, flush=True)
    path = os.pathsep.join([str(Path(__file__).parent.absolute()), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "equiform", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=FOLDER, env=environment).stdout


def force_error(run: str, data: str) -> float:
    """Mean absolute error of a force component, meV/Å."""
    return 1000 * json.loads(equiform("evaluate", run, data, "--json"))["forces"]["mae"]


def main(settings: list[str]) -> None:
    FOLDER.mkdir(parents=True)
    ase.io.write(FOLDER / "cold.xyz", sampled(300, 60, seed=0), format="extxyz")
    ase.io.write(FOLDER / "hot.xyz", sampled(1200, 60, seed=1), format="extxyz")  # only to judge
    ase.io.write(FOLDER / "start.xyz", Icosahedron("Cu", 2), format="extxyz")

    training = ["training.members=3", "model=tiny", "training.max_minutes=3", *settings]
    equiform("train", "cold.xyz", *training, "-o", "round-1")
    equiform("uncertainty", "round-1")
    hot = ["--ensemble", "nvt", "--temperature", 1200, "--time", 5]
    print(equiform("md", "round-1", "start.xyz", *hot, "--stop-above", 0.03, "-o", "explored.extxyz"))
    print(equiform("select", "explored.extxyz", "--model", "round-1", "--count", 20, "--pool", 0.5, "-o", "chosen.extxyz"))
    print(equiform("label", "chosen.extxyz", "--with", "active_learning:reference", "-o", "new.extxyz"))
    equiform("train", "cold.xyz", "new.extxyz", *training, "-o", "round-2")
    for data, what in (("new.extxyz", "on the chosen structures"), ("hot.xyz", "at 1200 K")):
        before, after = (force_error(run, data) for run in ("round-1", "round-2"))
        print(f"force MAE {what}: {before:.0f} meV/Å before, {after:.0f} after")


if __name__ == "__main__":
    main(sys.argv[1:])
