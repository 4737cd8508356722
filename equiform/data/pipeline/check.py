"""Which structures cannot be trained on, and why."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.labels import LabelKeys, read_labels
from equiform.edges import shortest_edge
from equiform.errors import UserError
from equiform.neighbors import OVERLAP, Labels, neighbor_list

if TYPE_CHECKING:
    import ase


def problem_with(atoms: "ase.Atoms", labels: Labels) -> str | None:
    """Why a structure is of no use, or None."""
    if len(atoms) == 0:
        return "it has no atoms"
    if (atoms.numbers < 1).any():
        return "an atom has no element (symbol X or atomic number 0)"
    if not np.isfinite(atoms.positions).all():
        return "a position is NaN or infinite"
    if not np.isfinite(atoms.cell.array).all():
        return "the cell is NaN or infinite"
    for name, value in labels._asdict().items():
        if value is not None and not np.isfinite(value).all():
            return f"its {name} {'are' if name == 'forces' else 'is'} NaN or infinite"
    try:
        # 2 Å because a list as short as 0.1 Å needs a grid of very many cells.
        senders, receivers, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 2.0)
    except UserError as error:
        return str(error)
    vectors = atoms.positions[senders] + shifts @ atoms.cell.array - atoms.positions[receivers]
    edge, length = shortest_edge(vectors)
    if length < OVERLAP:
        i, j = int(receivers[edge]), int(senders[edge])
        pair = f"atoms {i} and {j}" if i != j else f"atom {i} and its image"
        return f"{pair} overlap: {length:.3g} Å apart (less than {OVERLAP} Å)"
    return None


def usable_structures(
    structures: "Sequence[ase.Atoms]",
    keys: LabelKeys,
    *,
    name: str,
    skip_invalid: bool,
    warnings: list[str],
) -> "tuple[list[ase.Atoms], list[Labels]]":
    """The structures that can be used, in Å, and their labels.

    Args:
        structures: As read.
        keys: Where the labels are.
        name: What the structures are called in messages, such as the file name.
        skip_invalid: Leave out the others, with a warning, instead of raising.
        warnings: Collects the warnings.

    Raises:
        UserError: A structure cannot be used and is not to be skipped, or none is left.
    """
    kept, labels, problems = [], [], []
    for number, atoms in enumerate(structures):
        try:
            label = read_labels(atoms, keys)
            if keys.length_factor != 1:
                atoms = atoms.copy()
                atoms.set_cell(atoms.cell.array * keys.length_factor, scale_atoms=False)
                atoms.positions *= keys.length_factor
            problem = problem_with(atoms, label)
        except UserError as error:
            problem = str(error)
        if problem is None:
            kept.append(atoms)
            labels.append(label)
        else:
            problems.append(f"structure {number} ({atoms.get_chemical_formula()}): {problem}")
    if problems and not skip_invalid:
        more = f" ({len(problems) - 1} more of {len(structures)} cannot be used)" if len(problems) > 1 else ""
        raise UserError(f"{name}, {problems[0]}{more}; mend it, or leave such out with data.skip_invalid=true")
    if problems:
        warnings.append(f"{name}: {len(problems)} of {len(structures)} structures are left out; the first: {problems[0]}")
    if not kept:
        raise UserError(f"{name}: none of {len(structures)} structures can be used; the first: {problems[0]}")
    return kept, labels
