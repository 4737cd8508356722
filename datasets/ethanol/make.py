"""Make the ethanol data set: GFN2-xTB molecular dynamics, labelled with PBE by PySCF.

    pip install pyscf tblite ase
    OMP_NUM_THREADS=1 python make.py --work /tmp/ethanol --output .

The work folder holds the trajectories and one line per labelled frame. A run that was stopped
picks up where it left off when it is started again with the same options.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.io import read, write
from ase.md.langevin import Langevin
from pyscf import dft, gto
from pyscf.data import nist

# PySCF turns angstrom into bohr with its own constants; the labels have to go back with the same
# ones, or forces would not be the exact gradient of the energies.
EV = nist.HARTREE2EV
EV_PER_ANGSTROM = nist.HARTREE2EV / nist.BOHR

TIMESTEP_FS = 0.5
FRICTION_PER_FS = 0.01
EQUILIBRATION_STEPS = 4000
STEPS_BETWEEN_FRAMES = 200

# Atoms in ASE's ethanol: 0 and 1 are carbon, 2 oxygen, 3 the hydroxyl hydrogen.
TORSION = (0, 1, 2, 3)
STARTS = {"trans": 180.0, "gauche+": 60.0, "gauche-": 300.0}

# Unpaired electrons in the ground state of each isolated atom.
UNPAIRED = {"H": 1, "C": 2, "O": 2}

# Energy in eV and forces in eV/angstrom.
Label = tuple[float, np.ndarray]


@dataclass(frozen=True)
class Source:
    """Several independent trajectories at one temperature that feed one output file."""

    file: str
    temperature: int
    trajectories: int
    frames: int


SOURCES = (
    Source("ethanol_train", 500, 6, 36),
    Source("ethanol_train", 650, 6, 36),
    Source("ethanol_train", 800, 6, 36),
    Source("ethanol_500K", 500, 4, 25),
    Source("ethanol_1000K", 1000, 4, 25),
)


@dataclass(frozen=True)
class Level:
    """A density-functional level of theory."""

    functional: str
    basis: str
    grid: int

    @property
    def name(self) -> str:
        return f"{self.functional}/{self.basis}"


def conformer(start: str) -> Atoms:
    """Ethanol with the C-C-O-H torsion of the named conformer."""
    atoms = molecule("CH3CH2OH")
    atoms.set_dihedral(*TORSION, STARTS[start], indices=[3])
    return atoms


def bonds(atoms: Atoms, slack: float) -> np.ndarray:
    """Which pairs are closer than ``slack`` times the sum of their covalent radii."""
    radii = covalent_radii[atoms.numbers]
    close = atoms.get_all_distances() < slack * (radii[:, None] + radii[None, :])
    np.fill_diagonal(close, False)
    return close


def intact(atoms: Atoms) -> bool:
    """Whether the molecule still is ethanol: every bond there, and no new one."""
    bonded = bonds(molecule("CH3CH2OH"), 1.25)
    return bool(bonds(atoms, 1.5)[bonded].all() and not bonds(atoms, 1.15)[~bonded].any())


def run_trajectory(start: str, temperature: int, frames: int, seed: list[int]) -> list[Atoms]:
    """One Langevin trajectory with GFN2-xTB, as evenly spaced frames after equilibration."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    atoms = conformer(start)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * spread[:, None])
    # fixcm=True would sample a slightly wrong ensemble for so small a molecule; the molecule may
    # drift instead, and every frame is moved back to the origin.
    bath = {"temperature_K": temperature, "friction": FRICTION_PER_FS / units.fs, "rng": rng}
    dynamics = Langevin(atoms, TIMESTEP_FS * units.fs, fixcm=False, **bath)
    dynamics.run(EQUILIBRATION_STEPS)
    kept, kinetic = [], []
    for index in range(frames):
        dynamics.run(STEPS_BETWEEN_FRAMES)
        kinetic.append(atoms.get_temperature())
        centred = atoms.positions - atoms.get_center_of_mass()
        # Labels belong to the positions as they are written, so the rounding comes first.
        frame = Atoms(atoms.numbers, np.round(centred, 8))
        frame.info = {"time_fs": (index + 1) * STEPS_BETWEEN_FRAMES * TIMESTEP_FS}
        kept.append(frame)
    print(f"  {start} {temperature} K: mean kinetic temperature {np.mean(kinetic):.0f} K", flush=True)
    return kept


