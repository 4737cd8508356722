"""Labels: where the energies, forces and stresses are in a stranger's file, and what they mean."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.formats import units
from equiform.errors import UserError
from equiform.neighbors import Labels

if TYPE_CHECKING:
    import ase

# In order of preference: a name that says "reference" beats a plain one, which may be some calculator's output.
_PREFIXES = ("ref", "dft", "", "total", "tot", "potential", "pot", "qm", "scf", "free")
# Quantities that carry "energy" in their name and are not the energy that forces derive from.
_NOT_THE_ENERGY = re.compile(
    "peratom|formation|atomi[sz]ation|kinetic|unit|error|std|var|interaction|adsorption|correction|dispersion"
    "|zeropoint|gap|fermi|binding|cohesive|hull|excitation|reaction|solvation|strain|key"
)


@dataclass(frozen=True)
class LabelKeys:
    """Where the labels are and their factors to eV, eV/Å and eV/Å³.

    Attributes:
        energy: Name of the energy; None if there is none.
        forces: Name of the forces.
        stress: Name of the stress or virial.
        energy_factor: eV per unit of the file.
        forces_factor: eV/Å per unit; negative if the file holds gradients.
        stress_factor: eV/Å³ per unit (eV per unit for a virial).
        length_factor: Å per unit of positions and cells.
        virial: Whether `stress` names a virial, −volume · stress.
        notes: What was found, for the user.
        warnings: What the user ought to check.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    energy_factor: float = 1.0
    forces_factor: float = 1.0
    stress_factor: float = 1.0
    length_factor: float = 1.0
    virial: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def find_labels(structures: "Sequence[ase.Atoms]", config: DataConfig | None = None) -> LabelKeys:
    """Find the names and units of the labels.

    Names given in the configuration win; else calculator results, `info` and `arrays` are searched, names
    such as `REF_energy` before plain `energy`, `free_energy` last.

    Raises:
        UserError: A given name is not in the file, neither energies nor forces were found, or several names
            could be meant and none is usual.
    """
    config = config or DataConfig(train="")
    found: dict[str, dict[str, int]] = {"energy": {}, "forces": {}, "stress": {}}
    for atoms in structures:
        for name, value in named_values(atoms).items():
            for kind, accepts in _ACCEPTS.items():
                if accepts(value, len(atoms)):
                    found[kind][name] = found[kind].get(name, 0) + 1
    _check_shapes(structures, found, config)
    notes, warnings, names = [], [], {}
    for kind, given in (
        ("energy", config.energy_key),
        ("forces", config.forces_key),
        ("stress", config.stress_key),
    ):
        if given is not None:
            names[kind] = _given(kind, given, found[kind], structures)
        else:
            names[kind] = _choose(kind, found[kind], warnings)
        if names[kind] is not None:
            count = found[kind][names[kind]]
            notes.append(f"{kind}: {names[kind]!r} in {count} of {len(structures)} structures")
    if names["energy"] is None and names["forces"] is None:
        seen = sorted(set(found["energy"]) | set(found["forces"])) or ["none that could be"]
        raise UserError(
            f"no energies or forces found in {len(structures)} structures; names in the file that have the "
            "shape of "
            f"one: {', '.join(seen[:12])}; name them with data.energy_key=… and data.forces_key=…"
        )
    if names["forces"] is None:
        others = f"; data.forces_key=… if they are {' or '.join(sorted(found['forces'])[:6])}" if found["forces"] else ""
        warnings.append(f"no forces found: a potential trained on energies alone needs far more structures{others}")
    if names["energy"] is None:
        others = f"; data.energy_key=… if they are {' or '.join(sorted(found['energy'])[:6])}" if found["energy"] else ""
        warnings.append(f"no energies found: the energy is learnt from forces only, up to a constant{others}")
    factors = _factors(structures, config, names["stress"], notes, warnings)
    forces_name = _plain(names["forces"] or "")
    if "grad" in forces_name:
        factors["forces_factor"] *= -1
        notes.append(f"{names['forces']!r} is read as the gradient, −forces")
    return LabelKeys(**names, **factors, notes=tuple(notes), warnings=tuple(warnings))


