"""Irreps of O(3): the channels of a feature by type, as in `128x0e+64x1o`.

An irrep is a degree l and a parity p (`e`: +1, `o`: −1 under inversion). SE(3) models label everything even, which
drops the parity selection rule.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

_TERM = re.compile(r"^(?:(\d+)x)?(\d+)([eo])$")


class Irrep(NamedTuple):
    """One irreducible representation: degree and parity."""

    l: int
    p: int

    @property
    def dim(self) -> int:
        return 2 * self.l + 1

    def __str__(self) -> str:
        return f"{self.l}{'e' if self.p == 1 else 'o'}"

    def couples_to(self, other: "Irrep") -> Iterator["Irrep"]:
        """The irreps in the tensor product with another one, by ascending degree."""
        for l in range(abs(self.l - other.l), self.l + other.l + 1):
            yield Irrep(l, self.p * other.p)


class Chunk(NamedTuple):
    """`mul` copies of an irrep."""

    mul: int
    irrep: Irrep


@dataclass(frozen=True)
class Irreps:
    """A sequence of chunks; parsed with `Irreps.parse`, printed back by `str`."""

    chunks: tuple[Chunk, ...]

    @classmethod
    def parse(cls, text: "str | Irreps") -> "Irreps":
        """Read `128x0e+64x1o`; a missing multiplicity is one.

        Raises:
            ValueError: The text is not of this form; the offending term is named.
        """
        if isinstance(text, Irreps):
            return text
        chunks = []
        for term in text.replace(" ", "").split("+") if text.strip() else []:
            match = _TERM.match(term)
            if match is None:
                raise ValueError(f"{term!r} in irreps {text!r} is not of the form 16x1e (copies x degree e|o)")
            mul, l, parity = match.groups()
            chunks.append(Chunk(int(mul or 1), Irrep(int(l), 1 if parity == "e" else -1)))
        return cls(tuple(chunks))

    @classmethod
    def spherical(cls, l_max: int, *, parity: bool) -> "Irreps":
        """The irreps of the spherical harmonics up to a degree, with true parities or all even."""
        return cls(tuple(Chunk(1, Irrep(l, (-1) ** l if parity else 1)) for l in range(l_max + 1)))

    def __str__(self) -> str:
        return "+".join(f"{mul}x{irrep}" for mul, irrep in self.chunks)

    def __repr__(self) -> str:
        return f"Irreps({str(self)!r})"

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Chunk:
        return self.chunks[index]

    def __contains__(self, irrep: object) -> bool:
        return any(chunk.irrep == irrep and chunk.mul for chunk in self.chunks)

    def __add__(self, other: "Irreps") -> "Irreps":
        return Irreps(self.chunks + other.chunks)

    def __mul__(self, factor: int) -> "Irreps":
        """`factor` times as many channels of each irrep."""
        return Irreps(tuple(Chunk(mul * factor, irrep) for mul, irrep in self.chunks))

    @cached_property
    def dim(self) -> int:
        """Number of components, Σ mul · (2l + 1)."""
        return sum(mul * irrep.dim for mul, irrep in self.chunks)

    @cached_property
    def num_channels(self) -> int:
        """Number of irrep copies, Σ mul."""
        return sum(mul for mul, _ in self.chunks)

    @cached_property
    def l_max(self) -> int:
        return max((irrep.l for _, irrep in self.chunks), default=0)

    def count(self, irrep: Irrep) -> int:
        """Total multiplicity of an irrep."""
        return sum(mul for mul, other in self.chunks if other == irrep)

    def merged(self) -> "Irreps":
        """Sorted by degree (even before odd), equal irreps in one chunk, empty ones dropped."""
        kinds = sorted({irrep for _, irrep in self.chunks}, key=lambda irrep: (irrep.l, -irrep.p))
        chunks = (Chunk(self.count(irrep), irrep) for irrep in kinds)
        return Irreps(tuple(chunk for chunk in chunks if chunk.mul))

    def is_merged(self) -> bool:
        """Whether each irrep occurs once."""
        kinds = [irrep for _, irrep in self.chunks]
        return len(kinds) == len(set(kinds))


SCALAR = Irrep(0, 1)
