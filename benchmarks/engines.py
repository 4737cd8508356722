"""Each route to a simulation program: deviation from ASE and milliseconds per step, by size of the system.

    python -m benchmarks.engines [--model MODEL] [--sizes 64 1000] [--steps 20] [--routes LAMMPS OpenMM]

A cubic crystal of silicon, slightly displaced, in NVE dynamics in float64. Without a model: a small EGNN with random weights
and forces up to 0.01 eV/Å; then the time is mostly that of the route. Deviations are of the first structure: energy per atom
against ASE's calculator, and the largest difference of forces by the largest force. Times are of `--steps` steps after those
that compile; the machine's load shows in them.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ase
import ase.units
import jax
import numpy as np
from ase.build import bulk

from equiform.data.units import ENERGY
from equiform.deploy.ase import calculator
from equiform.deploy.engines import find, state_of
from equiform.deploy.predictor import Predictor, load
from equiform.errors import UserError
from equiform.models import build_model, parse_config
from equiform.tasks.energy import Potential

CUTOFF = 4.0  # Å: 17 neighbours in silicon
TIMESTEP = 0.5  # fs
WARM = 3
MOST_IN_JAX_MD = 2000  # atoms; 1,000 ran and 8,000 asked for 105 GB, which grows with the square


class Outcome(NamedTuple):
    """Energy (eV) and forces (eV/Å) of the first structure, and seconds per step."""

    energy: float
    forces: np.ndarray
    seconds: float


def crystal(size: int) -> ase.Atoms:
    """Silicon with at most this number of atoms, in cells of 8."""
    edge = max(1, round((size / 8) ** (1 / 3)))
    atoms = bulk("Si", "diamond", a=5.43, cubic=True) * (edge, edge, edge)
    atoms.rattle(0.05, seed=0)
    return atoms


def small_model() -> Predictor:
    """An EGNN of one layer with random weights, scaled so that the largest force on 64 displaced atoms is 0.01 eV/Å.

    Atoms hardly move then, as in a crystal at rest: a random model is not stable at larger ones.
    """
    config = parse_config({"name": "egnn", "elements": (14,), "channels": 8, "num_layers": 1, "cutoff": CUTOFF})
    with jax.enable_x64(True):
        model = build_model(config, key=jax.random.key(0))
        first = Predictor(Potential(model, elements=(14,), anchored=True), dtype="float64")
        largest = np.abs(first.forces(crystal(64))).max()
        return Predictor(Potential(model, elements=(14,), anchored=True, scale=0.01 / largest), dtype="float64")


def by_ase(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """ASE's velocity Verlet."""
    from ase.md.verlet import VelocityVerlet

    atoms.calc = calculator(predictor)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces().copy()
    run = VelocityVerlet(atoms, TIMESTEP * ase.units.fs)
    return Outcome(energy, forces, _timed(run.run, steps))


def by_own_loop(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """The compiled loop of `equiform md`."""
    from equiform.simulate.md.dynamics import MDConfig, run_md

    first = predictor.predict_one(atoms)
    config = MDConfig(
        steps=max(200, steps), timestep=TIMESTEP, temperature=1, frame_interval=1000, log_interval=1000, stop_when_apart=False
    )
    result = run_md(predictor, atoms, config)
    return Outcome(first.energy, first.forces, 1 / float(result.summary["steps_per_second"]))


def by_lammps(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """`fix external`, on one rank."""
    from equiform.deploy.lammps import attach, open_lammps

    lmp = open_lammps(["-screen", "none", "-log", "none"])
    edges = " ".join(f"0 {length:.17g}" for length in np.diag(atoms.cell.array))
    lmp.commands_string(f"units metal\natom_modify map yes\nregion b block {edges}\ncreate_box 1 b\nmass 1 28.085")
    wrapped = atoms.get_positions(wrap=True, eps=0).ravel().tolist()
    lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), [1] * len(atoms), wrapped)
    attach(lmp, predictor, types="Si")
    lmp.commands_string(f"fix move all nve\ntimestep {TIMESTEP / 1000}\nneighbor 0.3 bin\nrun 0")
    energy, forces = lmp.get_thermo("pe"), np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)
    seconds = _timed(lambda count: lmp.command(f"run {count} post no"), steps)
    lmp.close()
    return Outcome(energy, forces, seconds)


