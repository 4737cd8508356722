"""Units that data come in, as factors to eV, Å and eV/Å³ (CODATA 2018)."""

import re

from equiform.errors import UserError

HARTREE = 27.211386245988
BOHR = 0.529177210903
KCAL_MOL = 4184 / 96485.33212331001
GPA = 0.00624150907446076

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "Rydberg": HARTREE / 2,
    "kcal/mol": KCAL_MOL,
    "kJ/mol": KCAL_MOL / 4.184,
}
LENGTH = {"Å": 1.0, "Bohr": BOHR, "nm": 10.0}
PRESSURE = {"GPa": GPA, "kbar": GPA / 10}

_SPELLINGS = {
    "ev": "eV",
    "electronvolt": "eV",
    "mev": "meV",
    "hartree": "Hartree",
    "ha": "Hartree",
    "eh": "Hartree",
    "au": "Hartree",
    "rydberg": "Rydberg",
    "ry": "Rydberg",
    "kcalmol": "kcal/mol",
    "kcalpermol": "kcal/mol",
    "kcalmol1": "kcal/mol",
    "kjmol": "kJ/mol",
    "kjpermol": "kJ/mol",
    "kjmol1": "kJ/mol",
    "å": "Å",
    "a": "Å",
    "ang": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "ångström": "Å",
    "bohr": "Bohr",
    "bohrs": "Bohr",
    "a0": "Bohr",
    "nm": "nm",
    "nanometer": "nm",
    "gpa": "GPa",
    "kbar": "kbar",
    "kb": "kbar",
}


def _canonical(text: str) -> str | None:
    return _SPELLINGS.get(re.sub(r"[^a-z0-9å]", "", text.lower().replace("ö", "o").replace("ångstrom", "å")))


def energy_factor(unit: str) -> float:
    """eV per unit.

    Raises:
        UserError: The unit is not known.
    """
    name = _canonical(unit)
    if name not in ENERGY:
        raise UserError(f"unknown energy unit {unit!r}; known: {', '.join(ENERGY)}")
    return ENERGY[name]


def length_factor(unit: str) -> float:
    """Å per unit.

    Raises:
        UserError: The unit is not known.
    """
    name = _canonical(unit)
    if name not in LENGTH:
        raise UserError(f"unknown length unit {unit!r}; known: {', '.join(LENGTH)}")
    return LENGTH[name]


def forces_factor(unit: str) -> float:
    """eV/Å per unit; the unit is written as energy/length (`Hartree/Bohr`, `kcal/mol/Å`).

    Raises:
        UserError: The unit is not known.
    """
    if _canonical(unit) == "Hartree":  # "a.u."
        return HARTREE / BOHR
    energy, _, length = unit.replace("*", "/").replace("^-1", "").rpartition("/")
    if _canonical(energy) not in ENERGY or _canonical(length) not in LENGTH:
        raise UserError(f"unknown unit of forces {unit!r}; write energy/length, such as eV/Å or Hartree/Bohr")
    return energy_factor(energy) / length_factor(length)


def stress_factor(unit: str) -> float:
    """eV/Å³ per unit: a pressure (`GPa`, `kbar`) or energy/length³ (`eV/Å³`).

    Raises:
        UserError: The unit is not known.
    """
    name = _canonical(unit)
    if name in PRESSURE:
        return PRESSURE[name]
    if name == "Hartree":
        return HARTREE / BOHR**3
    energy, _, length = unit.replace("**", "").replace("^", "").rpartition("/")
    length = length.strip().rstrip("3³")
    if _canonical(energy) not in ENERGY or _canonical(length) not in LENGTH:
        raise UserError(f"unknown unit of stress {unit!r}; known: GPa, kbar, eV/Å³, Hartree/Bohr³")
    return energy_factor(energy) / length_factor(length) ** 3