def sample(work: Path, seed: int) -> dict[str, Atoms]:
    """All intact frames by key, in order of file and trajectory; made once and kept in ``work``."""
    collected: dict[str, Atoms] = {}
    broken = 0
    number = 0
    for source in SOURCES:
        for index in range(source.trajectories):
            start = list(STARTS)[index % len(STARTS)]
            path = work / f"trajectory-{seed}-{number:02d}.extxyz"
            if not path.exists():
                frames = run_trajectory(start, source.temperature, source.frames, [seed, number])
                partial = path.with_suffix(".part")
                write(partial, frames, format="extxyz")
                partial.rename(path)
            for at, frame in enumerate(read(path, index=":")):
                if not intact(frame):
                    broken += 1
                    continue
                frame.info |= {"temperature": source.temperature, "trajectory": number, "start": start}
                collected[f"{source.file}/{number}/{at}"] = frame
            number += 1
    print(f"{len(collected)} frames, {broken} left out because a bond had changed", flush=True)
    return collected


def solve(atoms: Atoms, level: Level) -> dft.rks.RKS:
    """Converge the closed-shell Kohn-Sham equations with density fitting."""
    mole = gto.M(atom=list(zip(atoms.symbols, atoms.positions)), basis=level.basis, verbose=0)
    field = dft.RKS(mole, xc=level.functional).density_fit()
    # Without stored integrals PySCF makes them again in every cycle for a pure functional.
    field.with_df.build()
    field.conv_check = False
    # Most cycles run on a coarse grid. That saves more than the density of the previous frame,
    # which is far away after 100 fs, and leaves labels independent of the order of the frames.
    field.grids.level = min(1, level.grid)
    field.conv_tol, field.conv_tol_grad = 1e-6, 1e-3
    field.kernel()
    density = field.make_rdm1()
    field.grids = dft.gen_grid.Grids(mole)
    field.grids.level = level.grid
    field.conv_tol, field.conv_tol_grad = 1e-10, 1e-5
    field.kernel(dm0=density)
    if not field.converged:
        raise RuntimeError("the self-consistent field did not converge")
    return field


def label(atoms: Atoms, level: Level) -> Label:
    """Energy in eV and analytic forces in eV/angstrom."""
    field = solve(atoms, level)
    gradient = field.nuc_grad_method()
    # The grid moves with the atoms: only with its response are these the derivative of the energy.
    gradient.grid_response = True
    forces = -gradient.kernel() * EV_PER_ANGSTROM
    return float(field.e_tot * EV), forces


def atom_energy(symbol: str, level: Level, seed: int, attempts: int = 8) -> tuple[float, float, float]:
    """Lowest spin-polarised energy of an atom in eV, with the spread over starts and <S^2>.

    Open p shells have several self-consistent solutions, so the search starts from several
    disturbed densities and follows every instability down.
    """
    rng = np.random.default_rng([seed, 1000 + ord(symbol)])
    mole = gto.M(atom=f"{symbol} 0 0 0", basis=level.basis, spin=UNPAIRED[symbol], verbose=0)
    found = []
    for attempt in range(attempts):
        field = dft.UKS(mole, xc=level.functional).density_fit()
        field.grids.level = level.grid
        field.conv_tol, field.conv_tol_grad = 1e-11, 1e-6
        density = np.asarray(field.get_init_guess())
        noise = rng.normal(scale=0.1, size=density.shape) * (attempt > 0)
        field.kernel(dm0=density + noise + noise.swapaxes(-1, -2))
        field = field.newton()
        for _ in range(5):
            orbitals, _, stable, _ = field.stability(return_status=True)
            if stable and field.converged:
                break
            field.kernel(orbitals, field.mo_occ)
        if field.converged:
            found.append((float(field.e_tot * EV), float(field.spin_square()[0])))
    lowest, spin = min(found)
    return lowest, max(found)[0] - lowest, spin


