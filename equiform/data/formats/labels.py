"""Labels: the names under which a file has energies, forces and stresses.

The meaning of a name is decided in `words`; values are converted to eV and Å in `values`.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.formats.stated import number_with_unit
from equiform.data.formats.words import ASKS, meaning, resembles, weight_of
from equiform.errors import UserError

if TYPE_CHECKING:
    import ase

PER_ATOM_RANK = 10
"""An energy of the structure goes before one per atom."""

FOR_TRAINING = {
    "forces": "a potential trained on energies alone needs far more structures",
    "energy": "the energy is learnt from forces only, up to a constant",
}
"""What a missing label means for training."""


@dataclass(frozen=True)
class Units:
    """Units that were given, as texts; None where none was."""

    energy: str | None = None
    length: str | None = None
    forces: str | None = None
    stress: str | None = None


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels, and the units given for them.

    Attributes:
        energy: Name of the energy; None if there is none.
        forces: Name of the forces.
        stress: Name of the stress or virial.
        energy_per: Whether the energies are of the structure or per atom; as their name says if None.
        given: Units that the user gave; they go before everything else.
        remembered: Units that were given when the model was trained; for files that state none.
        notes: What was found, for the user.
        warnings: What the user should check.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    energy_per: str | None = None
    given: Units = Units()
    remembered: Units = Units()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def virial(self) -> bool:
        """Whether `stress` names a virial, −volume · stress."""
        found = None if self.stress is None else meaning(self.stress)
        return found is not None and found.kind == "virial"

    @property
    def gradient(self) -> bool:
        """Whether `forces` names the gradient, −forces."""
        found = None if self.forces is None else meaning(self.forces)
        return found is not None and found.gradient


def units_of(config: DataConfig) -> Units:
    """The units that the configuration names."""
    return Units(config.energy_unit, config.length_unit, config.forces_unit, config.stress_unit)


def find_labels(
    structures: "Sequence[ase.Atoms]", config: DataConfig | None = None, *, remembered: Units = Units()
) -> LabelKeys:
    """Find the names of the labels.

    Names given in the configuration win; else calculator results, `info` and `arrays` are searched, names
    such as `REF_energy` before plain `energy`, `free_energy` last.

    Raises:
        UserError: A given name is not in the file, neither energies nor forces were found, or several names
            could be meant and none is usual.
    """
    config, remembered = config or DataConfig(train=""), remembered or Units()
    found, bare = _candidates(structures, config)
    notes, warnings, names = [], [], {}
    for kind, given in (("energy", config.energy_key), ("forces", config.forces_key), ("stress", config.stress_key)):
        if given is not None:
            names[kind] = _given(kind, given, found[kind], structures)
        else:
            names[kind] = _choose(kind, found[kind], warnings)
        name = names[kind]
        if name is not None:
            without = bare.get(name, 0) if kind == "stress" else 0
            notes.append(f"{kind}: {name!r} in {found[kind][name] - without} of {len(structures)} structures")
            if without:
                warnings.append(_stress_without_period(name, without, structures, config))
        unused = [other for other in found[kind] if other != name and meaning(other) is None and resembles(other, kind)]
        if unused:
            notes.append(f"not used as {kind}: {', '.join(map(repr, unused[:4]))} (data.{kind}_key={unused[0]} would use it)")
    _require(structures, found, names)
    for kind, what in FOR_TRAINING.items():
        if names[kind] is None:
            others = f"; data.{kind}_key=… if they are {' or '.join(sorted(found[kind])[:6])}" if found[kind] else ""
            warnings.append(f"no {'forces' if kind == 'forces' else 'energies'} found: {what}{others}")
    weights = sorted({name for atoms in structures[:1000] for name in named_values(atoms) if weight_of(name)})
    if weights:
        does = "used in the loss (data.weights=false: not)" if config.weights else "not used (data.weights=true uses them)"
        notes.append(f"weights: {', '.join(map(repr, weights))}, {does}")
    keys = LabelKeys(**names, energy_per=config.energy_per, given=units_of(config), remembered=remembered)
    if keys.gradient:
        notes.append(f"{keys.forces!r} is read as the gradient, −forces")
    if (
        keys.energy is not None
        and config.energy_per is None
        and (energy := meaning(keys.energy)) is not None
        and energy.per_atom
    ):
        notes.append(f"{keys.energy!r} is read as energy per atom (data.energy_per=structure: it is of the structure)")
    if keys.virial and config.stress_unit is not None:
        warnings.append(f"{keys.stress!r} is a virial, an energy: data.stress_unit={config.stress_unit} is not used for it")
    return LabelKeys(
        **names,
        energy_per=keys.energy_per,
        given=keys.given,
        remembered=remembered,
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


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


def _candidates(structures: "Sequence[ase.Atoms]", config: DataConfig) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Number of structures with a value of the right shape under each name; for stresses also, how many cannot use it."""
    found: dict[str, dict[str, int]] = {"energy": {}, "forces": {}, "stress": {}}
    bare: dict[str, int] = {}
    for number, atoms in enumerate(structures):
        for name, value in named_values(atoms).items():
            for kind, accepts in _ACCEPTS.items():
                if accepts(value, len(atoms)):
                    found[kind][name] = found[kind].get(name, 0) + 1
                    if kind == "stress" and not atoms.pbc.any():
                        bare[name] = bare.get(name, 0) + 1
                else:
                    _check_shape(number, atoms, name, value, kind, config)
    return found, bare


