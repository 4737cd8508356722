"""The data as training needs them, from any source."""

from dataclasses import dataclass

from equiform.data.formats.labels import LabelKeys
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.inspect import DataReport


@dataclass(frozen=True)
class PreparedData:
    """Everything that training needs of the data.

    Attributes:
        train: To train on; isolated atoms are not among them (they are the reference energies).
        validation: Held out during training; may be empty.
        tests: Evaluated after training, by name.
        elements: Atomic numbers in `train`, ascending.
        reference_energies: eV by atomic number; empty if none are subtracted.
        report: Facts, and what the user should check.
        keys: Where the labels were found.
        references_from: Where the reference energies are from, see `ReferenceEnergies.source`; empty where a set has its own.
    """

    train: Dataset
    validation: Dataset
    tests: dict[str, Dataset]
    elements: tuple[int, ...]
    reference_energies: dict[int, float]
    report: DataReport
    keys: LabelKeys
    references_from: str = ""
