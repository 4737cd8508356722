"""The data of benchmarks/time_to_accuracy.py: the same training, validation and test frames for every code, as extended XYZ."""

from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms

from equiform.data.config import DataConfig
from equiform.data.formats.reading import read_labelled
from equiform.data.formats.shipped import SHIPPED, shipped_data
from equiform.errors import UserError

TRAIN, VALIDATION, TEST = 200, 50, 250


class Split(NamedTuple):
    """Three files with `REF_energy` (eV) and `REF_forces` (eV/Å)."""

    train: Path
    validation: Path
    test: Path


class Source(NamedTuple):
    """A file with labelled frames: the shipped one, or one of the published data; how to read it; and whether it has cells."""

    file: str
    settings: dict[str, Any]
    periodic: bool = False


_KCAL = {"energy_unit": "kcal/mol", "forces_unit": "kcal/mol/Å"}
SETS: dict[str, Source] = {
    "ethanol": Source(f"{SHIPPED}ethanol_train.extxyz", {}),
    "3bpa": Source("molecules/train_300K.xyz", {}),
    "salicylic-acid": Source("rmd17/rmd17_salicylic.npz", _KCAL),
    "aspirin": Source("rmd17/rmd17_aspirin.npz", _KCAL),
    "silicon": Source("periodic/mlearn_Si/training.json", {}, periodic=True),
}
"""Sets by name: the shipped ethanol, 3BPA at 300 K, two molecules of rMD17, and silicon in periodic cells."""


def split(name: str, data: Path | None, folder: Path) -> Split:
    """The files of a set, written on first use: 200, 50 and up to 250 frames in a seeded order.

    Args:
        name: One of `SETS`.
        data: Folder with the published files; None: there is none.
        folder: Where the files are written.

    Raises:
        UserError: The published file is not there, or has too few frames.
    """
    parts = Split(*(folder / f"{name}_{part}.xyz" for part in Split._fields))
    if all(path.is_file() for path in parts):
        return parts
    file = _find(SETS[name].file, data)
    reading = read_labelled(file, DataConfig(train=str(file), **SETS[name].settings))
    frames = [_relabelled(atoms, labels) for atoms, labels in zip(reading.structures, reading.labels)]
    # A small set keeps an eighth of its frames for each of the two smaller parts.
    held_out = (VALIDATION, TEST) if len(frames) >= TRAIN + VALIDATION + TEST // 2 else (len(frames) // 8, len(frames) // 8)
    train = min(TRAIN, len(frames) - sum(held_out))
    if train < 1 or min(held_out) < 1:
        raise UserError(f"{file}: {len(frames)} frames are too few for three parts")
    bounds = np.cumsum([0, train, *held_out])
    order = np.random.default_rng(0).permutation(len(frames))
    folder.mkdir(parents=True, exist_ok=True)
    for path, start, stop in zip(parts, bounds, bounds[1:]):
        ase.io.write(path, [frames[index] for index in order[start:stop]], format="extxyz")
    return parts


def _find(file: str, data: Path | None) -> Path:
    if file.startswith(SHIPPED):
        return shipped_data(file.removeprefix(SHIPPED))
    if data is None or not (data / file).is_file():
        raise UserError(f"this set needs the published file {file}; give the folder that has it with --data FOLDER")
    return data / file


def _relabelled(atoms: Atoms, labels: Any) -> Atoms:
    out = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell if atoms.pbc.any() else None, pbc=atoms.pbc)
    out.info["REF_energy"] = float(labels.energy)
    out.arrays["REF_forces"] = np.asarray(labels.forces)
    return out
