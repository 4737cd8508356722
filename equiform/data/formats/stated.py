"""Units that a structure's own metadata state, by any of the usual names; the statement holds for that structure only."""

import re
from collections.abc import Mapping
from typing import Any

from equiform.data import units
from equiform.data.formats.words import meaning, unit_of, words_of
from equiform.errors import UserError

SYSTEMS = {
    "metal": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "bar"},
    "real": {"energy": "kcal/mol", "length": "Å", "forces": "kcal/mol/Å", "stress": "atm"},
    "electron": {"energy": "Hartree", "length": "Bohr", "forces": "Hartree/Bohr", "stress": "Pa"},
    "atomic": {"energy": "Hartree", "length": "Bohr", "forces": "Hartree/Bohr", "stress": "Hartree/Bohr^3"},
    "ase": {"energy": "eV", "length": "Å", "forces": "eV/Å", "stress": "eV/Å^3"},
}
"""Systems of units that are known by a name; the first three are LAMMPS's."""


def stated_units(info: Mapping[str, Any]) -> dict[str, str]:
    """Units stated by a structure.

    Args:
        info: Its metadata, by name.

    Returns:
        Texts of units by `energy`, `length`, `cell`, `forces`, `stress`, `virial`, or by the words of the label that they
        belong to (`energy u0`).
    """
    found: dict[str, str] = {}
    for name, value in info.items():
        if value is True:
            if (kind := _bare(str(name))) is not None:
                found.setdefault(kind, str(name))
            continue
        of = unit_of(name)
        if of is None:
            if (own := _beside_energy(name, value)) is not None:
                found.setdefault("energy", own)
            continue
        if of == "all":
            found = _all(value) | found
        elif isinstance(value, str):
            found[of] = value
    return found


def is_unit(name: str, value: Any) -> bool:
    """Whether an entry of the metadata states units of what is read, which no longer hold once it is converted."""
    if value is True:
        return _bare(name) is not None
    return unit_of(name) in ("energy", "length", "cell", "forces", "stress", "virial", "all") and isinstance(value, (str, dict))


def unit_for(label: str, kind: str, stated: Mapping[str, str]) -> str | None:
    """The unit that is stated for a label by its own name, else for its kind."""
    own = sorted(words_of(label))
    return next((unit for name, unit in stated.items() if sorted(name.split()) == own), stated.get(kind))


def converted(kind: str, text: str) -> float:
    """The factor of a unit that the file states.

    Raises:
        UserError: The unit is not understood.
    """
    quantity = {"cell": "length", "virial": "energy"}.get(kind, kind)
    try:
        return units.FACTORS[quantity](text)
    except UserError as error:
        raise UserError(f"the file states a unit of {kind}: {error}; say what it is with data.{quantity}_unit=…") from None


def number_with_unit(text: str) -> tuple[float, str | None] | None:
    """`-76.4 Hartree` as a number and a unit; None for any other text."""
    match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?)\s*([^\d\s].*)?", text)
    if match is None:
        return None
    unit = match[2].strip() if match[2] else None
    if unit is not None and units.parse_unit(unit) is None and not units.is_atomic(unit):
        return None
    return float(re.sub("[dD]", "e", match[1])), unit


def _beside_energy(name: str, value: Any) -> str | None:
    """The unit of an energy that is written as a text with it (`energy="-76.4 Hartree"`); the forces have it, too."""
    label = meaning(name) if isinstance(value, str) else None
    number = number_with_unit(value) if label is not None and label.kind == "energy" else None
    return None if number is None else number[1]


def _bare(name: str) -> str | None:
    """The quantity of a unit that is a separate word of the comment line; short words are ambiguous (`bar`, `a`)."""
    unit = units.parse_unit(name) if len(name) > 3 or name in ("eV", "Ha") else None
    kind = None if unit is None else units.KINDS.get((unit.energy, unit.length))
    return kind if kind in ("energy", "length", "forces") else None


def _all(value: Any) -> dict[str, str]:
    """`units=metal`, `units="eV, Å"`, `units="energy: Hartree, length: Bohr"`, or a mapping."""
    if isinstance(value, Mapping):
        pairs = {str(name): str(unit) for name, unit in value.items()}
    elif not isinstance(value, str):
        return {}
    else:
        name = value.strip().lower()
        if units.is_atomic(name) or name in SYSTEMS:
            return dict(SYSTEMS["atomic" if units.is_atomic(name) else name])
        pairs = dict(re.findall(r"([A-Za-z_]+)\s*[:=]\s*([^,;:=]+)", value))
    found: dict[str, str] = {}
    for name, unit in pairs.items():
        of = unit_of(f"{name}_unit")
        if of not in (None, "all"):
            found[str(of)] = unit.strip()
    if pairs or not isinstance(value, str):
        return found
    for part in re.split(r"[,;\s]+", value.strip()):
        unit = units.parse_unit(part)
        kind = None if unit is None else units.KINDS.get((unit.energy, unit.length))
        if kind is None:
            return {"length": value, "energy": value}  # not understood: refused where it is needed
        found[kind] = part
    if "forces" in found and "energy" not in found and "length" not in found and "/" in found["forces"]:
        found["energy"], _, found["length"] = found["forces"].rpartition("/")  # "Hartree/Bohr"
    return found