def read_labels(atoms: "ase.Atoms", keys: LabelKeys) -> Labels:
    """The labels of one structure in eV, eV/Å and eV/Å³; None where the structure lacks one.

    Raises:
        UserError: A label has the wrong shape.
    """
    values = named_values(atoms)
    energy = forces = stress = None
    if keys.energy in values:
        energy = _numbers(values[keys.energy], keys.energy).reshape(-1)
        if energy.size != 1:
            raise UserError(f"energy {keys.energy!r} has {energy.size} values, not one")
        energy = float(energy[0]) * keys.energy_factor
    if keys.forces in values:
        forces = _numbers(values[keys.forces], keys.forces)
        if forces.size != 3 * len(atoms):
            raise UserError(f"forces {keys.forces!r} have shape {forces.shape}, not ({len(atoms)}, 3)")
        forces = forces.reshape(-1, 3) * keys.forces_factor
    if keys.stress in values and atoms.pbc.any():
        stress = _matrix(_numbers(values[keys.stress], keys.stress), keys.stress) * keys.stress_factor
        if keys.virial:
            volume = abs(float(np.linalg.det(atoms.cell.array)))
            stress = -stress / volume if volume > 0 else None
    return Labels(energy, forces, stress)


def named_values(atoms: "ase.Atoms") -> dict[str, Any]:
    """Everything that is stored with a structure under a name."""
    values: dict[str, Any] = {}
    info = dict(atoms.info)
    for nested in ("data", "key_value_pairs"):  # where ASE's databases put them
        inner = info.pop(nested, None)
        if isinstance(inner, dict):
            values.update(inner)
    values.update(info)
    values.update({k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")})
    if atoms.calc is not None:
        # results, not get_forces(): that would zero the forces of constrained atoms.
        values.update({k: v for k, v in getattr(atoms.calc, "results", {}).items() if v is not None})
    return {str(name): value for name, value in values.items()}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rank(kind: str, name: str) -> int | None:
    """Place in the order of preference; None for a name that is not a usual one."""
    plain = _plain(name)
    stems = {
        "energy": ("energy", "energies"),
        "forces": ("forces", "force"),
        "stress": ("stress", "virial", "virials"),
    }
    if kind == "energy" and name in ("energies",):  # ASE's per-atom energies
        return None
    for stem_place, stem in enumerate(stems[kind]):
        for place, prefix in enumerate(_PREFIXES):
            if plain in (prefix + stem, stem + prefix):
                return 10 * stem_place + place if kind == "stress" else place
    if kind == "forces" and plain in {prefix + stem for prefix in _PREFIXES for stem in ("gradient", "gradients", "grad")}:
        return 30
    if kind == "energy" and plain in ("epot", "etot", "toten", "e", "pe", "ene"):
        return 30
    if kind == "energy" and "energy" in plain and not _NOT_THE_ENERGY.search(plain):
        return 50
    if kind == "forces" and "force" in plain and not any(w in plain for w in ("constant", "unit", "error", "key")):
        return 50
    if kind == "stress" and re.search("stress|virial", plain) and not re.search("unit|error|key|stresses", plain):
        return 50
    return None


def _check_shapes(structures: "Sequence[ase.Atoms]", found: dict[str, dict[str, int]], config: DataConfig) -> None:
    """A usual name with an unusable value would go unseen, and training would silently do without it."""
    for number, atoms in enumerate(structures):
        for name, value in named_values(atoms).items():
            for kind, accepts in _ACCEPTS.items():
                rank = _rank(kind, name)
                usual = rank is not None and rank < 30 and getattr(config, f"{kind}_key") in (None, name)
                if usual and not accepts(value, len(atoms)):
                    needed = {"energy": "one number", "forces": f"({len(atoms)}, 3) numbers"}.get(kind, "6 or 3 × 3 numbers")
                    what = f"shape {np.shape(value)}" if not isinstance(value, str) else repr(value[:40])
                    raise UserError(
                        f"structure {number} ({atoms.get_chemical_formula()}): {name!r} should be {needed} and is {what}"
                    )


def _choose(kind: str, counts: dict[str, int], warnings: list[str]) -> str | None:
    ranked = sorted((rank, name) for name in counts if (rank := _rank(kind, name)) is not None)
    # A name that few structures carry does not win over one that most do.
    most = max((counts[name] for _, name in ranked), default=0)
    ranked = [(rank, name) for rank, name in ranked if counts[name] >= most / 2]
    if not ranked:
        return None
    rank, name = ranked[0]
    others = [other for _, other in ranked[1:]]
    if rank == 50 and others:
        raise UserError(f"several names could be the {kind}: {', '.join([name, *others])}; choose with data.{kind}_key=…")
    if others and not (name == "energy" and others == ["free_energy"]):
        warnings.append(f"{kind}: {name!r} is used; the file also has {', '.join(map(repr, others))}")
    return name


def _given(kind: str, name: str, counts: dict[str, int], structures: "Sequence[ase.Atoms]") -> str:
    if name in counts:
        return name
    everything = sorted({key for atoms in structures for key in named_values(atoms)})
    if name in everything:
        raise UserError(f"data.{kind}_key={name} names something that does not have the shape of {kind}")
    near = difflib.get_close_matches(name, everything, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"data.{kind}_key={name}: not in the file, which has {', '.join(everything) or 'none'}{hint}")


def _numbers(value: Any, name: str | None) -> np.ndarray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name!r} is not a number or an array of numbers: {str(value)[:60]!r}") from None


def _is_numeric(value: Any) -> bool:
    return not isinstance(value, (str, bool, dict)) and np.asarray(value).dtype.kind in "fiu"


def _accepts_forces(value: Any, num_atoms: int) -> bool:
    if not isinstance(value, (np.ndarray, list, tuple)):
        return False
    shape = np.shape(np.asarray(value, dtype=object))
    return shape == (num_atoms, 3) and _is_numeric(value)


_ACCEPTS = {
    "energy": lambda value, _: _is_numeric(value) and np.size(value) == 1,
    "forces": _accepts_forces,
    "stress": lambda value, _: _is_numeric(value) and np.shape(value) in ((6,), (9,), (3, 3)),
}


def _matrix(stress: np.ndarray, name: str | None) -> np.ndarray:
    """3 × 3 from Voigt order xx yy zz yz xz xy, nine numbers, or a matrix; symmetrised."""
    if stress.shape == (6,):
        xx, yy, zz, yz, xz, xy = stress
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if stress.size != 9:
        raise UserError(f"stress {name!r} has shape {stress.shape}; 6, 9 or 3 × 3 numbers are needed")
    stress = stress.reshape(3, 3)
    return 0.5 * (stress + stress.T)


def _factors(
    structures: "Sequence[ase.Atoms]",
    config: DataConfig,
    stress: str | None,
    notes: list[str],
    warnings: list[str],
) -> dict[str, Any]:
    """Factors to eV, eV/Å, eV/Å³ and Å: as configured, else as the file says, else these units."""
    said: dict[str, set[str]] = {}
    for atoms in structures:
        for name, value in atoms.info.items():
            if isinstance(value, str) and (match := re.fullmatch(r"(energy|forces?|stress|length)_?units?", name.lower())):
                said.setdefault(match[1].rstrip("s") if match[1] != "stress" else "stress", set()).add(value)

    def unit(kind: str, configured: str | None, convert: Any) -> float | None:
        if configured is not None:
            return convert(configured)
        texts = said.get(kind, set())
        if len(texts) > 1:
            raise UserError(f"the file mixes units of {kind}: {', '.join(sorted(texts))}; convert it to one unit first")
        for text in texts:
            try:
                factor = convert(text)
            except UserError as error:
                warnings.append(f"the file names a unit for {kind} that is not understood and is ignored: {error}")
                return None
            notes.append(f"unit of {kind}: {text} (as the file says)")
            return factor
        return None

    energy = unit("energy", config.energy_unit, units.energy_factor) or 1.0
    length = unit("length", config.length_unit, units.length_factor) or 1.0
    forces = unit("force", config.forces_unit, units.forces_factor) or energy / length
    virial = stress is not None and "virial" in _plain(stress)
    stress_factor = energy if virial else unit("stress", config.stress_unit, units.stress_factor) or energy / length**3
    return {
        "energy_factor": energy,
        "forces_factor": forces,
        "stress_factor": stress_factor,
        "length_factor": length,
        "virial": virial,
    }
