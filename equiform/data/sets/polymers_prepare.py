"""The polymer set ready for training: energies and forces by split, reference energies of isolated atoms subtracted."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from equiform.data.config import DataConfig
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.prepare import prepare_files
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets.catalogue import cache_folder
from equiform.data.sets.config import SetConfig
from equiform.data.sets.polymers import ATOM_ENERGIES, SPLITS, find_families, polymers_folder
from equiform.errors import UserError
from equiform.runtime.files import checksum, write_atomically


def prepare_polymers(config: SetConfig, cutoff: float, *, progress: Callable[[int, int], None] | None = None) -> PreparedData:
    """Read the splits of the polymer set, or of one family of it.

    Args:
        config: `molecule` is a family, if given; `train_size` evenly spaced frames are kept.
        cutoff: Å.
        progress: Called with (structures done, structures in all) while neighbour lists are built.

    Raises:
        UserError: The set is not here, or has no such family.
    """
    folder = polymers_folder(config.folder)
    if _file(folder, "train") is None:
        raise UserError(f"the polymer set is not in {folder}: make it with: equiform data make polymers -o {folder}")
    if config.split != "published":
        raise UserError(f"polymers has no split {config.split!r}; there is: published (by conformer)")
    files = {split: path for split in SPLITS if (path := _file(folder, split)) is not None}
    if config.molecule is not None:
        (family,) = find_families([config.molecule])
        files = {split: _of_family(path, split, family) for split, path in files.items()}
    have = {split: str(path) for split, path in files.items() if path.stat().st_size}
    if "train" not in have:
        raise UserError(f"{folder} has no training frames{f' of {config.molecule}' if config.molecule else ''}")
    tests = {split: path for split, path in have.items() if split not in ("train", "validation")}
    data = prepare_files(
        DataConfig(
            train=have["train"], validation=have.get("validation"), test=tests, reference_energies=ATOM_ENERGIES["gfn2"]
        ),
        cutoff,
        progress=progress,
    )
    return replace(
        data,
        train=_first(data.train, config.train_size),
        validation=_first(data.validation, config.validation_size),
        tests={name: _first(part, config.test_size) for name, part in data.tests.items()},
    )


def _first(dataset: Dataset, count: int | None) -> Dataset:
    """So many structures, evenly spread."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset[:: len(dataset) // count][:count]


def _file(folder: Path, split: str) -> Path | None:
    """The frames of a split: as made, or as released."""
    return next((path for path in (folder / f"{split}.extxyz", folder / f"{split}.extxyz.gz") if path.is_file()), None)


def _of_family(path: Path, split: str, family: str) -> Path:
    """The frames of one family in a file of their own, in the user's cache."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    lines, start, chosen = text.splitlines(keepends=True), 0, []
    while start < len(lines):
        end = start + 2 + int(lines[start])
        if f"family={family} " in lines[start + 1]:
            chosen += lines[start:end]
        start = end
    own = cache_folder() / "polymers-families"
    own.mkdir(parents=True, exist_ok=True)
    part = own / f"{family}-{split}-{checksum(str(path.absolute()).encode())[:8]}.extxyz"
    write_atomically(part, "".join(chosen).encode())
    return part
