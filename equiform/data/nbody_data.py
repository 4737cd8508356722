"""N-body sets ready for training: made where they are missing, with what a model has to beat."""

import os
from collections.abc import Callable
from pathlib import Path

from equiform.data.catalogue import ENVIRONMENT, cache_folder
from equiform.data.dataset import Dataset
from equiform.data.inspect import DataReport
from equiform.data.labels import LabelKeys
from equiform.data.nbody_sets import LABELS, SPLITS, NBodySamples, find_set, linear_baseline, make_set
from equiform.data.prepare import PreparedData
from equiform.data.set_config import SetConfig
from equiform.errors import UserError

QUANTITY = LABELS[0]


def nbody_folder(name: str, folder: str | Path | None = None) -> Path:
    """Where the files of an N-body set are, or will be: a given folder, `EQUIFORM_DATA`/NAME, or the user's cache."""
    if folder is not None:
        return Path(folder)
    given = os.environ.get(ENVIRONMENT)
    return (Path(given) if given else cache_folder()) / name


def prepare_nbody(config: SetConfig, cutoff: float, *, progress: Callable[[int, int], None] | None = None) -> PreparedData:
    """Read the three splits of an N-body set; one that is not there is made first.

    Args:
        config: Which set, and how many simulations of each split.
        cutoff: Noted in the data sets; every particle sees every other one, however far.
        progress: Told (simulations done, simulations in all) of the split that is being made.

    Raises:
        UserError: A file is damaged, or has fewer simulations than wanted.
    """
    if config.split != "published":
        raise UserError(f"{config.set} has no split {config.split!r}; there is: published")
    settings, folder = find_set(config.set), nbody_folder(config.set, config.folder)
    files = {split: folder / f"{split}.npz" for split in SPLITS}
    if not all(path.is_file() for path in files.values()):
        files = make_set(config.set, folder, progress=progress and (lambda _, done, total: progress(done, total)))
    samples = {split: NBodySamples.read(path) for split, path in files.items()}
    for split, wanted in zip(SPLITS, (config.train_size, config.validation_size, config.test_size)):
        have = len(samples[split])
        if wanted is not None and wanted > have:
            raise UserError(f"data.{split}_size={wanted}, but {files[split]} has {have} simulations; make the set anew")
        samples[split] = samples[split][:wanted]
    baseline = linear_baseline(samples["train"], samples["test"])
    facts = (
        ("data", f"{config.set}: {settings.about}; {folder}"),
        ("simulations", ", ".join(f"{len(part):,} {split}" for split, part in samples.items())),
        ("to beat", f"mean squared error {baseline['linear']:.4g} of x + {baseline['time']:.3g} v on the test split"),
        ("to beat", f"mean squared error {baseline['still']:.4g} of standing still"),
    )
    parts = {
        split: Dataset(part, cutoff, units=dict.fromkeys(LABELS, ""), quantity=QUANTITY) for split, part in samples.items()
    }
    return PreparedData(
        train=parts["train"],
        validation=parts["validation"],
        tests={"test": parts["test"]},
        elements=parts["train"].elements,
        reference_energies={},
        report=DataReport(facts),
        keys=LabelKeys(),
    )
