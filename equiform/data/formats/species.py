"""Names of atoms in files: elements, isotopes and numbered types."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

HEAVY_HYDROGEN = {"D": 2.01410177812, "T": 3.0160492779}
"""Masses of deuterium and tritium, amu (AME 2020)."""


def numbers_of(names: Sequence[str]) -> np.ndarray:
    """Atomic numbers of names as files have them: `C`, `CL`, `6`, `C12`, `Fe1`, `D`.

    Raises:
        ValueError: A name is not that of an element.
    """
    return np.fromiter(map(_number, names), np.int64, len(names))


def masses_of(names: Sequence[str], numbers: np.ndarray) -> np.ndarray | None:
    """Masses in amu where a name is that of an isotope (`D`, `T`), else None."""
    if not any(name in HEAVY_HYDROGEN for name in names):
        return None
    from ase.data import atomic_masses

    masses = atomic_masses[numbers].copy()
    for atom, name in enumerate(names):
        if name in HEAVY_HYDROGEN:
            masses[atom] = HEAVY_HYDROGEN[name]
    return masses


@lru_cache(maxsize=1000)
def _number(name: str) -> int:
    from ase.data import atomic_numbers

    if name in HEAVY_HYDROGEN:
        return 1
    if name.isdigit() and 0 <= int(name) <= 118:
        return int(name)
    match = re.fullmatch(r"([A-Za-z]{1,2})(?:[\d_.'*-].*)?", name)
    symbol = match[1].capitalize() if match else name
    if symbol not in atomic_numbers:
        raise ValueError(f"{name!r} is not a chemical element")
    return atomic_numbers[symbol]
