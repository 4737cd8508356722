"""OC20 IS2RE and IS2RS: the published LMDBs, or relaxations as ASE trajectories → a store.

Every structure has the energy and the positions that its relaxation ends with. Tags: 0 sub-surface, 1 surface, 2 adsorbate.
A trajectory gives one structure per frame, all with the same end; its energies are total energies of the calculation, those
of the LMDBs are adsorption energies.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from equiform.data.sets.lmdb_files import read_records
from equiform.data.store.files import CELL, Field, Store, StoreWriter
from equiform.errors import UserError

FOLDERS = {
    "train": "all/train",
    "train-100k": "100k/train",
    "train-10k": "10k/train",
    "val_id": "all/val_id",
    "val_ood_ads": "all/val_ood_ads",
    "val_ood_cat": "all/val_ood_cat",
    "val_ood_both": "all/val_ood_both",
}
"""The divisions of the published archive, and their folders in it."""

SAMPLE = "sample"
PARTS = (*FOLDERS, SAMPLE)
"""The divisions, and relaxations as trajectories."""

NEEDED = ("pos", "cell", "atomic_numbers", "tags", "y_relaxed")
_ADSORBATE = (1, 6, 7, 8)

# Source: the published configuration (Liao & Smidt, OC20).
ENERGY_MEAN, ENERGY_STD = -1.525913953781128, 2.279365062713623
NOISE_PROBABILITY, NOISE_STD = 0.5, 0.3

_FIELDS = {
    "cell": CELL,
    "tags": Field("atom", "int32", (), "", "0 sub-surface, 1 surface, 2 adsorbate"),
    "fixed": Field("atom", "bool", (), "", "held in place in the relaxation"),
    "energy": Field("graph", "float64", (), "eV", "energy that the relaxation ends with"),
    "relaxed": Field("atom", "float64", (3,), "Å", "positions that the relaxation ends with; NaN where not given"),
    "system": Field("graph", "int64", (), "", "number of the relaxation"),
    "frame": Field("graph", "int32", (), "", "step of the relaxation"),
}
_TRAJECTORY_FIELDS = {
    "current_energy": Field("graph", "float64", (), "eV", "total energy of this frame"),
    "forces": Field("atom", "float64", (3,), "eV/Å", "forces of this frame"),
}


def find_source(folder: Path, part: str) -> Path | None:
    """The LMDB of a division, or the folder of trajectories; None if it is not here."""
    if part == SAMPLE:
        return folder if folder.is_dir() and any(folder.glob("*.traj")) else None
    places = (f"is2res_train_val_test_lmdbs/data/is2re/{FOLDERS[part]}", f"is2re/{FOLDERS[part]}", FOLDERS[part], part)
    for place in places:
        for name in ("data.lmdb", "data.aselmdb"):
            if (folder / place / name).is_file():
                return folder / place / name
    for name in (f"{part}.lmdb", f"{part}.aselmdb"):
        if (folder / name).is_file():
            return folder / name
    return None


def prepare(
    source: Path, store: Path, *, about: dict[str, Any] | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write the store of an LMDB, or of a folder of trajectories.

    Raises:
        UserError: A needed field is missing, or the source is damaged.
    """
    trajectories = source.is_dir()
    fields = {**_FIELDS, **(_TRAJECTORY_FIELDS if trajectories else {})}
    kind = "total energies of the calculations" if trajectories else "adsorption energies"
    details = {**(about or {}), "energies": kind}
    # Images along the third cell vector are farther away than any cutoff in use: slabs have 20 Å of vacuum. The published
    # code leaves them out in the same way.
    with StoreWriter(store, fields, pbc=(True, True, False), about=details) as writer:
        for done, total, columns in _trajectories(source) if trajectories else _lmdb(source):
            writer.add(**columns)
            if progress is not None and done % 200 == 0:
                progress(done, total)


