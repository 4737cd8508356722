"""The one way from files to structures in eV and Å, for every command: train, evaluate, predict, relax, md, info."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.formats.frames import Frame, How
from equiform.data.formats.labels import LabelKeys, Units, find_labels, named_values, units_of
from equiform.data.formats.read import read_frames
from equiform.data.formats.stated import stated_units
from equiform.data.formats.values import Weights, in_angstrom, read_labels, weights_of
from equiform.data.formats.words import unit_of
from equiform.errors import UserError
from equiform.neighbors import Labels

if TYPE_CHECKING:
    import ase

Paths = str | Path | Sequence[str | Path]
_NOBODY = Units()


@dataclass(frozen=True)
class Reading:
    """Structures of files, ready to be used.

    Attributes:
        structures: In Å; the labels that they carry under their names are in eV and Å, too.
        labels: Total energies, forces and stresses, eV, eV/Å, eV/Å³.
        weights: Loss weights from the files.
        free_energies: eV; of each structure whose energy is extrapolated to σ → 0 and beside which its file has the
            electronic free energy, which the forces derive from; else None.
        names: Name of each in messages: its number in the file, and the file if there are several.
        keys: Where the labels were found.
        warnings: What the user should check.
    """

    structures: "list[ase.Atoms]"
    labels: list[Labels]
    weights: list[Weights]
    free_energies: list[float | None]
    names: list[str]
    keys: LabelKeys
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.structures)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Reading":
        """Some of the structures."""
        parts = (self.structures, self.labels, self.weights, self.free_energies, self.names)
        chosen = [[part[int(k)] for k in indices] for part in parts]
        return Reading(*chosen, keys=self.keys, warnings=self.warnings)  # type: ignore[arg-type]


def read_labelled(
    path: Paths,
    config: DataConfig,
    *,
    remembered: Units = _NOBODY,
    preferred: LabelKeys | None = None,
    labels_needed: bool = True,
) -> Reading:
    """Structures with their labels.

    Names of labels are looked for file by file, as files of one data set may have been written by different programs.

    Args:
        path: What to read, see `read_frames`.
        config: How.
        remembered: Units that a model was trained with; for files that state none.
        preferred: Names found in the training files, which go before others where a file has them.
        labels_needed: Raise where no file has any.

    Raises:
        UserError: A file cannot be read, or nothing in it has energies or forces.
    """
    how = _how(config)
    frames = [frame for group in _by_file(_kept(read_frames(path, how=how), config, how)) for frame in group]
    found: list[LabelKeys] = []
    chosen: list[LabelKeys] = []
    missing: UserError | None = None
    for group in _by_file(frames):
        atoms = [frame.atoms for frame in group]
        own = _without_missing(config if preferred is None else _prefer(config, preferred, atoms), atoms, path)
        said = remembered
        if group[0].fixed_units:
            own, said = _fixed(own, group[0].file, how), Units()
        try:
            keys = find_labels(atoms, own, remembered=said)
        except UserError as error:
            if "no energies or forces found" not in str(error):
                raise UserError(f"{group[0].file}: {error}") from None
            missing = missing or UserError(f"{group[0].file}: {error}")
            keys = LabelKeys(given=units_of(own), remembered=said, warnings=() if labels_needed else (str(error),))
        _warn_of_units(group, keys, how)
        chosen += [keys] * len(group)
        found.append(keys)
    if missing is not None and all(keys.energy is None and keys.forces is None for keys in found):
        if labels_needed:
            raise missing
    elif missing is not None:
        how.warn(f"{missing}".partition("; names in the file")[0])
    names = _names(frames)
    merged = _merged(found, [group[0].file for group in _by_file(frames)])
    return _ready([(frame.atoms, keys) for frame, keys in zip(frames, chosen)], names, merged, config, how, _where(path))


def label_structures(structures: "Sequence[ase.Atoms]", config: DataConfig | None = None) -> Reading:
    """Structures that are in memory with their labels, as `read_labelled` of a file that holds them.

    Raises:
        UserError: Nothing in them is an energy or forces, or a unit is not understood.
    """
    config = config or DataConfig(train="")
    how = _how(config)
    keys = find_labels(structures, config)
    names = [f"structure {number}" for number in range(len(structures))]
    return _ready([(atoms, keys) for atoms in structures], names, keys, config, how, "data")


def _ready(
    pairs: "list[tuple[ase.Atoms, LabelKeys]]", names: list[str], merged: LabelKeys, config: DataConfig, how: How, where: str
) -> Reading:
    """Labels, weights and structures in eV and Å."""
    ready: list[tuple[ase.Atoms, Labels, Weights, float | None, str]] = []
    for (atoms, keys), name in zip(pairs, names):
        try:
            weight = weights_of(atoms) if config.weights else Weights()
            label = read_labels(atoms, keys)
            ready.append((in_angstrom(atoms, keys), _weighed(label, weight), weight, _free_energy(atoms, keys, label), name))
        except UserError as error:
            line = f"{where}, {name} ({atoms.get_chemical_formula()}): {error}"
            if not config.skip_invalid:
                raise UserError(f"{line}; fix it, or leave such structures out with data.skip_invalid=true") from None
            how.warn(f"{line}; it is left out")
    if not ready:
        raise UserError(f"{where}: none of {len(pairs)} structures can be used; {how.warnings[-1]}")
    columns = [list(column) for column in zip(*ready)]
    return Reading(*columns, keys=merged, warnings=tuple(how.warnings))  # type: ignore[arg-type]


def read_unlabelled(
    path: Paths, config: DataConfig | None = None, *, index: str | int = ":", remembered: Units = _NOBODY
) -> Reading:
    """Structures to make predictions for; labels are not needed, and converted where present.

    Args:
        path: What to read, see `read_frames`.
        config: How.
        index: Which structures of each file.
        remembered: Units that a model was trained with; for files that state none.

    Raises:
        UserError: A file cannot be read.
    """
    config = config or DataConfig(train="")
    how = _how(config)
    frames = _kept(read_frames(path, index, how), config.model_copy(update={"keep_unconverged": True}), how)
    structures, names = [], _names(frames)
    for group in _by_file(frames):
        own, said = config, remembered
        if group[0].fixed_units:
            own, said = _fixed(config, group[0].file, how), Units()
        keys = LabelKeys(given=units_of(own), remembered=said)
        _warn_of_units(group, keys, how)
        for frame in group:
            try:
                structures.append(in_angstrom(frame.atoms, keys))
            except UserError as error:
                raise UserError(f"{frame.file}: {error}") from None
    count = len(structures)
    return Reading(structures, [Labels()] * count, [Weights()] * count, [None] * count, names, LabelKeys(), tuple(how.warnings))


def units_in(metadata: Mapping[str, Any]) -> Units:
    """The units that the data of a model were said to be in when it was trained, from the model's metadata."""
    data = metadata.get("data") or {}
    return Units(*(data.get(f"{kind}_unit") for kind in ("energy", "length", "forces", "stress")))


