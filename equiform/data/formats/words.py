"""The meaning of names in a file: names are split into words, and all words of a name together give its meaning.

`config_energy_weight` is the weight of an energy, not an energy; `energy/atom` is an energy per atom; `virial_stress` is
a stress; `energy_hartree` is an energy in Hartree. Case and separators do not matter.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from equiform.data.units import KINDS, NAMES, is_atomic, parse_unit

Kind = Literal["energy", "forces", "stress", "virial"]

ASKS = 50
"""From this rank on a name is unusual: a single one is taken; of several the user has to choose."""

_ENERGY = {"energy", "energies", "etot", "epot", "toten", "ene", "pe", "u0", "e0", "eref", "edft", "etotal", "escf", "utot"}
_FORCES = {"force", "forces", "frc"}
_GRADIENT = {"gradient", "gradients", "grad", "grads"}
_STRESS = {"stress", "stresses"}
_VIRIAL = {"virial", "virials"}
_RANKS = {
    "ref": 0, "reference": 0, "dft": 1, "label": 1, "labels": 1, "target": 1, "true": 1, "gt": 1, "total": 3, "tot": 3,
    "uncorrected": 3, "potential": 4, "pot": 4, "voigt": 4, "system": 4, "structure": 4, "electronic": 5, "qm": 5, "scf": 6,
    "u0": 7, "atomic": 8, "fr": 9, "e": 2, "u": 47, "e0": 35, "corrected": 48, "free": 45, "0": 46, "sigma0": 46,
    "extrapolated": 46, "pred": 55, "predicted": 55, "prediction": 55, "ml": 55, "model": 55, "nn": 55, "mlip": 55,
}  # fmt: skip
"""In order of preference: a name that says "reference" beats a plain one, which may be some calculator's output."""
_NOT_VALUES = {
    "weight", "weights", "w", "unit", "units", "error", "errors", "err", "std", "stdev", "stddev", "sigma", "sd", "var",
    "variance", "uncertainty", "mask", "key", "mae", "rmse", "residual", "residuals", "scale", "shift", "offset", "max",
    "min", "rms", "norm", "magnitude", "constant", "constants", "delta", "diff", "difference", "loss", "tolerance",
    "threshold", "cutoff", "count", "number", "index", "id", "name", "type", "method", "level", "converged", "has",
}  # fmt: skip
_OTHER_ENERGIES = {
    "formation", "form", "atomization", "atomisation", "kinetic", "interaction", "adsorption", "ads", "correction",
    "dispersion", "zero", "point", "zeropoint", "zpe", "zpve", "gap", "fermi", "binding", "cohesive", "cohesion", "coh",
    "hull", "excitation", "reaction", "solvation", "strain", "gibbs", "helmholtz", "enthalpy", "entropy", "thermal", "homo",
    "lumo", "eigenvalue", "ionization", "affinity", "exchange", "coulomb", "xc", "correlation", "nuclear", "repulsion",
    "ewald", "band", "electrostatic", "vdw", "bond", "angle", "torsion", "dihedral", "barrier", "activation", "surface",
    "relative", "isolated", "hartree", "d3", "d4", "spin", "deformation", "mixing", "defect", "g", "h", "node", "site",
    "local", "contribution", "contributions", "conserved", "thermostat", "barostat", "formula", "fu", "pfu",
}  # fmt: skip
_OTHER_FORCES = {
    "field", "external", "constraint", "magnetic", "torque", "spring", "restraint", "dispersion", "vdw", "kinetic", "random",
    "net",
}  # fmt: skip
_SIGN = {"negative", "minus", "neg"}
_OTHER_STRESS = {"mises", "hydrostatic", "kinetic", "yield", "shear"}
_LENGTH = {
    "length", "lengths", "distance", "distances", "dist", "position", "positions", "pos", "coord", "coords", "coordinate",
    "coordinates", "r", "xyz", "geometry", "geom", "structure",
}  # fmt: skip
_CELL = {"cell", "lattice", "box"}
_WEIGHT_OF_ALL = {
    "config", "configuration", "sample", "frame", "structure", "loss", "train", "training", "system", "w", "weight", "weights",
}  # fmt: skip
_VOCABULARY = (
    _ENERGY | _FORCES | _GRADIENT | _STRESS | _VIRIAL | set(_RANKS) | _NOT_VALUES | _OTHER_ENERGIES | _LENGTH | _CELL
    | {"per", "atom", "atoms", "config"} | {name for name in NAMES if len(name) > 1}
) - {"e", "u", "0", "r", "w"}  # fmt: skip


class Meaning(NamedTuple):
    """The quantity under a name.

    Attributes:
        kind: The quantity.
        rank: Place in the order of preference; lower is better.
        per_atom: An energy per atom, not of the structure.
        gradient: Minus the forces.
        unit: The unit that the name ends with.
    """

    kind: Kind
    rank: int
    per_atom: bool = False
    gradient: bool = False
    unit: str | None = None