def _check_shape(number: int, atoms: "ase.Atoms", name: str, value: Any, kind: str, config: DataConfig) -> None:
    """Refuse a usual name with an unusable value, which training would otherwise ignore silently."""
    found = meaning(name)
    if found is None or found.rank >= 30 or _kind(found.kind) != kind or getattr(config, f"{kind}_key") not in (None, name):
        return
    needed = {"energy": "one number", "forces": f"({len(atoms)}, 3) numbers"}.get(kind, "6 or 3 × 3 numbers")
    what = f"shape {np.shape(value)}" if not isinstance(value, str) else repr(value[:40])
    raise UserError(f"structure {number} ({atoms.get_chemical_formula()}): {name!r} should be {needed} and is {what}")


def _choose(kind: str, counts: dict[str, int], warnings: list[str]) -> str | None:
    ranked = []
    for name in counts:
        found = meaning(name)
        if found is not None and _kind(found.kind) == kind:
            ranked.append((found.rank + PER_ATOM_RANK * found.per_atom, name))
    # A name that few structures carry does not win over one that most do.
    most = max((counts[name] for _, name in ranked), default=0)
    ranked = sorted((rank, name) for rank, name in ranked if counts[name] >= most / 2)
    if not ranked:
        return None
    rank, name = ranked[0]
    if rank >= ASKS and len([other for other, _ in ranked if other == rank]) > 1:
        names = ", ".join(other for _, other in ranked)
        raise UserError(f"several names could be the {kind}: {names}; choose with data.{kind}_key=…")
    others = [other for _, other in ranked[1:]]
    if others and not (name == "energy" and others == ["free_energy"]):
        uses = f"data.{kind}_key={others[0]} would use that"
        warnings.append(f"{kind}: {name!r} is used; the file also has {', '.join(map(repr, others))} ({uses})")
    return name


def _kind(kind: str) -> str:
    return "stress" if kind == "virial" else kind


def _given(kind: str, name: str, counts: dict[str, int], structures: "Sequence[ase.Atoms]") -> str:
    if name in counts:
        return name
    everything = sorted({key for atoms in structures for key in named_values(atoms)})
    if name in everything:
        raise UserError(f"data.{kind}_key={name} does not have the shape of {kind}")
    near = difflib.get_close_matches(name, everything, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"data.{kind}_key={name}: not in the file, which has {', '.join(everything) or 'none'}{hint}")


def _require(structures: "Sequence[ase.Atoms]", found: dict[str, dict[str, int]], names: dict[str, str | None]) -> None:
    if names["energy"] is None and names["forces"] is None:
        seen = sorted(set(found["energy"]) | set(found["forces"])) or ["none that could be"]
        raise UserError(
            f"no energies or forces found in {len(structures)} structures; names in the file that have the shape of "
            f"one: {', '.join(seen[:12])}; name them with data.energy_key=… and data.forces_key=…"
        )


def _stress_without_period(name: str, count: int, structures: "Sequence[ase.Atoms]", config: DataConfig) -> str:
    celled = sum(name in named_values(atoms) and not atoms.pbc.any() and atoms.cell.rank == 3 for atoms in structures)
    remedy = f"; {celled} of them have a cell: if they repeat, set data.pbc=true" if celled else ""
    return f"{name!r} is not used in {count} of {len(structures)} structures: they are not periodic, and have no stress{remedy}"


def _is_numeric(value: Any) -> bool:
    if isinstance(value, str):
        return number_with_unit(value) is not None and not value.strip().lstrip("+-").isdigit()
    return not isinstance(value, (bool, np.bool_, dict)) and np.asarray(value).dtype.kind in "fiu"


def _accepts_forces(value: Any, num_atoms: int) -> bool:
    if not isinstance(value, (np.ndarray, list, tuple)):
        return False
    shape = np.shape(value) if isinstance(value, np.ndarray) else np.shape(np.asarray(value, dtype=object))
    return shape == (num_atoms, 3) and _is_numeric(value)


_ACCEPTS: dict[str, Callable[[Any, int], bool]] = {
    "energy": lambda value, _: _is_numeric(value) and np.size(value) == 1,
    "forces": _accepts_forces,
    "stress": lambda value, _: (
        not isinstance(value, (str, dict)) and np.shape(value) in ((6,), (9,), (3, 3)) and _is_numeric(value)
    ),
}
