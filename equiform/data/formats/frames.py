"""What the readers of all formats return: structures as the file has them, each with its number in the file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from equiform.errors import UserError

if TYPE_CHECKING:
    import ase


@dataclass(frozen=True)
class Frame:
    """One structure of a file, in the units of the file.

    Attributes:
        atoms: The structure with everything the file says about it.
        number: Its number in the file, from 0.
        file: The file.
        fixed_units: Whether the format itself, or the program that wrote the file, fixes the units: they are eV and Å then.
        converged: Whether the calculation of its labels converged.
    """

    atoms: "ase.Atoms"
    number: int
    file: Path
    fixed_units: bool = False
    converged: bool = True


@dataclass(frozen=True)
class How:
    """How to read files.

    Attributes:
        format: The format, where the user named it.
        types: Elements of the numbered types 1, 2, …
        has_units: Whether the user named the units of energies and lengths.
        skip_invalid: Leave out structures that cannot be read instead of raising.
        warnings: Collects what the user should know.
    """

    format: str | None = None
    types: tuple[str, ...] | None = None
    has_units: bool = False
    skip_invalid: bool = False
    warnings: list[str] = field(default_factory=list)

    def warn(self, line: str) -> None:
        """Tell the user, once."""
        if line not in self.warnings:
            self.warnings.append(line)


Reader = Callable[[Path, How], Iterable[Frame]]


def frames_of(structures: "Iterable[ase.Atoms]", file: Path, *, fixed_units: bool = False) -> list[Frame]:
    """Converged frames numbered from 0."""
    return [Frame(atoms, number, file, fixed_units) for number, atoms in enumerate(structures)]


def elements_of_types(types: tuple[str, ...] | None, count: int, file: Path) -> tuple[str, ...]:
    """The symbol of each type 1 … count.

    Raises:
        UserError: The user named none, or too few.
    """
    if types is not None and len(types) >= count:
        return types
    given = "" if types is None else f"; data.types={','.join(types)} names only {len(types)}"
    example = ",".join(("C", "H", "O", "N")[k] if k < 4 else "…" for k in range(min(count, 5)))
    raise UserError(
        f"{file} numbers its atom types 1 to {count} and does not say which elements they are{given}; name them in order: "
        f"data.types={example} (predict, relax, md: --types {example})"
    )


def reason(error: Exception) -> str:
    """An exception of a parser as the end of a sentence."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