def labelling_order(keys: list[str]) -> list[str]:
    """Keys spread evenly over the files and trajectories, so that a partial run is balanced."""
    # Multiples of the golden ratio, modulo one, spread any run of consecutive frames evenly.
    return [key for _, key in sorted((at * 0.6180339887 % 1.0, key) for at, key in enumerate(keys))]


def load_labels(path: Path) -> dict[str, Label]:
    """The labels kept so far; a line cut short by a kill is dropped."""
    labels = {}
    if path.exists():
        whole = path.read_text().rpartition("\n")[0]
        path.write_text(whole + "\n" if whole else "")
        for line in whole.splitlines():
            entry = json.loads(line)
            labels[entry["key"]] = (entry["energy"], np.array(entry["forces"]))
    return labels


def save(output: Path, frames: dict[str, Atoms], labels: dict[str, Label], atoms: dict[str, float], level: Level) -> None:
    """Write every labelled frame to the file of its set, and the isolated atoms to theirs."""
    common = {"level": level.name, "units": "eV,Angstrom"}
    files: dict[str, list[Atoms]] = {"ethanol_atoms": []}
    for symbol, energy in atoms.items():
        atom = Atoms(symbol, positions=[(0.0, 0.0, 0.0)])
        atom.info = {"config_type": "IsolatedAtom", **common}
        atom.calc = SinglePointCalculator(atom, energy=round(energy, 8), forces=np.zeros((1, 3)))
        files["ethanol_atoms"].append(atom)
    for key, frame in frames.items():
        if key not in labels:
            continue
        energy, forces = labels[key]
        done = Atoms(frame.numbers, frame.positions)
        done.info = {**frame.info, **common}
        done.calc = SinglePointCalculator(done, energy=round(energy, 8), forces=forces)
        files.setdefault(key.split("/")[0], []).append(done)
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        partial = output / f"{name}.part"
        write(partial, content, format="extxyz")
        partial.rename(output / f"{name}.extxyz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--work", type=Path, required=True, help="folder for what is kept between runs")
    option("--output", type=Path, required=True, help="folder for the extxyz files")
    option("--seed", type=int, default=20, help="seed of all trajectories")
    option("--functional", default="PBE", help="as PySCF names it")
    option("--basis", default="def2-SVP", help="as PySCF names it")
    option("--grid", type=int, default=2, help="PySCF grid level, 0 to 9")
    option("--save-every", type=int, default=150, help="labels between two partial outputs")
    options = parser.parse_args()
    level = Level(options.functional, options.basis, options.grid)
    options.work.mkdir(parents=True, exist_ok=True)

    atoms: dict[str, float] = {}
    for symbol in UNPAIRED:
        atoms[symbol], spread, spin = atom_energy(symbol, level, options.seed)
        print(f"{symbol}: {atoms[symbol]:.6f} eV, spread {spread:.6f} eV, <S^2> {spin:.4f}", flush=True)

    frames = sample(options.work, options.seed)
    kept = options.work / f"labels-{options.seed}-{level.name.replace('/', '-')}-{level.grid}.jsonl"
    labels = load_labels(kept)
    waiting = [key for key in labelling_order(list(frames)) if key not in labels]
    begin = time.time()
    with kept.open("a") as stream:
        for count, key in enumerate(waiting, start=1):
            energy, forces = label(frames[key], level)
            labels[key] = (energy, forces)
            stream.write(json.dumps({"key": key, "energy": energy, "forces": forces.tolist()}) + "\n")
            stream.flush()
            if count % 20 == 0:
                pace = (time.time() - begin) / count
                print(f"{len(labels)}/{len(frames)} labelled, {pace:.2f} s each", flush=True)
            if count % options.save_every == 0:
                save(options.output, frames, labels, atoms, level)
    save(options.output, frames, labels, atoms, level)
    print(f"labelled {len(waiting)} frames in {(time.time() - begin) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
