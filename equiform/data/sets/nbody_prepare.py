"""N-body sets ready for training or for a trained model: made where they are missing, with what a model has to beat."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equiform.data.formats.labels import LabelKeys
from equiform.data.formats.nbody import is_nbody_file
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.inspect import DataReport
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.sets import nbody
from equiform.data.sets.catalogue import ENVIRONMENT, cache_folder
from equiform.data.sets.config import SetConfig
from equiform.data.sets.nbody_samples import (
    FIELDS,
    LABELS,
    SETS,
    SPLITS,
    NBodySamples,
    find_set,
    linear_baseline,
    make_set,
)
from equiform.data.sets.nbody_yardsticks import yardstick_lines
from equiform.errors import UserError, suggest
from equiform.runtime.files import explained


def nbody_folder(name: str, folder: str | Path | None = None) -> Path:
    """Where the files of an N-body set are, or will be: a given folder, `EQUIFORM_DATA`/NAME, or the user's cache."""
    if folder is not None:
        return Path(folder)
    given = os.environ.get(ENVIRONMENT)
    return (Path(given) if given else cache_folder()) / name


def prepare_nbody(
    config: SetConfig, cutoff: float | None, *, progress: Callable[[int, int], None] | None = None
) -> PreparedData:
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
    files = _files(config.set, folder, progress)
    samples = {split: NBodySamples.read(path) for split, path in files.items()}
    sizes = {"train": config.train_size, "validation": config.validation_size}
    for split in settings.splits:
        wanted = sizes.get(split, config.test_size)
        have = len(samples[split])
        if wanted is not None and wanted > have:
            raise UserError(f"data.{split}_size={wanted}, but {files[split]} has {have} simulations; make the set anew")
        samples[split] = samples[split][:wanted]
    baseline = linear_baseline(samples["train"], samples["test"])
    # The first test set has its published name where there are others.
    tests = {"eval" if settings.further and split == "test" else split: samples[split] for split in settings.splits[2:]}
    unknown = sorted(set(config.tests or ()) - set(tests))
    if unknown:
        raise UserError(f"data.tests: {config.set} has no test set {unknown[0]!r}; it has: {', '.join(tests)}")
    tests = {name: part for name, part in tests.items() if config.tests is None or name in config.tests}
    facts = (
        ("data", f"{config.set}: {settings.about}; {folder}"),
        ("simulations", ", ".join(f"{len(part):,} {split}" for split, part in samples.items())),
        ("to beat", f"mean squared error {baseline['linear']:.4g} of x + {baseline['time']:.3g} v on the test split"),
        ("to beat", f"mean squared error {baseline['still']:.4g} of standing still"),
        *(("yardsticks", line) for name, part in tests.items() if settings.bound for line in yardstick_lines(name, part)),
    )

    def dataset(part: NBodySamples) -> Dataset:
        return Dataset(part, cutoff, fields=FIELDS, quantity=LABELS[0])

    return PreparedData(
        train=dataset(samples["train"]),
        validation=dataset(samples["validation"]),
        tests={name: dataset(part) for name, part in tests.items()},
        elements=samples["train"].elements,
        reference_energies={},
        report=DataReport(facts),
        keys=LabelKeys(),
    )


class Particles(NamedTuple):
    """Simulations that a trained model is asked about.

    Attributes:
        samples: The simulations. States without a later frame have the horizon 0.
        train: The training part of the same set, if it is there.
        about: What they are and where.
    """

    samples: NBodySamples
    train: NBodySamples | None
    about: str


def read_particles(
    data: str | Path,
    split: str = "test",
    *,
    folders: Mapping[str, str | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Particles:
    """Simulations by the name of a set, from the folder of one, from one of its files, or states of one's own.

    Args:
        data: A name (a set that is nowhere is made first), a folder with `test.npz` …, or an `.npz` file. Own states are
            `positions` and `velocities` (simulations, bodies, 3) and `charges` (simulations, bodies).
        split: Which part of a set.
        folders: Where sets were in training, by name.
        progress: Told (simulations done, simulations in all) of the split that is being made.

    Raises:
        UserError: There is nothing of that kind, or it is damaged.
    """
    path, name = Path(data), str(data)
    known_splits = SETS[name].splits if name in SETS else tuple(dict.fromkeys(s for one in SETS.values() for s in one.splits))
    if split not in known_splits:
        raise UserError(f"there is no split {split!r}{suggest(split, known_splits)}; there are: {', '.join(known_splits)}")
    if path.is_file():
        if not is_nbody_file(path):
            return Particles(_read_states(path), None, f"states of {path}")
        samples, beside = NBodySamples.read(path), path.with_name("train.npz")
        train = NBodySamples.read(beside) if is_nbody_file(beside) else None
        task = ("set", "horizon", "steps_per_frame", "time_step")
        same = train is not None and all(train.metadata.get(key) == samples.metadata.get(key) for key in task)
        return Particles(samples, train if same else None, f"{samples.metadata.get('set', 'simulations')}; {path}")
    if path.is_dir():
        files = {part: path / f"{part}.npz" for part in {*SPLITS, split}}
        if not files[split].is_file():
            raise UserError(f"{path} has no {split}.npz; is it a folder of equiform data make nbody-…?")
    elif name in SETS:
        files = _files(name, nbody_folder(name, (folders or {}).get(name)), progress)
    else:
        known = f"a folder or file of one, or one of {', '.join(SETS)}"
        raise UserError(f"there is no N-body set {name!r}{suggest(name, SETS)}; give {known}")
    train = NBodySamples.read(files["train"]) if files["train"].is_file() else None
    return Particles(NBodySamples.read(files[split]), train, f"{name}, {split}; {files[split]}")


def _files(name: str, folder: Path, progress: Callable[[int, int], None] | None) -> dict[str, Path]:
    """The files of a set by split; made if one of them is not there."""
    files = {split: folder / f"{split}.npz" for split in find_set(name).splits}
    if all(path.is_file() for path in files.values()):
        return files
    return make_set(name, folder, progress=progress and (lambda _, done, total: progress(done, total)))


def _read_states(path: Path) -> NBodySamples:
    names = ("positions", "velocities", "charges")
    wanted = "an .npz file with positions and velocities (simulations, bodies, 3) and charges (simulations, bodies)"
    try:
        with explained(f"cannot read {path}", "check its permissions"), np.load(path, allow_pickle=False) as file:
            absent = [name for name in names if name not in getattr(file, "files", ())]
            arrays = [] if absent else [np.asarray(file[name], np.float64) for name in names]
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no particles; a model of particles takes {wanted}") from error
    if absent:
        raise UserError(f"{path} lacks {', '.join(absent)}; a model of particles takes {wanted}")
    x, v, charges = arrays
    if x.ndim != 3 or x.shape[2] != 3 or v.shape != x.shape or charges.shape != x.shape[:2] or not x.size:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UserError(f"{path}: positions, velocities and charges have shapes {shapes}; it must be {wanted}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise UserError(f"{path} has numbers that are not finite")
    return NBodySamples(nbody.Trajectories(x[:, None], v[:, None], charges), {"start": 0, "horizon": 0})
