"""Values of a structure in eV and Å, by the units that hold for that structure.

The unit of a quantity is, in this order, what the user gave; what the structure states for the label, for the kind of
quantity, or in the label's name; what the model was trained with; eV and Å. Lengths are converted before anything is
computed with them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from equiform.data import units
from equiform.data.formats.labels import LabelKeys, Units, named_values
from equiform.data.formats.stated import converted, is_unit, number_with_unit, stated_units, unit_for
from equiform.data.formats.words import meaning, weight_of
from equiform.errors import UserError
from equiform.neighbors import Labels

if TYPE_CHECKING:
    import ase


class Weights(NamedTuple):
    """Weights of a structure in the terms of the loss; 1 where the file has none, 0 leaves the label out."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0


def read_labels(atoms: "ase.Atoms", keys: LabelKeys) -> Labels:
    """The labels of one structure in eV, eV/Å and eV/Å³; None where the structure lacks one.

    Args:
        atoms: The structure as in the file, not converted.
        keys: Where the labels are.

    Raises:
        UserError: A label has the wrong shape, or its unit is not understood.
    """
    values = named_values(atoms)
    stated = stated_units(atoms.info)
    energy = forces = stress = None
    if keys.energy in values:
        energy = _energy(values[keys.energy], keys, stated, len(atoms))
    if keys.forces in values:
        forces = _numbers(values[keys.forces], keys.forces)
        if forces.size != 3 * len(atoms):
            raise UserError(f"forces {keys.forces!r} have shape {forces.shape}, not ({len(atoms)}, 3)")
        sign = -1 if keys.gradient else 1
        forces = forces.reshape(-1, 3) * (sign * factor("forces", keys.forces, keys, stated))
    if keys.stress in values and atoms.pbc.any():
        stress = stress_matrix(_numbers(values[keys.stress], keys.stress), keys.stress)
        if keys.virial:
            cell = atoms.cell.array * cell_factor(keys, stated)
            volume = abs(float(np.linalg.det(cell)))
            stress = -stress * factor("virial", keys.stress, keys, stated) / volume if volume > 0 else None
        else:
            stress = stress * factor("stress", keys.stress, keys, stated)
    return Labels(energy, forces, stress)


def in_angstrom(atoms: "ase.Atoms", keys: LabelKeys) -> "ase.Atoms":
    """The structure in Å, with its labels in eV and Å, and without statements of other units.

    Raises:
        UserError: A unit is not understood.
    """
    stated = stated_units(atoms.info)
    length, cell = length_factor(keys, stated), cell_factor(keys, stated)
    same = length == cell == 1 and not stated and keys.given == keys.remembered == Units()
    if same and not any((found := meaning(name)) is not None and found.unit for name in atoms.info):
        return atoms
    result = atoms.copy()
    # set_positions would not move atoms that a constraint holds.
    result.arrays["positions"] = atoms.arrays["positions"] * length
    result.set_cell(atoms.cell.array * cell, scale_atoms=False)
    holders: tuple[Any, ...] = (result.info, result.arrays)
    for holder in holders:
        for name, value in list(holder.items()):
            found = meaning(str(name))
            if found is None or isinstance(value, (dict, bool)):
                continue
            if found.kind == "energy" and isinstance(value, str) and number_with_unit(value) is None:
                continue
            if found.kind == "energy" and np.size(value) == 1:
                number, own = number_with_unit(value) or (0.0, None) if isinstance(value, str) else (value, None)
                by = converted("energy", own) if own else factor("energy", str(name), keys, stated)
                holder[name] = float(np.reshape(number, -1)[0]) * by
            elif found.kind != "energy" and not isinstance(value, str) and np.asarray(value).dtype.kind in "fi":
                holder[name] = np.asarray(value, np.float64) * factor(found.kind, str(name), keys, stated)
    for name in [name for name, value in result.info.items() if is_unit(str(name), value)]:
        del result.info[name]
    return result


