"""A sample of structures, from a file or from a data set by name."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equiform.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms


def some_structures(data: str, most: int, folder: Path | None = None) -> "list[Atoms]":
    """Up to a number of structures, evenly spread.

    Args:
        data: A file that ASE reads, or the name of a data set, with `:PART` if it has parts.
        most: Maximum number.
        folder: Where the published files of the set are.

    Raises:
        UserError: There is neither a file nor a set of that name.
    """
    from ase import Atoms

    from equiform.data.formats.reading import read_unlabelled
    from equiform.data.sets.catalogue import SETS, open_store

    name, _, part = data.partition(":")
    if name not in SETS or Path(data).exists():
        if folder is not None:
            raise UserError(f"--from goes with a data set ({', '.join(SETS)}), not with {data}")
        structures = read_unlabelled(data).structures
        return [structures[k] for k in _spread(len(structures), most)]
    store = open_store(name, part or None, folder)
    chosen = []
    for index in _spread(len(store), most):
        tags = store.rows("tags", index) if "tags" in store.fields else None
        atoms = Atoms(
            store.rows("species", index), store.rows("positions", index), cell=store.cell(index), pbc=store.pbc, tags=tags
        )
        chosen.append(atoms)
    return chosen


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist() if count else []
