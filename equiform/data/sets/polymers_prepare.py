"""The polymer set ready for training: energies and forces by split, reference energies of isolated atoms subtracted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from equiform.data.config import DataConfig
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.prepare import prepare_files
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets.config import SetConfig
from equiform.data.sets.polymers import ATOM_ENERGIES, SPLITS, find_families, polymers_folder
from equiform.errors import UserError
from equiform.runtime.files import write_atomically


def prepare_polymers(config: SetConfig, cutoff: float, *, progress: Callable[[int, int], None] | None = None) -> PreparedData:
    """Read the splits of the polymer set, or of one family of it.

    Args:
        config: `molecule` is a family, if given; `train_size` trajectories spread over the families are kept.
        cutoff: Å.
        progress: Called with (structures done, structures in all) while neighbour lists are built.

    Raises:
        UserError: The set is not here, or has no such family.
    """
    folder = polymers_folder(config.folder)
    if not (folder / "train.extxyz").is_file():
        raise UserError(f"the polymer set is not in {folder}: make it with: equiform data make polymers -o {folder}")
    if config.split != "published":
        raise UserError(f"polymers has no split {config.split!r}; there is: published (by conformer)")
    names = () if config.molecule is None else find_families([config.molecule])
    files = {split: folder / f"{split}.extxyz" for split in SPLITS}
    if names:
        files = {split: _of_family(path, names) for split, path in files.items()}
    have = {split: str(path) for split, path in files.items() if path.is_file() and path.stat().st_size}
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


def _of_family(path: Path, names: Sequence[str]) -> Path:
    """The frames of one family in a file of their own, beside the whole split."""
    chosen = path.parent / "trajectories"
    part = path.with_name(f"{path.stem}-{names[0]}.extxyz")
    write_atomically(part, b"".join(file.read_bytes() for file in sorted(chosen.glob(f"{names[0]}-{path.stem}-*.extxyz"))))
    return part
