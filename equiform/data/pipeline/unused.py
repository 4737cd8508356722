"""What structures say that no model of energies takes into account: charges, spins, magnetic moments."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import ase

NEUTRAL = {"charge": 0, "total_charge": 0, "spin": 1, "multiplicity": 1, "spin_multiplicity": 1, "magmom": 0}
"""Entries of a structure, and the value that says nothing."""
COLUMNS = {"initial_charges": "charges", "initial_magmoms": "magnetic moments", "magmoms": "magnetic moments"}
"""Columns of atoms, and their name in words."""


def unused_inputs(structures: "Sequence[ase.Atoms]") -> list[str]:
    """One line about charges, spins and magnetic moments in the structures; none if they have none."""
    found: dict[str, int] = {}
    for atoms in structures:
        names = [name for name, neutral in NEUTRAL.items() if _says(atoms.info.get(name, neutral), neutral)]
        names += [words for name, words in COLUMNS.items() if name in atoms.arrays and np.any(atoms.arrays[name])]
        for name in dict.fromkeys(names):
            found[name] = found.get(name, 0) + 1
    if not found:
        return []
    what = ", ".join(f"{name} in {count}" for name, count in found.items())
    return [
        f"of {len(structures)} structures some have inputs that the model does not use ({what}): structures that differ in "
        "nothing else have the same energy for it"
    ]


def _says(value: object, neutral: int) -> bool:
    try:
        return float(value) != neutral  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