def by_openmm(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """`PythonForce`, on OpenMM's reference platform."""
    import openmm
    from openmm import app, unit

    from equiform.deploy.openmm import system

    topology = app.Topology()
    residue = topology.addResidue("SIL", topology.addChain())
    for _ in atoms:
        topology.addAtom("Si", app.Element.getBySymbol("Si"), residue)
    topology.setPeriodicBoxVectors([openmm.Vec3(*row) * unit.angstrom for row in atoms.cell.array])
    integrator = openmm.VerletIntegrator(TIMESTEP * unit.femtosecond)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system(predictor, topology), integrator, platform)
    context.setPositions(atoms.positions * unit.angstrom)
    found = context.getState(getEnergy=True, getForces=True)
    energy = found.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * ENERGY["kJ/mol"]
    forces = found.getForces(asNumpy=True)._value * ENERGY["kJ/mol"] / 10
    return Outcome(energy, forces, _timed(integrator.step, steps))


def by_jax_md(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """JAX MD's NVE integrator, a step per call."""
    import jax.numpy as jnp
    from jax_md import simulate, space

    from equiform.deploy.jaxmd import neighbor_list

    if len(atoms) > MOST_IN_JAX_MD:
        raise UserError("JAX MD's list of all images is made from all pairs: beyond memory")
    with jax.enable_x64(True):
        lattice = jnp.asarray(atoms.cell.array.T)
        neighbor_fn, energy_fn = neighbor_list(predictor, atoms.numbers, np.asarray(lattice))
        points = jnp.asarray(atoms.get_scaled_positions())
        neighbors = neighbor_fn.allocate(points)
        energy = float(energy_fn(points, neighbor=neighbors)) + predictor.reference_energy(atoms)
        forces = -np.asarray(jax.grad(energy_fn)(points, neighbor=neighbors))
        _, shift = space.periodic_general(lattice, fractional_coordinates=True)
        init, apply = simulate.nve(energy_fn, shift, dt=TIMESTEP * ase.units.fs)
        state = init(jax.random.key(0), points, kT=0.0, mass=28.085, neighbor=neighbors)

        @jax.jit
        def one(state: object, neighbors: object) -> tuple[object, object]:
            neighbors = neighbors.update(state.position)  # pyright: ignore[reportAttributeAccessIssue]
            return apply(state, neighbor=neighbors), neighbors

        def run(count: int) -> None:
            nonlocal state, neighbors
            for _ in range(count):
                state, neighbors = one(state, neighbors)
            jax.block_until_ready(state)

        return Outcome(energy, forces, _timed(run, steps))


def by_torchsim(predictor: Predictor, atoms: ase.Atoms, steps: int) -> Outcome:
    """TorchSim's NVE integrator."""
    import torch
    import torch_sim
    from torch_sim.integrators.nve import nve

    from equiform.deploy.torchsim import TorchSimModel

    model = TorchSimModel(predictor)
    state = torch_sim.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64)
    found = model(state)
    first = found["energy"].item(), found["forces"].numpy()
    init, step = nve(model, dt=torch.tensor(TIMESTEP * ase.units.fs), kT=torch.tensor(0.0))
    moved = init(state, seed=0)

    def run(count: int) -> None:
        nonlocal moved
        for _ in range(count):
            moved = step(moved)

    return Outcome(*first, _timed(run, steps))


ROUTES: dict[str, Callable[[Predictor, ase.Atoms, int], Outcome]] = {
    "ASE": by_ase,
    "own loop": by_own_loop,
    "LAMMPS": by_lammps,
    "OpenMM": by_openmm,
    "jax-md": by_jax_md,
    "TorchSim": by_torchsim,
}


def _timed(run: Callable[[int], object], steps: int) -> float:
    run(WARM)
    begin = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begin) / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=list(ROUTES))
    settings = parser.parse_args()
    predictor = load(settings.model, "float64") if settings.model else small_model()
    print("| route | atoms | energy, eV/atom | forces, relative | ms per step |\n|---|--:|--:|--:|--:|")
    for size in settings.sizes:
        atoms = crystal(size)
        truth = calculator(predictor).predictor.predict_one(atoms)
        for name in settings.routes:
            if name != "own loop" and not state_of(find(name)).works:
                print(f"| {name} | {len(atoms)} | not installed | | |")
                continue
            try:
                found = ROUTES[name](predictor, atoms.copy(), settings.steps)
            except UserError as error:
                print(f"| {name} | {len(atoms)} | {error} | | |")
                continue
            energy = abs(found.energy - truth.energy) / len(atoms)
            forces = np.abs(found.forces - truth.forces).max() / np.abs(truth.forces).max()
            print(f"| {name} | {len(atoms)} | {energy:.1e} | {forces:.1e} | {1000 * found.seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
