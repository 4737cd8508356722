"""MD17 and rMD17: the publishers' npz files → a store of frames with energies and forces, in eV.

MD17 (Chmiela et al. 2017) is `md17_<molecule>.npz` with z, R, E, F. rMD17 (Christensen & von Lilienfeld 2020), the same
frames recomputed, is `rmd17_<molecule>.npz`; its `old_energies` and `old_forces` are the labels of MD17. Both are in
kcal/mol and Å. The official splits of rMD17 are row numbers: one csv each, or gathered in `splits_<molecule>.npz`.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from equiform.data.store.files import Field, StoreWriter
from equiform.data.units import KCAL_MOL
from equiform.errors import UserError, suggest

MOLECULES = ("aspirin", "benzene", "ethanol", "malonaldehyde", "naphthalene", "salicylic", "toluene", "uracil")
"""The eight molecules of the tables."""

ONLY_REVISED = ("azobenzene", "paracetamol")
FILES = {
    "md17": {name: f"md17_{'benzene2017' if name == 'benzene' else name}.npz" for name in MOLECULES},
    "rmd17": {name: f"rmd17_{name}.npz" for name in (*MOLECULES, *ONLY_REVISED)},
}
NUM_SPLITS = 5

# A force is minus the derivative of the energy in its unit; molecules vibrate with some eV/Å, or tens of kcal/mol/Å.
_ENERGY_PER_ATOM = (-3e5, -100.0)  # kcal/mol of all-electron total energies


class Frames(NamedTuple):
    """What an npz file holds, in eV and Å.

    Attributes:
        species: Atomic numbers.
        positions: Å.
        energies: eV, total.
        forces: eV/Å.
        source: Origin of the labels, human-readable.
    """

    species: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray
    source: str


def find_molecule(name: str, data_set: str) -> str:
    """The publishers' name of a molecule.

    Raises:
        UserError: There is none of that name.
    """
    folded = name.lower().replace(" ", "_").removesuffix("_acid").removesuffix("_2017").removesuffix("2017")
    known = FILES[data_set]
    if folded not in known:
        raise UserError(f"{data_set} has no molecule {name!r}{suggest(name, known)}; there are: {', '.join(known)}")
    return folded


def find_file(folder: Path, data_set: str, molecule: str) -> Path | None:
    """The file that has the labels of a data set: for MD17 also one of rMD17, for its `old_*` labels; None without."""
    names = [FILES[data_set][molecule]] + ([FILES["rmd17"][molecule]] if data_set == "md17" else [])
    names += [f"md17_{molecule}.npz"] if data_set == "md17" else []
    for name in names:
        for place in (folder, folder / "md17", folder / "rmd17", folder / "npz_data", folder / "rmd17" / "npz_data"):
            if (place / name).is_file():
                return place / name
    return None


def read_frames(path: Path, data_set: str) -> Frames:
    """The frames of one molecule with the labels of one of the two data sets.

    Raises:
        UserError: The file is damaged, lacks what it must have, or its numbers cannot be in kcal/mol.
    """
    arrays = _read_npz(path)
    if "nuclear_charges" in arrays:
        old = "old_" if data_set == "md17" else ""
        names = ("nuclear_charges", "coords", f"{old}energies", f"{old}forces")
        source = f"{path.name}, " + ("original MD17 labels (old_energies, old_forces)" if old else "revised labels")
    else:
        if data_set == "rmd17":
            raise UserError(f"{path} has the original labels of MD17, not those of rMD17: it lacks nuclear_charges, coords, …")
        names, source = ("z", "R", "E", "F"), f"{path.name}, original labels"
    absent = [name for name in names if name not in arrays]
    if absent:
        raise UserError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays) or 'nothing'}")
    species, positions, energies, forces = (np.asarray(arrays[name]) for name in names)
    energies = energies.reshape(-1)
    frames, atoms = len(energies), len(species)
    if positions.shape != (frames, atoms, 3) or forces.shape != positions.shape:
        raise UserError(
            f"{path}: {atoms} atoms and {frames} energies do not go with positions {positions.shape} and forces {forces.shape}"
        )
    if not (np.isfinite(energies).all() and np.isfinite(positions).all() and np.isfinite(forces).all()):
        raise UserError(f"{path} holds numbers that are not finite")
    per_atom = float(energies.mean()) / atoms
    if not _ENERGY_PER_ATOM[0] < per_atom < _ENERGY_PER_ATOM[1]:
        raise UserError(
            f"{path}: the mean energy is {per_atom:.4g} per atom, which no total energy in kcal/mol is; the published files "
            "are in kcal/mol"
        )
    return Frames(species.astype(np.uint8), positions, KCAL_MOL * energies, KCAL_MOL * forces.astype(np.float64), source)


def official_split(folder: Path, molecule: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of training and test frames of one of rMD17's official splits.

    Args:
        folder: Where the npz file is.
        molecule: The publishers' name.
        number: 1 to 5.

    Raises:
        UserError: The split is not there, or its file is damaged.
    """
    gathered = folder / f"splits_{molecule}.npz"
    keys = (f"train_{number:02d}", f"test_{number:02d}")
    if gathered.is_file():
        arrays = _read_npz(gathered)
        if any(key not in arrays for key in keys):
            have = ", ".join(sorted(key for key in arrays if key.startswith("train")))
            raise UserError(f"{gathered} has no official split {number:02d}; it has {have}")
        return arrays[keys[0]].astype(np.int64), arrays[keys[1]].astype(np.int64)
    for place in (folder / "splits", folder.parent / "splits", folder):
        files = [place / f"index_{key}.csv" for key in keys]
        if all(file.is_file() for file in files):
            try:
                train, test = (np.loadtxt(file, dtype=np.float64).astype(np.int64) for file in files)
            except ValueError as error:
                raise UserError(f"{files[0].parent}: the split files are not lists of numbers: {error}") from error
            return train, test
    raise UserError(
        f"{folder} has no official splits of rMD17 (splits_{molecule}.npz, or splits/index_train_{number:02d}.csv); "
        "fetch rmd17 as a whole, or use data.split=random"
    )