def _how(config: DataConfig) -> How:
    has_units = config.energy_unit is not None and config.length_unit is not None
    return How(config.format, config.types, has_units, config.skip_invalid)


def _kept(frames: list[Frame], config: DataConfig, how: How) -> list[Frame]:
    """Without unconverged calculations, and periodic as the user says."""
    bad = [frame for frame in frames if not frame.converged]
    if bad and not config.keep_unconverged:
        which = ", ".join(str(frame.number) for frame in bad[:5]) + (", …" if len(bad) > 5 else "")
        files = sorted({str(frame.file) for frame in bad})
        line = (
            f"{', '.join(files[:3])}: {len(bad)} of {len(frames)} structures are of calculations that did not converge "
            f"({which})"
        )
        if len(bad) == len(frames):
            raise UserError(f"{line}; repeat the calculation, or use them with data.keep_unconverged=true")
        how.warn(f"{line}; they are left out (data.keep_unconverged=true uses them)")
        frames = [frame for frame in frames if frame.converged]
    if config.pbc is None:
        return frames
    for frame in frames:
        if config.pbc and frame.atoms.cell.rank < 3:
            raise UserError(f"data.pbc=true, but structure {frame.number} of {frame.file} has no cell")
        frame.atoms.pbc = config.pbc
    return frames


def _where(path: Paths) -> str:
    if isinstance(path, (str, Path)):
        return str(path)
    return ", ".join(str(part) for part in path[:3]) + (", …" if len(path) > 3 else "")


def _by_file(frames: list[Frame]) -> list[list[Frame]]:
    groups: dict[Path, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.file, []).append(frame)
    return list(groups.values())


def _names(frames: list[Frame]) -> list[str]:
    several = len({frame.file for frame in frames}) > 1
    return [f"structure {frame.number}" + (f" of {frame.file.name}" if several else "") for frame in frames]


