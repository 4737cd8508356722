"""Do the numbers mean what they claim? Tests of units and signs that rest on physics, each with its reason.

Each test returns a line for the user or None, and is made to stay silent unless the evidence is plain.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equiform.data.formats.units import HARTREE, KCAL_MOL, energy_factor, forces_factor
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
# What people mix up: the units of energy and of forces as stored.
_MIXTURES = (
    ("Hartree", "eV/Å"),
    ("Hartree", "Hartree/Bohr"),
    ("eV", "Hartree/Bohr"),
    ("eV", "Hartree/Å"),
    ("kcal/mol", "eV/Å"),
    ("eV", "kcal/mol/Å"),
    ("kJ/mol", "eV/Å"),
    ("eV", "kJ/mol/Å"),
    ("kcal/mol", "Hartree/Bohr"),
    ("Hartree", "kcal/mol/Å"),
    ("Rydberg", "eV/Å"),
    ("eV", "Rydberg/Bohr"),
    ("meV", "eV/Å"),
)


_CLEAR = 0.9  # the correlation from which a slope means something


class Slope(NamedTuple):
    """How energy differences compare with the work of the forces between like structures.

    Attributes:
        value: Least-squares ΔE / work; 1 where energies and forces agree in unit and sign.
        correlation: Of the two, −1 to 1.
        pairs: How many pairs of structures.
        distance: Median over the pairs of the largest displacement of an atom, Å.
    """

    value: float
    correlation: float
    pairs: int
    distance: float

    @property
    def tolerance(self) -> float:
        """By what factor the value may differ from 1 in sound data: anharmonicity counts between frames far apart."""
        return 1.4 if self.distance < 0.4 else 3.0


def unit_warnings(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels]) -> list[str]:
    """What each label by itself says about its unit."""
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
            f"energies are evidently not in eV: they are {ratio / HARTREE:.0f} times the largest that all "
            "electrons of "
            f"the atoms could have; they look like {name}; set data.energy_unit={name}"
        )
    light = [k for k, row in enumerate(rows) if structures[row].numbers.max() < len(_ATOMS_HARTREE)]
    if not light:
        return None
    atoms = np.array([_ATOMS_HARTREE[structures[rows[k]].numbers].sum() for k in light])
    number = np.array([len(structures[rows[k]]) for k in light])
    bond = (energies[light] - atoms) / number  # Hartree per atom, if it is Hartree
    if np.mean((bond > -0.45) & (bond < 0.05)) > 0.9 and np.median(atoms / number) < -2:
        return (
            f"energies are evidently not in eV: {energies[light[0]]:.4f} for "
            f"{_formula(structures[rows[light[0]]])} is "
            f"the energy in Hartree (its free atoms have {atoms[0]:.1f} Hartree = {atoms[0] * HARTREE:.0f} "
            "eV); set "
            "data.energy_unit=Hartree"
        )
    return None


def energy_force_slope(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels]) -> Slope | None:
    """Regress ΔE on −½ (F_i + F_j) · (x_i − x_j) over the nearest pairs of the same atoms, molecules superposed.

    The trapezoid is exact for a harmonic potential, so that frames a few tenths of an Å apart do. None where there
    are fewer than ten pairs.
    """
    families: dict[bytes, list[int]] = {}
    for k, (atoms, label) in enumerate(zip(structures, labels)):
        if label.energy is not None and label.forces is not None and len(atoms) > 1:
            cell = atoms.cell.array.round(6).tobytes() if atoms.pbc.any() else b""
            families.setdefault(atoms.numbers.tobytes() + cell + atoms.pbc.tobytes(), []).append(k)
    found = [np.zeros((3, 0))]
    for members in sorted(families.values(), key=len, reverse=True)[:20]:
        pairs = _pairs(len(members), len(structures[members[0]]))
        if len(pairs):
            first = structures[members[0]]
            cell = first.cell.array * first.pbc[:, None] if first.pbc.any() else None
            positions = np.stack([structures[k].positions for k in members])
            forces = np.stack([np.asarray(labels[k].forces) for k in members])
            energies = np.array([labels[k].energy for k in members], float)
            found.append(_work_and_change(positions, forces, energies, cell, pairs))
    work, change, distance = np.concatenate(found, axis=1)
    if len(work) < 10:
        return None
    near = np.argsort(distance)[: max(20, len(work) // 50)]
    work, change, distance = work[near], change[near], distance[near]
    scale = np.sqrt((work**2).sum() * (change**2).sum())
    if scale == 0:
        return None
    product = float((work * change).sum())
    return Slope(product / float((work**2).sum()), product / float(scale), len(near), float(np.median(distance)))


def slope_warning(slope: Slope | None) -> str | None:
    """What a slope other than 1 says, if the correlation is good enough to say it."""
    if slope is None or abs(slope.correlation) < _CLEAR:
        return None
    far = slope.tolerance
    said = f"between like structures the energy changes by {slope.value:.3g} times the work of the forces"
    if slope.value < 0:
        return f"{said} (should be 1): the sign is wrong; the forces are probably gradients: store their negative" + (
            "" if 1 / far < -slope.value < far else ", and the units differ"
        )
    if 1 / far < slope.value < far:
        return None
    off = {pair: abs(np.log(slope.value * energy_factor(pair[0]) / forces_factor(pair[1]))) for pair in _MIXTURES}
    energy, forces = min(off, key=lambda pair: off[pair])
    guess = f", as for energies in {energy} with forces in {forces}" if off[energy, forces] < 0.2 else ""
    return f"{said} (should be 1){guess}: energies and forces are not in eV and eV/Å; set data.energy_unit and data.forces_unit"


def length_unit_warning(ratios: Float[np.ndarray, "atoms"]) -> str | None:
    """Nearest distances over sums of covalent radii: about 1 in everything that is bound."""
    if len(ratios) < 5:
        return None
    typical = float(np.median(ratios))
    if typical < 0.55:
        guess = "nm" if typical < 0.2 else "a unit larger than Å"
        return (
            f"nearest atoms are at {typical:.2f} times the sum of their covalent radii: positions look like "
            f"{guess}; "
            "set data.length_unit"
        )
    if 1.75 < typical < 2.1:
        return (
            f"nearest atoms are at {typical:.2f} times the sum of their covalent radii: positions look like "
            "Bohr "
            "(1.89 per Å); if so set data.length_unit=Bohr"
        )
    return None


def forces_size_warning(labels: Sequence[Labels]) -> str | None:
    """Typical forces of thermal structures are 0.1 to 5 eV/Å."""
    norms = [np.linalg.norm(label.forces, axis=1) for label in labels if label.forces is not None]
    if not norms:
        return None
    typical = float(np.median(np.concatenate(norms)))
    if typical > 15:
        return f"the median force on an atom is {typical:.3g} eV/Å, more than bonds bear: is the unit kcal/mol/Å?"
    return None


def stress_size_warning(labels: Sequence[Labels]) -> str | None:
    """1 eV/Å³ is 160 GPa."""
    stresses = [label.stress for label in labels if label.stress is not None]
    if not stresses:
        return None
    typical = float(np.median(np.abs(np.concatenate(stresses))))
    if typical > 1:
        return (
            f"the median stress component is {typical:.3g} eV/Å³ = {typical * 160.2:.0f} GPa: the unit looks "
            "like "
            "GPa or kbar; set data.stress_unit"
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
        f"the reference energies ({source}) do not fit the energies: atoms would be {what} {abs(typical):.3g} "
        "eV each "
        "(bonds give 1 to 9 eV); were they computed with another method or unit? reference_energies=fit does "
        "without"
    )


def _pairs(count: int, num_atoms: int) -> Int[np.ndarray, "pairs 2"]:
    """Consecutive structures (a trajectory), and all pairs of a sample (scattered structures)."""
    consecutive = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)[:500]
    most = int(np.clip(np.sqrt(2e6 / num_atoms), 10, 120))
    some = np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
    return np.unique(np.concatenate([consecutive, some[np.stack(np.triu_indices(len(some), 1), axis=1)]]), axis=0)


def _work_and_change(
    positions: Float[np.ndarray, "frames atoms 3"],
    forces: Float[np.ndarray, "frames atoms 3"],
    energies: Float[np.ndarray, "frames"],
    cell: Float[np.ndarray, "3 3"] | None,
    pairs: Int[np.ndarray, "pairs 2"],
) -> Float[np.ndarray, "3 pairs"]:
    """Work of the forces, change of the energy, and largest displacement; the second frame laid onto the first."""
    i, j = pairs.T
    if cell is not None:
        step = positions[j] - positions[i]
        step = step - np.round(step @ np.linalg.pinv(cell)) @ cell
        step = step - step.mean(axis=1, keepdims=True)
        turned = forces[j]
    else:
        centred = positions - positions.mean(axis=1, keepdims=True)
        u, _, v = np.linalg.svd(np.swapaxes(centred[j], 1, 2) @ centred[i])
        u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]  # a rotation, never a reflection
        turn = u @ v
        step = centred[j] @ turn - centred[i]
        turned = forces[j] @ turn
    work = -0.5 * ((forces[i] + turned) * step).sum(axis=(1, 2))
    return np.stack([work, energies[j] - energies[i], np.linalg.norm(step, axis=2).max(axis=1)])


def _formula(atoms: "ase.Atoms") -> str:
    return atoms.get_chemical_formula()
