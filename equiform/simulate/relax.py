"""Relaxation of a structure, and optionally of its cell, with ASE's optimisers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from equiform.deploy.predictor import Predictor
from equiform.deploy.structures import has_stress
from equiform.errors import UserError
from equiform.runtime.files import explained

if TYPE_CHECKING:
    from ase import Atoms

OptimizerName = Literal["FIRE", "LBFGS", "BFGS"]
_UPHILL = 1e-4  # eV/atom above its start, at which an end is not a minimum that was reached; float32 energies are known to 1e-6
_CELL_HEADROOM = 1.6  # edges: room for a cell that shrinks to two thirds of its volume without compiling again
_CELL_STEP = 0.04  # Å, and as the strain of a cell of one atom
ADVICE = "free some space or choose another place"


class RelaxProgress(NamedTuple):
    """A step of a relaxation: energy in eV, maximum force in eV/Å (including the filter's force on the cell, if relaxed)."""

    step: int
    energy: float
    max_force: float


@dataclass(frozen=True)
class RelaxResult:
    """The end of a relaxation.

    Attributes:
        atoms: The relaxed structure with its energy, forces and, if periodic, stress.
        summary: Plain values, ready for JSON; the names carry the units.
    """

    atoms: "Atoms"
    summary: dict[str, Any]

    @property
    def converged(self) -> bool:
        return self.summary["converged"]


def relax(
    predictor: Predictor,
    atoms: "Atoms",
    *,
    optimizer: OptimizerName = "FIRE",
    fmax: float = 0.01,
    steps: int = 1000,
    cell: bool = False,
    trajectory: str | Path | None = None,
    overwrite: bool = False,
    max_force: float = 1000.0,
    progress: Callable[[RelaxProgress], None] | None = None,
) -> RelaxResult:
    """Follow the forces to a minimum of the energy.

    Args:
        predictor: The model; float64 is advisable below an `fmax` of 1e-3 eV/Å.
        atoms: The initial structure; it is not changed. ASE constraints are respected.
        optimizer: "FIRE" (robust), "LBFGS" or "BFGS" (fewer steps near a minimum).
        fmax: Convergence criterion: maximum force on an atom, eV/Å.
        steps: Maximum number of steps.
        cell: Relax the cell as well.
        trajectory: File that every step is written to: *.traj, *.extxyz or *.xyz.
        overwrite: Whether an existing trajectory may be replaced.
        max_force: A larger force ends the relaxation, eV/Å.
        progress: Progress callback, called after every step.

    Raises:
        UserError: The structure or the file is unsuitable, or the forces explode.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.optimize import BFGS, FIRE, LBFGS

    from equiform.deploy.ase import EquiformCalculator
    from equiform.simulate.md.trajectory import check_outputs

    optimizers: dict[str, Any] = {"FIRE": FIRE, "LBFGS": LBFGS, "BFGS": BFGS}
    if optimizer not in optimizers:
        raise UserError(f"there is no optimizer {optimizer!r}; choose one of {', '.join(optimizers)}")
    if not fmax > 0 or steps < 0:
        raise UserError(f"fmax must be positive and steps not negative, not {fmax} and {steps}")
    if cell and not (has_stress(atoms) and atoms.pbc.all()):
        raise UserError(
            f"the cell of {atoms.get_chemical_formula()} cannot be relaxed: it is not periodic along all three directions"
        )
    path = None if trajectory is None else Path(trajectory)
    check_outputs({"trajectory": path}, overwrite=overwrite)
    if path is not None:
        with explained(f"cannot write {path}", ADVICE):
            path.unlink(missing_ok=True)

    atoms = atoms.copy()
    atoms.calc = EquiformCalculator(predictor, headroom=_CELL_HEADROOM) if cell else EquiformCalculator(predictor)
    target = _cell_filter(atoms) if cell else atoms
    # Steps of 0.2, ASE's default, are strains with which a cell flies apart to where there are no forces.
    more: dict[str, Any] = {"maxstep": _CELL_STEP} if cell else {}
    driver = optimizers[optimizer](target, logfile=None, **more)

    def observe() -> None:
        forces = np.linalg.norm(target.get_forces(), axis=-1).max(initial=0.0)
        _check(float(np.linalg.norm(atoms.get_forces(), axis=-1).max(initial=0.0)), max_force, driver.nsteps)
        if path is not None:
            _append(path, atoms)
        if progress is not None:
            progress(RelaxProgress(driver.nsteps, float(atoms.get_potential_energy()), float(forces)))

    initial_energy = float(atoms.get_potential_energy())
    driver.attach(observe)
    with warnings.catch_warnings():
        # SciPy's warning about the cell filter's matrix logarithm: an error of 1e-13, which is harmless.
        warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
        converged = bool(driver.run(fmax=fmax, steps=steps))
    results = dict(atoms.calc.results)
    calculator = atoms.calc
    atoms.calc = SinglePointCalculator(atoms, **results)
    above = float(results["energy"]) - initial_energy
    risen = above > _UPHILL * len(atoms)
    free = atoms.get_forces()  # of constrained atoms: zero
    summary = {
        "converged": converged and not risen,
        "optimizer": optimizer,
        "steps": driver.nsteps,
        "initial_energy_eV": initial_energy,
        "energy_eV": float(results["energy"]),
        "above_start_eV": above if risen else None,
        "max_force_eV_per_A": float(np.linalg.norm(free, axis=-1).max(initial=0.0)),
        "fmax_eV_per_A": fmax,
        "compilations": calculator.compilations,
        "trajectory": None if path is None else str(path),
    }
    if has_stress(atoms):
        summary["max_stress_eV_per_A3"] = float(np.abs(results["stress"]).max())
        summary["volume_A3"] = float(atoms.get_volume())
    return RelaxResult(atoms, summary)


def _cell_filter(atoms: "Atoms") -> Any:
    from ase.filters import FrechetCellFilter

    return FrechetCellFilter(atoms)


def _check(force: float, limit: float, step: int) -> None:
    if not force <= limit:
        raise UserError(
            f"the relaxation exploded at step {step}: a force of {force:.4g} eV/Å, above the limit of {limit:g} eV/Å; "
            "the structure is outside the model's domain"
        )


def _append(path: Path, atoms: "Atoms") -> None:
    from ase.io.trajectory import Trajectory
    from ase.stress import voigt_6_to_full_3x3_stress

    from equiform.data.formats.extxyz import structure_text

    with explained(f"cannot write {path}", ADVICE):
        if path.suffix == ".traj":
            file: Any = Trajectory(str(path), "a")
            with file:
                file.write(atoms)
            return
        results: Any = getattr(atoms.calc, "results", {})
        labels: dict[str, Any] = {"energy": float(results["energy"])}
        if "stress" in results:
            labels["stress"] = voigt_6_to_full_3x3_stress(results["stress"])
        text, _ = structure_text(atoms, {"forces": results["forces"]}, labels, keep_labels=False)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(text)
