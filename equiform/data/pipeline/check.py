"""Which structures cannot be trained on, and why."""

from typing import TYPE_CHECKING

import numpy as np

from equiform.data.formats.reading import Reading
from equiform.edges import shortest_edge
from equiform.errors import UserError
from equiform.neighbors import OVERLAP, Labels, neighbor_list

if TYPE_CHECKING:
    import ase


def problem_with(atoms: "ase.Atoms", labels: Labels) -> str | None:
    """Why a structure cannot be used, or None."""
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
        # 2 Å because a list as short as 0.1 Å needs a grid of very many cells; what is near is looked at below.
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


def usable(reading: Reading, *, name: str, skip_invalid: bool, warnings: list[str]) -> Reading:
    """The structures that can be used, with their labels.

    Args:
        reading: As read.
        name: Name of the structures in messages, such as the file name.
        skip_invalid: Leave out the others, with a warning, instead of raising.
        warnings: Collects the warnings.

    Raises:
        UserError: A structure cannot be used and is not to be skipped, or none is left.
    """
    kept, problems = [], []
    for number, (atoms, label) in enumerate(zip(reading.structures, reading.labels)):
        problem = problem_with(atoms, label)
        if problem is None:
            kept.append(number)
        else:
            problems.append(f"{reading.names[number]} ({atoms.get_chemical_formula()}): {problem}")
    total = len(reading)
    if problems and not skip_invalid:
        more = f" ({len(problems) - 1} more of {total} cannot be used)" if len(problems) > 1 else ""
        raise UserError(f"{name}, {problems[0]}{more}; fix it, or leave such structures out with data.skip_invalid=true")
    if problems:
        warnings.append(f"{name}: {len(problems)} of {total} structures are left out; the first: {problems[0]}")
    if not kept:
        raise UserError(f"{name}: none of {total} structures can be used; the first: {problems[0]}")
    return reading if len(kept) == total else reading.take(kept)