def prepare(
    file: Path,
    data_set: str,
    molecule: str,
    store: Path,
    *,
    about: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the store of one molecule.

    Raises:
        UserError: See `read_frames`.
    """
    frames = read_frames(file, data_set)
    fields = {
        "energy": Field("graph", "float64", (), "eV", "total energy"),
        "forces": Field("atom", "float64", (3,), "eV/Å", "forces"),
    }
    details: dict[str, Any] = {**(about or {}), "labels": frames.source, "published unit": "kcal/mol"}
    if data_set == "rmd17":
        details["splits"] = available_splits(file.parent, molecule)
    with StoreWriter(store, fields, about=details) as writer:
        for index in range(len(frames.energies)):
            writer.add(
                positions=frames.positions[index],
                species=frames.species,
                energy=frames.energies[index],
                forces=frames.forces[index],
            )
            if progress is not None and (index + 1) % 2000 == 0:
                progress(index + 1, len(frames.energies))


def available_splits(folder: Path, molecule: str) -> dict[str, list[list[int]]]:
    """The official splits on this machine, by number: training and test rows."""
    found = {}
    for number in range(1, NUM_SPLITS + 1):
        try:
            train, test = official_split(folder, molecule, number)
        except UserError:
            continue
        found[f"{number:02d}"] = [train.tolist(), test.tolist()]
    return found


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            # Texts (name, theory, md5) are stored as objects by some publishers: they are not read.
            wanted = [name for name in file.files if name not in ("name", "theory", "md5", "type", "code_version")]
            return {name: file[name] for name in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(f"{path} is not a whole npz file ({reason}); fetch it again") from error
