"""Check the ethanol data set and print the tables of its card.

    OMP_NUM_THREADS=1 python check.py --data FOLDER

``--quick`` leaves out everything that needs new electronic-structure calculations.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read
from ase.optimize import BFGS
from make import (
    EV,
    EV_PER_ANGSTROM,
    SOURCES,
    STARTS,
    TORSION,
    Label,
    Level,
    bonds,
    conformer,
    intact,
    label,
    solve,
)
from pyscf import dft, gto
from scipy.spatial.transform import Rotation

FILES = tuple(dict.fromkeys(source.file for source in SOURCES))
STEP = 1e-3
PAIRS = {"C-C": ("C", "C"), "C-O": ("C", "O"), "O-H": ("O", "H"), "C-H": ("C", "H")}
# Zero-point energy and atomisation energy at 0 K of ethanol in eV, from enthalpies of formation.
ZERO_POINT = 2.1
MEASURED_ATOMISATION = 33.0


class Labeller(Calculator):
    """The labelling level as an ASE calculator, to relax geometries with."""

    implemented_properties = ("energy", "forces")

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.level = level

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = label(self.atoms, self.level)
        self.results = {"energy": energy, "forces": forces}


def energy_at(atoms: Atoms, positions: np.ndarray, level: Level) -> float:
    """Energy in eV of ``atoms`` moved to ``positions``."""
    return float(solve(Atoms(atoms.numbers, positions), level).e_tot * EV)


def fingerprints(frames: list[Atoms]) -> np.ndarray:
    """Distances of each frame, sorted within each pair of elements: the same for a relabelled,
    rotated or mirrored copy."""
    rows = []
    first, second = np.triu_indices(len(frames[0]), 1)
    for atoms in frames:
        distances = atoms.get_all_distances()
        kinds = np.sort(atoms.numbers[np.stack([first, second])], axis=0)
        order = np.lexsort((distances[first, second], kinds[1], kinds[0]))
        rows.append(distances[first, second][order])
    return np.array(rows)


def nearest(rows: np.ndarray, others: np.ndarray) -> float:
    """Smallest root-mean-square difference between two fingerprints of different frames."""
    best = np.inf
    for index, row in enumerate(rows):
        gaps = np.sqrt(np.mean((others - row) ** 2, axis=1))
        if others is rows:
            gaps[index] = np.inf
        best = min(best, float(gaps.min()))
    return best


def check_ranges(sets: dict[str, list[Atoms]], reference: dict[str, float]) -> None:
    """Counts, energies, forces and bond lengths of each file."""
    print("\n| set | frames | trajectories | E - atoms, eV (min / mean / max) | rms force | max force |")
    print("|---|---|---|---|---|---|")
    for name, frames in sets.items():
        bound = [a.get_potential_energy() - sum(reference[s] for s in a.symbols) for a in frames]
        forces = np.array([atoms.get_forces() for atoms in frames])
        norms = np.linalg.norm(forces, axis=-1)
        count = len({atoms.info["trajectory"] for atoms in frames})
        print(
            f"| {name} | {len(frames)} | {count} "
            f"| {min(bound):.3f} / {np.mean(bound):.3f} / {max(bound):.3f} "
            f"| {np.sqrt(np.mean(forces**2)):.3f} | {norms.max():.2f} |"
        )
        assert np.abs(forces.sum(axis=1)).max() < 1e-6, "forces do not sum to zero"
        assert all(intact(atoms) for atoms in frames), "a molecule is broken"

    print("\n| set | " + " | ".join(f"{pair} Å" for pair in PAIRS) + " | C-C-O-H within 60° of trans |")
    print("|---|" + "---|" * (len(PAIRS) + 1))
    bonded = np.triu(bonds(conformer("trans"), 1.25))
    for name, frames in sets.items():
        cells = []
        symbols = np.array(frames[0].symbols)
        for first, second in PAIRS.values():
            pair = {first, second}
            chosen = [(i, j) for i, j in np.argwhere(bonded) if {symbols[i], symbols[j]} == pair]
            lengths = np.array([[a.get_distance(i, j) for i, j in chosen] for a in frames])
            cells.append(f"{lengths.min():.2f} to {lengths.max():.2f}")
        turned = np.array([atoms.get_dihedral(*TORSION) for atoms in frames])
        cells.append(f"{np.mean(np.abs(turned - 180) < 60):.0%}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def check_duplicates(sets: dict[str, list[Atoms]]) -> None:
    """The closest pair of frames within each file and between each two."""
    rows = {name: fingerprints(frames) for name, frames in sets.items()}
    print("\n| sets | closest pair: rms difference of sorted distances, Å |")
    print("|---|---|")
    for index, first in enumerate(FILES):
        for second in FILES[index:]:
            gap = nearest(rows[first], rows[second])
            print(f"| {first}, {second} | {gap:.4f} |")
            assert gap > 1e-3, "two frames are the same"
    first = FILES[0]
    steps = [
        np.sqrt(np.mean((now - then) ** 2))
        for (then, now), (one, two) in zip(pairwise(rows[first]), pairwise(sets[first]))
        if one.info["trajectory"] == two.info["trajectory"]
    ]
    shuffled = np.random.default_rng(0).permutation(len(rows[first]))
    apart = np.sqrt(np.mean((rows[first] - rows[first][shuffled]) ** 2, axis=1))
    print(
        f"\nSame measure in {first}: consecutive frames {np.mean(steps):.3f} on average, "
        f"random pairs {apart[shuffled != np.arange(len(shuffled))].mean():.3f}."
    )


def check_forces(sets: dict[str, list[Atoms]], level: Level) -> None:
    """Stored labels against central differences of new energies."""
    rng = np.random.default_rng(1)
    print("\n| frame | component | stored force, eV/Å | central difference | difference |")
    print("|---|---|---|---|---|")
    for name, index in ((FILES[0], 0), (FILES[1], -1), (FILES[2], 50)):
        atoms = sets[name][index]
        for flat in rng.choice(27, size=4, replace=False):
            move = np.zeros(27)
            move[flat] = STEP
            move = move.reshape(9, 3)
            ahead, behind = (energy_at(atoms, atoms.positions + s * move, level) for s in (1, -1))
            force, found = atoms.get_forces().flat[flat], (behind - ahead) / (2 * STEP)
            place = f"{atoms.symbols[flat // 3]}{flat // 3} {'xyz'[flat % 3]}"
            print(f"| {name}[{index}] | {place} | {force:.6f} | {found:.6f} | {found - force:+.1e} |")
            assert abs(found - force) < 1e-3, "force and energy disagree"

    gaps = []
    again = []
    for frames in sets.values():
        for index in rng.choice(len(frames), size=6, replace=False):
            atoms = frames[index]
            move = rng.normal(size=(9, 3))
            move *= STEP / np.linalg.norm(move)
            middle, ahead, behind = (energy_at(atoms, atoms.positions + s * move, level) for s in (0, 1, -1))
            slope = (behind - ahead) / (2 * STEP)
            gaps.append(slope - np.sum(atoms.get_forces() * move) / STEP)
            again.append(middle - atoms.get_potential_energy())
    print(
        f"\nSlope along a random direction of all 27 coordinates, {len(gaps)} frames: stored forces and "
        f"central differences differ by at most {np.abs(gaps).max():.1e} eV/Å; the energies computed again "
        f"differ from the stored ones by at most {np.abs(again).max():.1e} eV."
    )


def check_numerics(sets: dict[str, list[Atoms]], level: Level) -> None:
    """What orientation, grid, density fitting and basis set do to the labels."""
    rng = np.random.default_rng(2)
    chosen = [frames[i] for frames in sets.values() for i in rng.choice(len(frames), size=2, replace=False)]
    stored = np.array([atoms.get_potential_energy() for atoms in chosen])
    forces = np.array([atoms.get_forces() for atoms in chosen])
    print("\n| changed | energy less mean shift: max, eV | force: rms, eV/Å | force: max |")
    print("|---|---|---|---|")

    def report(what: str, found: list[Label]) -> None:
        shift = np.array([energy for energy, _ in found]) - stored
        change = np.array([new for _, new in found]) - forces
        print(
            f"| {what} | {np.abs(shift - shift.mean()).max():.1e} "
            f"| {np.sqrt(np.mean(change**2)):.1e} | {np.abs(change).max():.1e} |"
        )

    turned = []
    for atoms in chosen:
        turn = Rotation.random(rng=rng).as_matrix()
        energy, new = label(Atoms(atoms.numbers, atoms.positions @ turn.T), level)
        turned.append((energy, new @ turn))
    report("random orientation", turned)
    fine = Level(level.functional, level.basis, 5)
    report("grid level 5", [label(atoms, fine) for atoms in chosen])
    report("no density fitting", [unfitted(atoms, level) for atoms in chosen])
    large = Level(level.functional, "def2-TZVP", level.grid)
    report("def2-TZVP", [label(atoms, large) for atoms in chosen])


def unfitted(atoms: Atoms, level: Level) -> Label:
    """The label of a frame with exact Coulomb integrals."""
    mole = gto.M(atom=list(zip(atoms.symbols, atoms.positions)), basis=level.basis, verbose=0)
    field = dft.RKS(mole, xc=level.functional)
    field.grids.level = level.grid
    field.conv_tol, field.conv_tol_grad = 1e-10, 1e-5
    field.kernel()
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    return float(field.e_tot * EV), -gradient.kernel() * EV_PER_ANGSTROM


def check_minima(sets: dict[str, list[Atoms]], reference: dict[str, float], level: Level) -> None:
    """Relaxed conformers: no frame lies below them, and the atomisation energy is sane."""
    relaxed = {}
    for start in list(STARTS)[:2]:
        atoms = conformer(start)
        # An exactly symmetric start could stay on a saddle point.
        atoms.rattle(0.02, seed=3)
        atoms.calc = Labeller(level)
        BFGS(atoms, logfile=None).run(fmax=0.005, steps=80)
        relaxed[start] = atoms.get_potential_energy()
        print(f"\nRelaxed from {start}: torsion {atoms.get_dihedral(*TORSION):.1f}°, energy {relaxed[start]:.6f} eV.")
    lowest = min(relaxed.values())
    frames = min(a.get_potential_energy() for frames in sets.values() for a in frames)
    symbols = conformer("trans").symbols
    atomisation = sum(reference[symbol] for symbol in symbols) - lowest
    print(
        f"\nThe lowest frame lies {frames - lowest:.3f} eV above the lower minimum. The atomisation energy "
        f"is {atomisation:.2f} eV without zero-point energy; measured {MEASURED_ATOMISATION:.1f} eV at 0 K, "
        f"about {MEASURED_ATOMISATION + ZERO_POINT:.1f} eV once the zero-point energy is added back."
    )
    assert frames > lowest, "a frame lies below the relaxed minimum"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the extxyz files")
    parser.add_argument("--grid", type=int, default=2, help="PySCF grid level the labels were made with")
    parser.add_argument("--quick", action="store_true", help="only read the files")
    options = parser.parse_args()

    sets = {name: read(options.data / f"{name}.extxyz", index=":") for name in FILES}
    single = read(options.data / "ethanol_atoms.extxyz", index=":")
    reference = {str(atom.symbols): atom.get_potential_energy() for atom in single}
    functional, basis = single[0].info["level"].split("/")
    level = Level(functional, basis, options.grid)
    assert {a.info["level"] for frames in [single, *sets.values()] for a in frames} == {level.name}

    print("| file | bytes |")
    print("|---|---|")
    paths = sorted(options.data.glob("ethanol_*.extxyz"))
    for path in paths:
        print(f"| {path.name} | {path.stat().st_size} |")
    print(f"| total | {sum(path.stat().st_size for path in paths)} |")
    print("\nIsolated atoms: " + ", ".join(f"{s} {e:.6f} eV" for s, e in reference.items()) + ".")
    check_ranges(sets, reference)
    check_duplicates(sets)
    if not options.quick:
        check_forces(sets, level)
        check_numerics(sets, level)
        check_minima(sets, reference, level)


if __name__ == "__main__":
    main()
