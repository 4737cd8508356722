"""Labels: energies and forces of structures by an electronic-structure method, or by any ASE calculator.

`gfn2` and `gfn1` are the semi-empirical GFN2-xTB and GFN1-xTB (Bannwarth et al. 2019, Grimme et al. 2017) by tblite.
`MODULE:NAME` is a function without arguments (or a class) that returns an ASE calculator.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

XTB = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}


def method_name(method: str) -> str:
    """What labels by a method are called in files."""
    return XTB.get(method, method)


def label_calculator(method: str) -> Any:
    """An ASE calculator.

    Args:
        method: `gfn2`, `gfn1` or `MODULE:NAME`.

    Raises:
        UserError: tblite is missing, or there is no such method, module or name.
    """
    if method in XTB:
        # tblite's OpenMP threads gain nothing for molecules, and several processes share the cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            from tblite.ase import TBLite
        except ImportError:
            raise UserError(f"labels of {XTB[method]} need tblite: pip install 'equiform[polymers]'") from None
        return TBLite(method=XTB[method], verbosity=0)
    module, colon, name = method.partition(":")
    if not colon:
        raise UserError(f"there is no method {method!r}; there are {', '.join(XTB)}, and MODULE:NAME for any ASE calculator")
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{method!r} cannot be imported: {error}") from None
    return make()


def energy_and_forces(atoms: "Atoms", calculator: Any) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å.

    Raises:
        UserError: The calculator failed, or its answer is not finite.
    """
    atoms = atoms.copy()
    atoms.calc = calculator
    return _evaluated(atoms)


def sample_langevin(
    atoms: "Atoms",
    calculator: Any,
    rng: np.random.Generator,
    *,
    temperature: float,
    timestep: float,
    friction: float,
    equilibration: int,
    interval: int,
    frames: int,
) -> "list[tuple[Atoms, float, np.ndarray]]":
    """Frames of Langevin dynamics (BAOAB) with their labels.

    Velocities are drawn at twice the temperature: from a minimum, half of the kinetic energy goes into the potential one.

    Args:
        atoms: A structure near a minimum.
        calculator: An ASE calculator.
        rng: Random numbers.
        temperature: K.
        timestep: fs.
        friction: 1/fs.
        equilibration: Number of steps before the first frame.
        interval: Number of steps from frame to frame.
        frames: Number of frames.

    Returns:
        (structure, energy in eV, forces in eV/Å).

    Raises:
        UserError: The calculator failed.

    Source: Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013).
    """
    from ase import units

    atoms = atoms.copy()
    atoms.calc = calculator
    step, masses = timestep * units.fs, atoms.get_masses()[:, None]
    keep = np.exp(-friction * timestep)
    noise = np.sqrt((1 - keep**2) * units.kB * temperature / masses)
    velocities = np.sqrt(2 * units.kB * temperature / masses) * rng.standard_normal((len(atoms), 3))
    energy, forces = _evaluated(atoms)
    taken = []
    for number in range(equilibration + interval * (frames - 1) + 1):
        if number >= equilibration and (number - equilibration) % interval == 0:
            taken.append((atoms.copy(), energy, forces))
            if len(taken) == frames:
                break
        velocities += 0.5 * step * forces / masses
        atoms.positions += 0.5 * step * velocities
        velocities = keep * velocities + noise * rng.standard_normal(velocities.shape)
        atoms.positions += 0.5 * step * velocities
        energy, forces = _evaluated(atoms)
        velocities += 0.5 * step * forces / masses
    return taken


def _evaluated(atoms: Any) -> tuple[float, np.ndarray]:
    """Energy and forces by the calculator that a structure has."""
    try:
        energy, forces = float(atoms.get_potential_energy()), np.asarray(atoms.get_forces(), float)
    except Exception as error:  # each calculator has exceptions of its own
        atoms.calc.reset()  # a restart from the last density may be what failed
        try:
            energy, forces = float(atoms.get_potential_energy()), np.asarray(atoms.get_forces(), float)
        except Exception:
            message = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"no label for {atoms.get_chemical_formula()}: {message}") from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise UserError(f"no label for {atoms.get_chemical_formula()}: energy or forces are not finite")
    return energy, forces


def changed_bonds(before: "Atoms", after: "Atoms", tolerance: float = 1.3) -> bool:
    """Whether the bond graph differs: pairs nearer than the sum of their covalent radii times the tolerance."""
    return not np.array_equal(_bonds(before, tolerance), _bonds(after, tolerance))


def _bonds(atoms: "Atoms", tolerance: float) -> np.ndarray:
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    return atoms.get_all_distances() < tolerance * (radii[:, None] + radii[None, :])


def label(
    structures: "Sequence[Atoms]",
    method: str,
    *,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[float, np.ndarray]]:
    """Energies, eV, and forces, eV/Å, of structures.

    Args:
        structures: In Å.
        method: See `label_calculator`.
        names: What messages call them; their formulas if not given.
        progress: Called with (structures done, structures in all).

    Raises:
        UserError: There is no such method, or it fails for a structure.
    """
    calculator, labels = label_calculator(method), []
    for number, atoms in enumerate(structures):
        if number and not np.array_equal(atoms.numbers, structures[number - 1].numbers):
            calculator = label_calculator(method)  # no density of another molecule
        try:
            labels.append(energy_and_forces(atoms, calculator))
        except UserError as error:
            raise UserError(f"{names[number]}: {error}" if names else str(error)) from error
        if progress is not None:
            progress(number + 1, len(structures))
    return labels
