"""Plausibility of the numbers: tests of units and signs by physics, each with its reason.

Each test returns a line for the user or None, and is silent unless the evidence is clear.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from equiform.data.units import HARTREE, KCAL_MOL
from equiform.neighbors import Labels

if TYPE_CHECKING:
    import ase

# Non-relativistic energies of the ground states of H … Ar, Hartree. Source: Chakravorty et al., Phys. Rev. A 47 (1993)
# 3649 (three digits are enough here).
_ATOMS_HARTREE = np.concatenate(
    (
        [0, -0.500, -2.904],
        [-7.478, -14.667, -24.654, -37.845, -54.589, -75.067, -99.734, -128.938],
        [-162.255, -200.053, -242.346, -289.359, -341.259, -398.110, -460.148, -527.540],
    )
)


def unit_warnings(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels]) -> list[str]:
    """Tests of the unit of each label alone."""
    found = (energy_unit_warning(structures, labels), forces_size_warning(labels), stress_size_warning(labels))
    return [line for line in found if line is not None]


def energy_unit_warning(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels]) -> str | None:
    """Total energies against those of free atoms with all their electrons.

    No total energy in eV lies far below that of the atoms with all electrons (27.2 eV per Hartree, ≈ −0.5
    Z^2.4 Hartree); and energies within a bond's energy of the sum of the atoms' Hartree values are in
    Hartree.
    """
    rows = [k for k, label in enumerate(labels) if label.energy is not None][:2000]
    if not rows:
        return None
    energies = np.array([labels[k].energy for k in rows])
    bound = np.array([-0.5 * (structures[k].numbers.astype(float) ** 2.4).sum() for k in rows])
    ratio = float(np.median(energies / bound))
    if ratio > 45:
        guess = {"kcal/mol": 1 / KCAL_MOL, "kJ/mol": 4.184 / KCAL_MOL, "meV": 1000.0}
        name = min(guess, key=lambda unit: abs(np.log(ratio / (guess[unit] * HARTREE))))
        return (
            f"energies are clearly not in eV: they are {ratio / HARTREE:.0f} times the largest that all electrons of the "
            f"atoms could have; they look like {name}; set data.energy_unit={name}"
        )
    light = [k for k, row in enumerate(rows) if structures[row].numbers.max() < len(_ATOMS_HARTREE)]
    if not light:
        return None
    atoms = np.array([_ATOMS_HARTREE[structures[rows[k]].numbers].sum() for k in light])
    number = np.array([len(structures[rows[k]]) for k in light])
    bond = (energies[light] - atoms) / number  # Hartree per atom, if it is Hartree
    if np.mean((bond > -0.45) & (bond < 0.05)) > 0.9 and np.median(atoms / number) < -2:
        return (
            f"energies are clearly not in eV: {energies[light[0]]:.4f} for {_formula(structures[rows[light[0]]])} is the "
            f"energy in Hartree (its free atoms have {atoms[0]:.1f} Hartree = {atoms[0] * HARTREE:.0f} eV); set "
            "data.energy_unit=Hartree"
        )
    return None


def length_unit_warning(ratios: Float[np.ndarray, "atoms"]) -> str | None:
    """Nearest distances over sums of covalent radii: about 1 in everything that is bound."""
    if len(ratios) < 5:
        return None
    typical = float(np.median(ratios))
    if typical < 0.55:
        guess = "nm" if typical < 0.2 else "a unit larger than Å"
        return (
            f"nearest atoms are at {typical:.2f} times the sum of their covalent radii: positions look like {guess}; set "
            "data.length_unit"
        )
    if 1.75 < typical < 2.1:
        return (
            f"nearest atoms are at {typical:.2f} times the sum of their covalent radii: positions look like Bohr (1.89 per "
            "Å); if so set data.length_unit=Bohr"
        )
    return None


def forces_size_warning(labels: Sequence[Labels]) -> str | None:
    """Typical forces of thermal structures are 0.1 to 5 eV/Å."""
    norms = [np.linalg.norm(label.forces, axis=1) for label in labels if label.forces is not None]
    if not norms:
        return None
    typical = float(np.median(np.concatenate(norms)))
    if typical > 15:
        return f"the median force on an atom is {typical:.3g} eV/Å, more than bonds sustain: is the unit kcal/mol/Å?"
    return None


def stress_size_warning(labels: Sequence[Labels]) -> str | None:
    """1 eV/Å³ is 160 GPa."""
    stresses = [label.stress for label in labels if label.stress is not None]
    if not stresses:
        return None
    typical = float(np.median(np.abs(np.concatenate(stresses))))
    if typical > 1:
        return (
            f"the median stress component is {typical:.3g} eV/Å³ = {typical * 160.2:.0f} GPa: the unit looks like GPa or "
            "kbar; set data.stress_unit"
        )
    return None


def reference_warning(
    interaction_per_atom: Float[np.ndarray, "structures"], source: str, references: Mapping[int, float]
) -> str | None:
    """Interaction energies are a few eV per atom below zero if the reference energies belong to the data."""
    if not references or "least" in source or len(interaction_per_atom) == 0:
        return None
    typical = float(np.median(interaction_per_atom))
    if -15 < typical < 1:
        return None
    what = "unbound by" if typical > 0 else "bound by"
    return (
        f"the reference energies ({source}) do not fit the energies: atoms would be {what} {abs(typical):.3g} eV each (bonds "
        "give 1 to 9 eV); were they computed with another method or unit? reference_energies=fit does without"
    )


def _formula(atoms: "ase.Atoms") -> str:
    return atoms.get_chemical_formula()
