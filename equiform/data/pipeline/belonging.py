"""Are energies and forces consistent? Between like structures the energy changes by the work of the forces; the forces
of an isolated structure have no net force and no net torque.

Each test returns a line for the user or None, and is silent unless the evidence is clear.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from equiform.data.units import energy_factor, forces_factor
from equiform.neighbors import Labels

if TYPE_CHECKING:
    import ase

# Common mistakes: units of energy and of forces as stored.
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


_SMEARED = 2e-5  # eV/atom, more than the rounding of what programs print
_NET = 0.05  # of the sum of the sizes; grids and fits of real programs leave under 0.02
_NOISE = 0.01  # eV/Å and atom


class Slope(NamedTuple):
    """How energy differences compare with the work of the forces between like structures.

    Attributes:
        value: Least-squares ΔE / work; 1 where energies and forces agree in unit and sign.
        correlation: Of the two, −1 to 1.
        pairs: Number of pairs of structures.
        distance: Median over the pairs of the largest displacement of an atom, Å.
    """

    value: float
    correlation: float
    pairs: int
    distance: float

    @property
    def tolerance(self) -> float:
        """Factor by which the value may differ from 1 in correct data: anharmonicity matters between distant frames."""
        return 1.4 if self.distance < 0.4 else 3.0


def energy_force_slope(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels]) -> Slope | None:
    """Regress ΔE on −½ (F_i + F_j) · (x_i − x_j) over the nearest pairs of the same atoms, molecules superposed.

    The trapezoid is exact for a harmonic potential, so frames a few tenths of an Å apart are near enough. None where there
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
    """Warning about a slope other than 1, if the correlation is good enough."""
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


def free_energy_warning(
    structures: "Sequence[ase.Atoms]",
    labels: Sequence[Labels],
    free: Sequence[float | None],
    slope: Slope | None,
    names: Sequence[str],
) -> str | None:
    """Energies extrapolated to σ → 0, with forces that are derivatives of the electronic free energy."""
    gaps = np.array(
        [
            0.0 if energy is None or label.energy is None or label.forces is None else abs(energy - label.energy) / len(atoms)
            for atoms, label, energy in zip(structures, labels, free)
        ]
    )
    if not len(gaps) or gaps.max() < _SMEARED:
        return None
    worst = int(gaps.argmax())
    line = (
        "energies are extrapolated to zero smearing and are not what the forces are derivatives of: 'free_energy' is, and "
        f"differs by up to {1000 * gaps[worst]:.3g} meV/atom ({names[worst]})"
    )
    others = [label if energy is None else label._replace(energy=energy) for label, energy in zip(labels, free)]
    other = energy_force_slope(structures, others)
    clear = slope is not None and other is not None and min(abs(slope.correlation), abs(other.correlation)) > _CLEAR
    if clear and slope is not None and other is not None:
        line += f"; ΔE / work of the forces is {slope.value:.4f} with 'energy' and {other.value:.4f} with 'free_energy'"
    return f"{line}; set data.energy_key=free_energy"


def frame_warning(structures: "Sequence[ase.Atoms]", labels: Sequence[Labels], names: Sequence[str]) -> str | None:
    """Net forces, and net torques of molecules, that are not noise: the forces are in another frame than the positions."""
    force, torque = np.zeros(len(structures)), np.zeros(len(structures))
    for k, (atoms, label) in enumerate(zip(structures, labels)):
        if label.forces is None or len(atoms) < 2:
            continue
        norms = np.linalg.norm(label.forces, axis=1)
        if norms.sum() < _NOISE * len(atoms):
            continue
        net = float(np.linalg.norm(label.forces.sum(axis=0)))
        force[k] = net / norms.sum() if net > _NOISE * np.sqrt(len(atoms)) else 0
        if not atoms.pbc.any() and force[k] < _NET:
            arms = atoms.positions - atoms.positions.mean(axis=0)
            lever = float((np.linalg.norm(arms, axis=1) * norms).sum())
            torque[k] = float(np.linalg.norm(np.cross(arms, label.forces).sum(axis=0))) / lever if lever else 0
    for values, what, why in (
        (torque, "a net torque", "positions and forces are in different frames"),
        (force, "a net force", "atoms or their forces are missing, or positions and forces are in different frames"),
    ):
        bad = np.flatnonzero(values > _NET)
        if len(bad):
            worst = int(values.argmax())
            return (
                f"the forces of {len(bad)} of {len(structures)} structures have {what}, up to {100 * values[worst]:.0f} % of "
                f"the sum of their sizes ({names[worst]}), which isolated structures cannot have: {why}, or there is an "
                "external field"
            )
    return None


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
