"""Small made-up data whose energies and forces belong together."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

SYMBOLS = "C2H6O"
# Reference energies of nothing in particular, eV.
E0 = {1: -13.6, 6: -1029.0, 8: -2041.0}


def springs(positions, rest):
    """Every pair is a spring of 5 eV/Å²: energy (eV, zero at rest) and forces (eV/Å)."""
    vectors = positions[:, None] - positions[None]
    lengths = np.sqrt((vectors**2).sum(-1) + np.eye(len(positions)))
    stretch = (lengths - rest) * (1 - np.eye(len(positions)))
    return 1.25 * (stretch**2).sum(), -5 * ((stretch / lengths)[:, :, None] * vectors).sum(axis=1)


def molecules(number=40, *, seed=0, symbols=SYMBOLS, bound=-40.0, turned=True):
    """Vibrating and tumbling molecules with energies and forces in `info` and `arrays` under no usual name."""
    rng = np.random.default_rng(seed)
    numbers = Atoms(symbols).numbers
    grid = np.array([(i, j, k) for i in range(3) for j in range(3) for k in range(3)], float) * 1.3
    still = grid[: len(numbers)]
    rest = np.linalg.norm(still[:, None] - still[None], axis=-1) + np.eye(len(still))
    structures = []
    for _ in range(number):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0] if turned else np.eye(3)
        turn *= np.sign(np.linalg.det(turn))
        positions = (still + 0.06 * rng.normal(size=still.shape)) @ turn + rng.normal(size=3)
        energy, forces = springs(positions, rest)
        atoms = Atoms(numbers, positions)
        atoms.info["true"] = energy + bound + sum(E0.get(int(z), -100.0 * z) for z in numbers)
        atoms.arrays["true_f"] = forces
        structures.append(atoms)
    return structures


def labelled(structures, *, energy=1.0, forces=1.0, names=("energy", "forces")):
    """The same with labels where ASE's readers put them, multiplied by factors."""
    result = []
    for atoms in structures:
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        values = {names[0]: energy * atoms.info["true"], names[1]: forces * atoms.arrays["true_f"]}
        if names == ("energy", "forces"):
            copy.calc = SinglePointCalculator(copy, **values)
        else:
            copy.info[names[0]], copy.arrays[names[1]] = values.values()
        result.append(copy)
    return result


def isolated_atoms(energies=E0):
    """One lone atom per element."""
    result = []
    for number, energy in energies.items():
        atoms = Atoms([number], [[0.0, 0, 0]])
        atoms.info["config_type"] = "IsolatedAtom"
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        result.append(atoms)
    return result