@lru_cache(maxsize=10_000)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: `REF_energy`, `RefEnergy` and `refenergy` have the same ones."""
    found: list[str] = []
    for chunk in re.split(r"[^A-Za-z0-9/]+", name.replace("Å", "ang")):
        for place, part in enumerate(chunk.split("/")):
            if place:
                found.append("per")
            if not part:
                continue
            whole = _segments(part.lower())
            if whole is not None:
                found += whole
            else:
                found += [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z0-9]+|[0-9]+", part)]
    return tuple(found)


@lru_cache(maxsize=10_000)
def meaning(name: str) -> Meaning | None:
    """The quantity under this name, if it can be a label."""
    words, per_atom = _without_per_atom(words_of(name))
    words, unit = _without_unit(words)
    if set(words) & _NOT_VALUES:
        return None
    if any(word in _STRESS or word in _VIRIAL for word in words):
        kind: Kind = "stress" if any(word in _STRESS for word in words) else "virial"
        rest = [word for word in words if word not in _STRESS | _VIRIAL]
        if set(rest) & _OTHER_STRESS:
            return None
        return Meaning(kind, _rank(rest) + (20 if kind == "virial" else 0), False, False, unit)
    if any(word in _FORCES | _GRADIENT for word in words) or _is_letter(words, "f"):
        rest = [word for word in words if word not in _FORCES | _GRADIENT | _SIGN | {"f", "energy"}]
        if set(rest) & _OTHER_FORCES:
            return None
        gradient = any(word in _GRADIENT for word in words) and not set(words) & _SIGN
        return Meaning("forces", _rank(rest) + 30 * (gradient or _is_letter(words, "f")), False, gradient, unit)
    if any(word in _ENERGY for word in words) or _is_letter(words, "e"):
        rest = [
            word for word in words if word not in {"energy", "energies", "etot", "epot", "toten", "ene", "pe", "e", "etotal"}
        ]
        if set(rest) & _OTHER_ENERGIES or name == "energies":  # ASE's energies of the atoms
            return None
        unusual = "energy" not in words and "energies" not in words and "u0" not in words
        return Meaning("energy", _rank(rest) + (30 if unusual and _rank(rest) < 30 else 0), per_atom, False, unit)
    return None


def resembles(name: str, kind: str) -> bool:
    """Whether a name has a word of a kind of label although it does not mean one (`formation_energy`, `pressure`)."""
    words = set(words_of(name))
    if words & {"weight", "weights", "unit", "units", "key"} or kind not in ("energy", "forces", "stress"):
        return False
    of = {"energy": _ENERGY | {"enthalpy"}, "forces": _FORCES | _GRADIENT, "stress": _STRESS | _VIRIAL | {"pressure"}}
    return bool(words & of[kind])


@lru_cache(maxsize=10_000)
def weight_of(name: str) -> str | None:
    """`structure`, `energy`, `forces` or `stress` if a name is that of a weight in the loss (`config_weight`), else None."""
    words = set(words_of(name))
    if not words & {"weight", "weights"}:
        return None
    rest = words - _WEIGHT_OF_ALL
    for kind, of in (("energy", {"energy", "energies", "e"}), ("forces", _FORCES | {"f"}), ("stress", _STRESS | _VIRIAL)):
        if rest and rest <= of:
            return kind
    return None if rest else "structure"


@lru_cache(maxsize=10_000)
def unit_of(name: str) -> str | None:
    """The quantity whose unit has this name: `energy`, `length`, `cell`, `forces`, `stress`, `all`, or words of another."""
    words = words_of(name)
    if not set(words) & {"unit", "units"}:
        return None
    rest = [word for word in words if word not in ("unit", "units", "of", "in", "property", "system", "style")]
    kinds = (
        ("energy", {"energy", "energies", "e"}),
        ("length", _LENGTH),
        ("cell", _CELL),
        ("forces", _FORCES | _GRADIENT | {"f"}),
        ("stress", _STRESS | {"pressure"}),
        ("virial", _VIRIAL),
    )
    if not rest:
        return "all"
    return next((kind for kind, of in kinds if set(rest) <= of), " ".join(rest))


def _rank(qualifiers: list[str]) -> int:
    ranks = [_RANKS.get(word, ASKS) for word in qualifiers]
    if not ranks:
        return 2
    late = [rank for rank in ranks if 35 <= rank < ASKS or rank > ASKS]
    if late:
        return max(late)
    if ASKS in ranks:
        return 8 if min(ranks) <= 1 else ASKS
    return min(ranks)


def _is_letter(words: tuple[str, ...], letter: str) -> bool:
    """Whether a single letter is all there is besides usual qualifiers: `E`, `total_e`, `E_ref`, `E_pbe`."""
    return letter in words and (len(words) <= 2 or all(word == letter or word in _RANKS for word in words))


def _without_per_atom(words: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    text = " ".join(words)
    for pattern in (
        r"\bper n?_?(?:atoms?|n)\b", r"\bperatoms?\b", r"\batoms?$", r"^atomic (?=energy|e$)", r"\bepa$", r"(?<=^e )pa$",
        r"(?<=\benergy )pa$",
    ):  # fmt: skip
        if re.search(pattern, text):
            return tuple(re.sub(pattern, "", text).split()), True
    return words, False


def _without_unit(words: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """A unit at the end, of the dimension that the rest implies."""
    for count in (4, 3, 2, 1):
        if len(words) <= count:
            continue
        end = [word for word in words[-count:] if word != "per"]
        text = "/".join(end)
        unit = parse_unit(text) if end else None
        kind = KINDS.get((unit.energy, unit.length)) if unit else None
        head = words[:-count]
        rest = set(head)
        requested = "stress" if rest & _STRESS else "forces" if rest & (_FORCES | _GRADIENT | {"f"}) else "energy"
        if rest & _VIRIAL and not rest & _STRESS:
            requested = "energy"
        if (kind == requested or (len(end) == 1 and is_atomic(text))) and text not in ("e", "a"):
            return head, text
    return words, None


def _segments(text: str) -> list[str] | None:
    """A compound of known words (`totalenergy`), split; None if it is not one."""
    if text in _VOCABULARY:
        return [text]
    for cut in range(len(text) - 1, 1, -1):
        if text[:cut] in _VOCABULARY and len(text) - cut > 2:
            rest = _segments(text[cut:])
            if rest is not None:
                return [text[:cut], *rest]
    return None