def factor(kind: str, label: str | None, keys: LabelKeys, stated: Mapping[str, str]) -> float:
    """eV, eV/Å or eV/Å³ per unit of a label; a virial is an energy.

    Raises:
        UserError: The unit is not understood.
    """
    given = getattr(keys.given, "energy" if kind == "virial" else kind)
    if given is not None:
        return units.FACTORS["energy" if kind == "virial" else kind](given)
    name = label or kind
    own = meaning(name)
    text = unit_for(name, kind, stated) or (own.unit if own is not None else None)
    if text is None and kind == "virial":
        text = stated.get("energy")
    if text is None and kind != "virial":
        text = getattr(keys.remembered, kind)
    if text is not None:
        return converted(kind, text)
    if kind == "energy":
        return 1.0
    energy = factor("energy", keys.energy if kind != "energy" else None, keys, stated)
    if kind == "virial":
        return energy
    return energy / length_factor(keys, stated) ** (3 if kind == "stress" else 1)


def length_factor(keys: LabelKeys, stated: Mapping[str, str]) -> float:
    """Å per unit of the positions.

    Raises:
        UserError: The unit is not understood.
    """
    if keys.given.length is not None:
        return units.length_factor(keys.given.length)
    text = stated.get("length", keys.remembered.length)
    return 1.0 if text is None else converted("length", text)


def cell_factor(keys: LabelKeys, stated: Mapping[str, str]) -> float:
    """Å per unit of the cell: that of the positions unless stated separately.

    Raises:
        UserError: The unit is not understood.
    """
    if keys.given.length is None and "cell" in stated:
        return converted("cell", stated["cell"])
    return length_factor(keys, stated)


def weights_of(atoms: "ase.Atoms") -> Weights:
    """The weights that a file gives a structure: that of the structure times that of each label.

    Raises:
        UserError: A weight is negative or not a finite number.
    """
    found = {"structure": 1.0, "energy": 1.0, "forces": 1.0, "stress": 1.0}
    for name, value in named_values(atoms).items():
        of = weight_of(name)
        if (
            of is None
            or isinstance(value, (str, bool, dict))
            or np.size(value) != 1
            or np.asarray(value).dtype.kind not in "fiu"
        ):
            continue
        number = float(np.reshape(value, -1)[0])
        if not (np.isfinite(number) and number >= 0):
            raise UserError(f"the weight {name!r} is {number}; weights are not negative (data.weights=false does without)")
        found[of] *= number
    return Weights(*(found["structure"] * found[kind] for kind in Weights._fields))


def stress_matrix(stress: np.ndarray, name: str | None) -> np.ndarray:
    """3 × 3 from Voigt order xx yy zz yz xz xy, nine numbers, or a matrix; symmetrised.

    Raises:
        UserError: It is none of them.
    """
    if stress.shape == (6,):
        xx, yy, zz, yz, xz, xy = stress
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if stress.size != 9:
        raise UserError(f"stress {name!r} has shape {stress.shape}; 6, 9 or 3 × 3 numbers are needed")
    stress = stress.reshape(3, 3)
    return 0.5 * (stress + stress.T)


def _energy(value: Any, keys: LabelKeys, stated: Mapping[str, str], num_atoms: int) -> float:
    own = None
    if isinstance(value, str):
        number = number_with_unit(value)
        if number is None:
            raise UserError(f"energy {keys.energy!r} is not a number: {value[:60]!r}")
        value, own = number
    numbers = _numbers(value, keys.energy).reshape(-1)
    if numbers.size != 1:
        raise UserError(f"energy {keys.energy!r} has {numbers.size} values, not one")
    by = converted("energy", own) if own and keys.given.energy is None else factor("energy", keys.energy, keys, stated)
    return float(numbers[0]) * by * (num_atoms if _is_per_atom(keys, stated) else 1)


def _is_per_atom(keys: LabelKeys, stated: Mapping[str, str]) -> bool:
    if keys.energy_per is not None:
        return keys.energy_per == "atom"
    name = keys.energy or ""
    text = keys.given.energy or unit_for(name, "energy", stated)
    unit = units.parse_unit(text) if text else None
    found = meaning(name)
    return (unit is not None and unit.per_atom) or (found is not None and found.per_atom)


def _numbers(value: Any, name: str | None) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name!r} is not a number or an array of numbers: {str(value)[:60]!r}") from None
