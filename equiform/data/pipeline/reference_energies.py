"""Reference energies E0: what an isolated atom of each element contributes to a total energy.

Only differences from them are learnt: E − Σ E0 is a few eV per atom, where total energies are hundreds or
thousands, too large for float32.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from equiform.errors import UserError
from equiform.neighbors import Labels, neighbor_list

if TYPE_CHECKING:
    import ase

# An atom with no neighbour (nor image of itself) within this distance is isolated; a primitive cell of a crystal is not.
_ISOLATION = 6.0


class ReferenceEnergies(NamedTuple):
    """Reference energies and where they are from.

    Attributes:
        values: eV by atomic number; empty if nothing is subtracted.
        source: `isolated atoms`, `least squares`, `given`, `none`, or a mixture, for the user.
        warnings: What the user should check.
    """

    values: dict[int, float]
    source: str
    warnings: tuple[str, ...] = ()


def is_isolated_atom(atoms: "ase.Atoms") -> bool:
    """Whether the structure is one atom far from everything, images included."""
    if len(atoms) != 1:
        return False
    if not atoms.pbc.any():
        return True
    return len(neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, _ISOLATION)[0]) == 0


def find_reference_energies(
    structures: "Sequence[ase.Atoms]",
    labels: Sequence[Labels],
    setting: str | Mapping[str, float],
    isolated: "Sequence[tuple[ase.Atoms, Labels]]" = (),
) -> ReferenceEnergies:
    """Reference energies by a setting.

    Args:
        structures: The structures to train on, isolated atoms not among them.
        labels: Their labels, total energies in eV.
        setting: `auto`, `isolated`, `fit`, `none`, or eV by element symbol.
        isolated: The isolated atoms of the file, with their labels.

    Raises:
        UserError: `isolated` was requested and an element has no isolated atom; a given element is not an
            element or one of the structures' elements is not given.
    """
    elements = sorted({int(z) for atoms in structures for z in np.unique(atoms.numbers)})
    measured, warnings = _measured(isolated)
    elements = sorted(set(elements) | set(measured))
    if not isinstance(setting, str):
        return _given(setting, elements, measured)
    if setting == "none":
        return ReferenceEnergies({}, "none", tuple(warnings))
    missing = [z for z in elements if z not in measured]
    if setting == "isolated" and missing:
        raise UserError(
            f"reference_energies=isolated, but there is no isolated atom of {_symbols(missing)} in the file; add one-atom "
            "structures with energies, or use reference_energies=fit"
        )
    if not any(label.energy is not None for label in labels) and not measured:
        return ReferenceEnergies({}, "none (no energies)", tuple(warnings))
    if setting in ("auto", "isolated") and not missing:
        return ReferenceEnergies(measured, "isolated atoms", tuple(warnings))
    fixed = measured if setting == "auto" else {}
    values, rank_warning = _least_squares(structures, labels, elements, fixed)
    if fixed:
        warnings.append(
            f"isolated atoms of {_symbols(missing)} are not in the file: their reference energies are fitted, those of "
            f"{_symbols(sorted(fixed))} are measured"
        )
    source = "isolated atoms and least squares" if fixed else "least squares"
    return ReferenceEnergies(values, source, (*warnings, *rank_warning))


def composition_matrix(structures: "Sequence[ase.Atoms]", elements: Sequence[int]) -> Float[np.ndarray, "structures elements"]:
    """Number of atoms of each element in every structure."""
    counts = np.zeros((len(structures), len(elements)))
    for row, atoms in zip(counts, structures):
        row[:] = [(atoms.numbers == z).sum() for z in elements]
    return counts


def _measured(isolated: "Sequence[tuple[ase.Atoms, Labels]]") -> tuple[dict[int, float], list[str]]:
    """Energies of the isolated atoms; the lowest where an element has several (spin states)."""
    energies: dict[int, list[float]] = {}
    for atoms, label in isolated:
        if label.energy is not None and np.isfinite(label.energy):
            energies.setdefault(int(atoms.numbers[0]), []).append(label.energy)
    warnings = [
        f"{len(values)} isolated atoms of {_symbols([z])} differ by {max(values) - min(values):.3g} eV: the lowest is taken"
        for z, values in sorted(energies.items())
        if max(values) - min(values) > 1e-3
    ]
    return {z: min(values) for z, values in sorted(energies.items())}, warnings


def _given(setting: Mapping[str, float], elements: Sequence[int], measured: Mapping[int, float]) -> ReferenceEnergies:
    from ase.data import atomic_numbers

    values: dict[int, float] = {}
    for name, energy in setting.items():
        number = int(name) if name.isdigit() else atomic_numbers.get(name.capitalize(), 0)
        if not 1 <= number <= 118:
            raise UserError(f"reference_energies: {name!r} is not an element")
        if not np.isfinite(energy):
            raise UserError(f"reference_energies: {name} = {energy} is not a finite number of eV")
        values[number] = float(energy)
    missing = [z for z in elements if z not in values]
    if missing:
        raise UserError(f"reference_energies: none is given for {_symbols(missing)}, which the structures contain")
    warnings = [
        f"the reference energy given for {_symbols([z])}, {values[z]:.6g} eV, is not that of the isolated atom in the file, "
        f"{energy:.6g} eV"
        for z, energy in measured.items()
        if abs(values[z] - energy) > 0.05
    ]
    return ReferenceEnergies(dict(sorted(values.items())), "given", tuple(warnings))


def _least_squares(
    structures: "Sequence[ase.Atoms]",
    labels: Sequence[Labels],
    elements: Sequence[int],
    fixed: Mapping[int, float],
) -> tuple[dict[int, float], list[str]]:
    """Minimise Σ (E − Σ E0)² / atoms² over the E0 that are not fixed.

    Where compositions do not determine them (only ethanol, say), the smallest change from the mean energy per
    atom is taken: sums over the compositions of the file are right, single values are meaningless.
    """
    have = [k for k, label in enumerate(labels) if label.energy is not None]
    free = [z for z in elements if z not in fixed]
    energies = np.array([labels[k].energy for k in have])
    counts = composition_matrix([structures[k] for k in have], free)
    atoms = np.array([len(structures[k]) for k in have], float)
    for z, energy in fixed.items():
        energies = energies - energy * composition_matrix([structures[k] for k in have], [z])[:, 0]
    weights = 1 / atoms
    num_free = counts.sum(axis=1)
    start = float((energies * weights).sum() / max((num_free * weights).sum(), 1e-300)) if len(have) else 0.0
    change, _, rank, _ = np.linalg.lstsq(counts * weights[:, None], (energies - start * num_free) * weights, rcond=1e-8)
    values = dict(fixed) | {z: start + float(step) for z, step in zip(free, change)}
    warning = []
    if rank < len(free):
        warning.append(
            f"the compositions of {len(have)} structures do not determine the reference energies of {_symbols(free)} one by "
            f"one ({rank} of {len(free)} combinations): energies of other compositions and of isolated atoms will be "
            "meaningless; add isolated atoms or give reference_energies"
        )
    return dict(sorted(values.items())), warning


def _symbols(numbers: Sequence[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in numbers)