def _prefer(config: DataConfig, preferred: LabelKeys, structures: "list[ase.Atoms]") -> DataConfig:
    """Names found in other files, where these structures have them and the user gave no other one."""
    present = {name for atoms in structures for name in named_values(atoms)}
    update: dict[str, str | None] = {}
    for kind in ("energy", "forces", "stress"):
        name, given = getattr(preferred, kind), getattr(config, f"{kind}_key")
        if given in (None, name):
            update[f"{kind}_key"] = name if name in present else None
    return config.model_copy(update=update)


def _without_missing(config: DataConfig, structures: "list[ase.Atoms]", path: Paths) -> DataConfig:
    """A name given by the user needs to be in one of the files only."""
    if isinstance(path, (str, Path)) and Path(str(path)).exists():
        return config
    present = {name for atoms in structures for name in named_values(atoms)}
    absent = {
        f"{kind}_key": None
        for kind in ("energy", "forces", "stress")
        if (name := getattr(config, f"{kind}_key")) is not None and name not in present
    }
    return config if len(absent) == 0 or not present else config.model_copy(update=absent)


def _fixed(config: DataConfig, file: Path, how: How) -> DataConfig:
    """Outputs of programs are in the program's units, which the reader converts; a given unit is not used."""
    named = {
        name: value for name in ("energy_unit", "length_unit", "forces_unit", "stress_unit") if (value := getattr(config, name))
    }
    plain = {"energy_unit": ("eV",), "length_unit": ("Å", "Angstrom", "A"), "forces_unit": ("eV/Å",), "stress_unit": ("eV/Å³",)}
    odd = [f"data.{name}={value}" for name, value in named.items() if value not in plain[name]]
    if odd:
        how.warn(f"{file} has a format whose units are known and converted: {', '.join(odd)} is not used for it")
    return config.model_copy(update=dict.fromkeys(named))


def _warn_of_units(group: list[Frame], keys: LabelKeys, how: How) -> None:
    """What the structures state about units: by all, by some, or contradicting the user."""
    stating: dict[tuple[str, str], list[int]] = {}
    for frame in group:
        if not any(unit_of(str(name)) or value is True for name, value in frame.atoms.info.items()):
            continue
        for kind, text in stated_units(frame.atoms.info).items():
            if kind in ("energy", "length", "cell", "forces", "stress", "virial"):
                stating.setdefault((kind, text), []).append(frame.number)
    file = group[0].file
    for (kind, text), numbers in stating.items():
        given = getattr(keys.given, {"cell": "length", "virial": "energy"}.get(kind, kind))
        if given is not None and given != text:
            how.warn(f"{file} says that its unit of {kind} is {text}; {given} is used, as given")
        elif len(numbers) < len(group):
            how.warn(
                f"{file}: {len(numbers)} of {len(group)} structures say that their unit of {kind} is {text} (the first: "
                f"structure {numbers[0]}); it is used for those only"
            )


def _weighed(label: Labels, weight: Weights) -> Labels:
    """A label of weight zero is a placeholder, not a value."""
    kept = {kind: value if getattr(weight, kind) else None for kind, value in label._asdict().items()}
    return Labels(**kept)


def _free_energy(atoms: "ase.Atoms", keys: LabelKeys, label: Labels) -> float | None:
    if keys.energy != "energy" or label.energy is None or "free_energy" not in (values := named_values(atoms)):
        return None
    value = values["free_energy"]
    if isinstance(value, str) or np.size(value) != 1:
        return None
    return read_labels(atoms, replace(keys, energy="free_energy", forces=None, stress=None)).energy


def _merged(found: list[LabelKeys], files: list[Path]) -> LabelKeys:
    """The keys of several files as one, with what differs between them."""
    first = next((keys for keys in found if keys.energy is not None or keys.forces is not None), found[0])
    if len(found) == 1:
        return first
    notes = [line for keys in found for line in keys.notes]
    warnings = [line for keys in found for line in keys.warnings]
    for kind in ("energy", "forces", "stress"):
        names = {getattr(keys, kind): file for keys, file in zip(found, files) if getattr(keys, kind) is not None}
        if len(names) > 1:
            where = ", ".join(f"{name!r} in {file.name}" for name, file in names.items())
            warnings.append(f"{kind} is {where}: are they of the same method? (data.{kind}_key=… chooses one)")
    return replace(first, notes=tuple(dict.fromkeys(notes))[:12], warnings=tuple(dict.fromkeys(warnings))[:20])