def guess_tags(numbers: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Tags of a relaxation that has none: fixed atoms 0, free ones 1, the trailing H, C, N, O atoms 2.

    In OC20's structures the adsorbate is appended to the slab.
    """
    tags = np.where(fixed, 0, 1).astype(np.int32)
    for index in range(len(numbers) - 1, -1, -1):
        if fixed[index] or int(numbers[index]) not in _ADSORBATE:
            break
        tags[index] = 2
    return tags


def displacement(store: Store, index: int, positions: np.ndarray | None = None) -> np.ndarray:
    """Relaxed minus current positions, Å; NaN (no label) for atoms of tag 0, which the published loss leaves out."""
    current = store.rows("positions", index) if positions is None else positions
    moved = store.rows("relaxed", index) - current
    return np.where(store.rows("tags", index)[:, None] > 0, moved, np.nan)


def draw_positions(
    store: Store, index: int, rng: np.random.Generator, *, probability: float = NOISE_PROBABILITY
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Positions for one epoch of "Noisy Nodes" and the displacement that is left from them.

    With the given probability every atom of tag > 0 goes to λ x_initial + (1 − λ) x_relaxed plus N(0, 0.3²) Å, λ ~ U(0, 1)
    drawn for each atom; the other structures stay as they are.

    Source: Liao & Smidt, "IS2RE with IS2RS"; the published code.
    """
    initial, relaxed = store.rows("positions", index), store.rows("relaxed", index)
    positions = np.array(initial, np.float64)
    if rng.random() < probability:
        weight = rng.random((len(initial), 1))
        between = weight * initial + (1 - weight) * relaxed + NOISE_STD * rng.standard_normal(initial.shape)
        positions = np.where(store.rows("tags", index)[:, None] > 0, between, positions)
    return positions, {"displacement": displacement(store, index, positions)}


def _lmdb(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    for done, (where, total, record) in enumerate(read_records(path)):
        missing = [name for name in NEEDED if name not in record]
        if missing:
            have = ", ".join(sorted(record))
            raise UserError(f"{where} has no {', '.join(missing)}, which IS2RE needs; it has {have}")
        positions = np.asarray(record["pos"], np.float64)
        count = len(positions)
        numbers = np.asarray(record["atomic_numbers"]).astype(int).reshape(-1)
        relaxed = np.asarray(record["pos_relaxed"], np.float64) if "pos_relaxed" in record else np.full((count, 3), np.nan)
        tags = np.asarray(record["tags"]).astype(np.int32).reshape(-1)
        cell = np.asarray(record["cell"], np.float64).reshape(-1, 3)
        if positions.shape != (count, 3) or not len(numbers) == len(tags) == len(relaxed) == count or cell.shape != (3, 3):
            raise UserError(f"{where}: {count} positions, {len(numbers)} elements, {len(tags)} tags do not belong together")
        if not (np.isfinite(positions).all() and np.isfinite(float(record["y_relaxed"]))):
            raise UserError(f"{where} holds numbers that are not finite")
        yield (
            done + 1,
            total,
            {
                "positions": positions,
                "species": numbers,
                "cell": cell,
                "tags": tags,
                "fixed": np.asarray(record.get("fixed", np.zeros(count))).astype(bool).reshape(-1),
                "energy": float(record["y_relaxed"]),
                "relaxed": relaxed,
                "system": _number(record.get("sid"), done),
                "frame": 0,
            },
        )


def _trajectories(folder: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    from ase.constraints import FixAtoms
    from ase.io import read

    files = sorted(folder.glob("*.traj"))
    for number, file in enumerate(files):
        try:
            frames: Any = read(file, ":")
            energies = [float(atoms.get_potential_energy(apply_constraint=False)) for atoms in frames]
        except Exception as error:  # ASE raises whatever its reader trips over.
            raise UserError(f"{file} is not a whole trajectory with energies: {type(error).__name__}: {error}") from error
        last = frames[-1]
        fixed = np.zeros(len(last), bool)
        for constraint in last.constraints:
            if isinstance(constraint, FixAtoms):
                fixed[constraint.get_indices()] = True
        tags = last.get_tags() if last.get_tags().any() else guess_tags(last.numbers, fixed)
        for step, atoms in enumerate(frames):
            columns = {
                "positions": atoms.positions,
                "species": atoms.numbers,
                "cell": atoms.cell.array,
                "tags": tags,
                "fixed": fixed,
                "energy": energies[-1],
                "relaxed": last.positions,
                "system": number,
                "frame": step,
                "current_energy": energies[step],
                "forces": atoms.get_forces(apply_constraint=False),
            }
            yield number + 1, len(files), columns


def _number(value: Any, otherwise: int) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise
