"""Units that data come in, as factors to eV, Å, eV/Å and eV/Å³ (CODATA 2018): the one table, and the one reader of unit names.

A unit is written as a product of names with powers, in any of the usual ways: `eV/Å`, `kcal mol^-1 Å^-1`, `Ry/au`, `GPa`,
`meV/atom`, `a.u.`.
"""

import re
from typing import NamedTuple

from equiform.errors import UserError

HARTREE = 27.211386245988
BOHR = 0.529177210903
KCAL_MOL = 4184 / 96485.33212331001
GPA = 0.00624150907446076
WAVENUMBER = HARTREE / 219474.63136320

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "Hartree": HARTREE,
    "Rydberg": HARTREE / 2,
    "kcal/mol": KCAL_MOL,
    "kJ/mol": KCAL_MOL / 4.184,
    "mHartree": HARTREE / 1000,
    "mRydberg": HARTREE / 2000,
    "cm⁻¹": WAVENUMBER,
}
LENGTH = {"Å": 1.0, "Bohr": BOHR, "nm": 10.0, "pm": 0.01}
PRESSURE = {
    "GPa": GPA,
    "kbar": GPA / 10,
    "bar": GPA / 10_000,
    "MPa": GPA / 1000,
    "Pa": GPA / 1e9,
    "Mbar": GPA * 100,
    "atm": GPA * 1.01325e-4,
}

_NAMES = {
    "ev": "eV",
    "electronvolt": "eV",
    "electronvolts": "eV",
    "mev": "meV",
    "millielectronvolt": "meV",
    "hartree": "Hartree",
    "hartrees": "Hartree",
    "ha": "Hartree",
    "eh": "Hartree",
    "e_h": "Hartree",
    "mhartree": "mHartree",
    "millihartree": "mHartree",
    "mha": "mHartree",
    "meh": "mHartree",
    "rydberg": "Rydberg",
    "rydbergs": "Rydberg",
    "ry": "Rydberg",
    "mrydberg": "mRydberg",
    "mry": "mRydberg",
    "kcal": "kcal/mol",
    "kj": "kJ/mol",
    "kilojoule": "kJ/mol",
    "kilocalorie": "kcal/mol",
    "kcalmol": "kcal/mol",
    "kjmol": "kJ/mol",
    "å": "Å",
    "a": "Å",
    "ang": "Å",
    "angs": "Å",
    "angst": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "ångstrom": "Å",
    "ångstroms": "Å",
    "bohr": "Bohr",
    "bohrs": "Bohr",
    "bohrradius": "Bohr",
    "a0": "Bohr",
    "a_0": "Bohr",
    "nm": "nm",
    "nanometer": "nm",
    "nanometers": "nm",
    "nanometre": "nm",
    "pm": "pm",
    "picometer": "pm",
    "gpa": "GPa",
    "gigapascal": "GPa",
    "kbar": "kbar",
    "kilobar": "kbar",
    "kb": "kbar",
    "bar": "bar",
    "bars": "bar",
    "mpa": "MPa",
    "pa": "Pa",
    "pascal": "Pa",
    "megabar": "Mbar",
    "atm": "atm",
    "atmosphere": "atm",
}
NAMES = frozenset(_NAMES)
"""Every spelling of a unit's name, in lower case."""

_ATOMIC = {"au", "atomic", "atomicunit", "atomicunits", "hartreeatomicunits"}
_TERM = re.compile(r"([*/\s·]*)(a_?0|[a-zå]+(?:_h)?)(?:\^?\(?([-+]?\d+)\)?)?")


class Unit(NamedTuple):
    """A unit as read: a factor and what it measures, energy^i · length^j, perhaps per atom."""

    factor: float
    energy: int
    length: int
    per_atom: bool = False


def parse_unit(text: str) -> Unit | None:
    """The unit of a text, or None if it is unknown; `a.u.` is, as it depends on the quantity."""
    text = re.sub(r"\bMbar\b", "megabar", text)  # "mbar" could be a thousandth
    lower = re.sub(r"^[\[(](.*)[\])]$", r"\1", text.strip()).lower().replace("a.u.", "au").replace("^{-1}", "^-1")
    for written, plain in (
        ("å", "å"),
        ("å", "å"),
        ("ö", "o"),
        ("**", "^"),
        ("⁻¹", "^-1"),
        ("⁻³", "^-3"),
        ("³", "^3"),
        ("−", "-"),
        ("\\", ""),
        (" per ", "/"),
        ("_per_", "/"),
        ("-per-", "/"),
    ):
        lower = lower.replace(written, plain)
    lower = re.sub(r"/\(([^)]*)\)", lambda match: "/" + re.sub(r"[*\s·]+", "/", match[1].strip()), lower)
    if lower in ("cm^-1", "cm-1", "wavenumber", "wavenumbers", "1/cm"):
        return Unit(WAVENUMBER, 1, 0)
    factor, energy, length, per_atom, position, moles = 1.0, 0, 0, False, 0, 0
    while position < len(lower):
        match = _TERM.match(lower, position)
        if match is None:
            return None
        position = match.end()
        if len(match[1].strip()) > 1 or (match.start() == 0 and match[1].strip()):
            return None
        power = int(match[3] or 1) * (-1 if "/" in match[1] else 1)
        name = "bohr" if match[2] == "au" and energy else match[2]  # Ry/au
        if name in ("atom", "atoms") and power == -1:
            per_atom = True
        elif name in ("mol", "mole") and power == -1:
            moles += 1
        elif name in ("particle", "molecule") and power == -1:
            continue
        elif (known := _NAMES.get(name)) is None:
            return None
        elif known in ENERGY:
            factor, energy = factor * ENERGY[known] ** power, energy + power
        elif known in LENGTH:
            factor, length = factor * LENGTH[known] ** power, length + power
        else:
            factor, energy, length = factor * PRESSURE[known] ** power, energy + power, length - 3 * power
    if moles > 1 or not (energy or length):
        return None
    return Unit(factor, energy, length, per_atom)


def energy_factor(unit: str) -> float:
    """eV per unit (of an energy per atom, eV per unit and atom).

    Raises:
        UserError: The unit is not known.
    """
    return _factor(unit, (1, 0), HARTREE, f"unknown energy unit {unit!r}; known: {', '.join(ENERGY)}")


def length_factor(unit: str) -> float:
    """Å per unit.

    Raises:
        UserError: The unit is not known.
    """
    return _factor(unit, (0, 1), BOHR, f"unknown length unit {unit!r}; known: {', '.join(LENGTH)}")


def forces_factor(unit: str) -> float:
    """eV/Å per unit; the unit is written as energy/length (`Hartree/Bohr`, `kcal/mol/Å`).

    Raises:
        UserError: The unit is not known.
    """
    wrong = f"unknown unit of forces {unit!r}; write energy/length, such as eV/Å or Hartree/Bohr"
    return _factor(unit, (1, -1), HARTREE / BOHR, wrong)


def stress_factor(unit: str) -> float:
    """eV/Å³ per unit: a pressure (`GPa`, `kbar`) or energy/length³ (`eV/Å³`).

    Raises:
        UserError: The unit is not known.
    """
    wrong = f"unknown unit of stress {unit!r}; known: {', '.join(PRESSURE)}, eV/Å³, Hartree/Bohr³"
    return _factor(unit, (1, -3), HARTREE / BOHR**3, wrong)


FACTORS = {"energy": energy_factor, "length": length_factor, "forces": forces_factor, "stress": stress_factor}
"""The conversion of each kind of quantity; a virial has the unit of an energy."""

KINDS = {(1, 0): "energy", (0, 1): "length", (1, -1): "forces", (1, -3): "stress"}
"""The quantity that has these powers of energy and length."""


def is_atomic(text: str) -> bool:
    """Whether a unit is written as atomic units of any quantity (`a.u.`, `atomic`)."""
    return re.sub(r"[^a-z]", "", text.lower()) in _ATOMIC


def _factor(text: str, powers: tuple[int, int], atomic: float, wrong: str) -> float:
    if is_atomic(text):
        return atomic
    unit = parse_unit(text)
    if unit is None or (unit.energy, unit.length) != powers:
        raise UserError(wrong)
    return unit.factor
