"""From files of structures, as a `DataConfig` names them, to data sets ready for training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from equiform.data.config import DataConfig
from equiform.data.formats.labels import LabelKeys
from equiform.data.formats.reading import Reading, read_labelled
from equiform.data.pipeline.check import usable
from equiform.data.pipeline.dataset import Dataset, dataset_from_labels
from equiform.data.pipeline.inspect import inspect_labelled, leaked, odd_structures
from equiform.data.pipeline.prepared import PreparedData
from equiform.data.pipeline.reference_energies import find_reference_energies, is_isolated_atom
from equiform.data.pipeline.split import split_indices
from equiform.errors import UserError


def prepare_files(config: DataConfig, cutoff: float, *, progress: Callable[[int, int], None] | None = None) -> PreparedData:
    """Read, check, split, subtract reference energies, and build neighbour lists.

    Args:
        config: Where the data are and how to read them.
        cutoff: Å; None for models without a cutoff, which take simulated particles only.
        progress: Progress callback `(done, total)` in structures while neighbour lists are built.

    Raises:
        UserError: Anything about the data that makes training impossible or wrong.
    """
    warnings: list[str] = []
    whole = _read(config.train, config, None, warnings)
    keys = whole.keys
    warnings += keys.warnings
    single = np.array([is_isolated_atom(atoms) for atoms in whole.structures])
    isolated, rest = whole.take(np.flatnonzero(single)), whole.take(np.flatnonzero(~single))
    if not len(rest):
        raise UserError(f"{_name(config.train)} holds only isolated atoms: they only give reference energies")
    if config.max_structures is not None and config.max_structures < len(rest):
        chosen = np.random.default_rng([config.seed, 0]).permutation(len(rest))
        rest = rest.take(np.sort(chosen[: config.max_structures]))
    train, validation = _split(rest, config, keys, warnings)
    tests = {}
    for name, path in _test_files(config.test).items():
        tests[name] = _read(path, config, keys, warnings)

    elements = _elements(train)
    references = find_reference_energies(
        train.structures,
        train.labels,
        config.reference_energies,
        isolated=list(zip(isolated.structures, isolated.labels)),
    )
    for name, part in {"validation": validation, **tests}.items():
        _check_elements(name, part, elements)
    others = {"validation": validation, **tests}
    if not isinstance(config.validation, str):  # of the same structures, which are looked through as one
        del others["validation"]
    report = inspect_labelled(train, references, train if isinstance(config.validation, str) else rest)
    warnings += [f"{name}: {line}" for name, part in others.items() for line in odd_structures(part, references)]
    warnings += leaked(train.structures, {"validation": validation.structures} | {n: p.structures for n, p in tests.items()})
    report = report.extended(
        notes=[
            f"{len(train.structures)} structures to train on, {len(validation.structures)} for validation"
            + (f", {len(isolated.structures)} isolated atoms" if isolated.structures else "")
            + "".join(f", {len(part.structures)} in test {name!r}" for name, part in tests.items())
        ],
        warnings=warnings,
    )

    total = sum(len(part.structures) for part in (train, validation, *tests.values()))
    done = 0

    def build(part: Reading) -> Dataset:
        nonlocal done
        start = done
        done += len(part.structures)
        tell = progress
        report_progress = None if tell is None else lambda count, _: tell(start + count, total)
        return dataset_from_labels(
            part.structures, part.labels, cutoff, references.values, weights=part.weights, progress=report_progress
        )

    return PreparedData(
        train=build(train),
        validation=build(validation),
        tests={name: build(part) for name, part in tests.items()},
        elements=elements,
        reference_energies=references.values,
        report=report,
        keys=keys,
        references_from=references.source,
    )


def _read(path: str | list[str], config: DataConfig, keys: LabelKeys | None, warnings: list[str]) -> Reading:
    """Read and check one input; names found in the training file are preferred in the others."""
    reading = read_labelled(path, config, preferred=keys)
    warnings += reading.warnings
    return usable(reading, name=_name(path), skip_invalid=config.skip_invalid, warnings=warnings)


def _split(rest: Reading, config: DataConfig, keys: LabelKeys, warnings: list[str]) -> tuple[Reading, Reading]:
    if isinstance(config.validation, str):
        return rest, _read(config.validation, config, keys, warnings)
    if not config.validation:
        return rest, rest.take([])
    indices, held = split_indices(len(rest), config.validation, seed=config.seed, keep=_sole_carriers(rest))
    if not len(held):
        warnings.append(
            f"{len(rest)} structures cannot be divided: there is no validation set, and overfitting is not detected"
        )
    return rest.take(indices), rest.take(held)


def _sole_carriers(part: Reading) -> list[int]:
    """One structure of every rare element: if it were held out, the model would not know the element."""
    carriers: dict[int, list[int]] = {}
    for k, atoms in enumerate(part.structures):
        for z in np.unique(atoms.numbers):
            carriers.setdefault(int(z), []).append(k)
    return sorted({rows[0] for rows in carriers.values()})


def _check_elements(name: str, part: Reading, elements: tuple[int, ...]) -> None:
    unknown = set(_elements(part)) - set(elements)
    if unknown:
        from ase.data import chemical_symbols

        names = ", ".join(chemical_symbols[z] for z in sorted(unknown))
        raise UserError(
            f"the {name} structures contain {names}, which the training structures do not: nothing can be predicted for them; "
            "add such structures to data.train or leave them out"
        )


def _elements(part: Reading) -> tuple[int, ...]:
    return tuple(sorted({int(z) for atoms in part.structures for z in np.unique(atoms.numbers)}))


def _test_files(test: dict[str, str] | str | None) -> dict[str, str]:
    if test is None:
        return {}
    return test if isinstance(test, dict) else {Path(test).stem: test}


def _name(path: str | list[str]) -> str:
    return path if isinstance(path, str) else ", ".join(path[:3]) + (", …" if len(path) > 3 else "")
