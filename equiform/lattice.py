"""Periodic square lattices: sites, bonds, shells of equal distance, and sums over shells as circular convolutions.

Site i = x · Ly + y. The displacement from site i to site j is (x_j − x_i, y_j − y_i), taken back into the cell; its squared
length d² is the smallest over periodic images. All sites at the same d² from a site form a shell; a shell whose images
coincide at half the lattice (d² = 9 and 18 on 6 × 6) holds each site once.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from equiform.errors import UserError


@dataclass(frozen=True)
class SquareLattice:
    """A periodic Lx × Ly lattice.

    Attributes:
        size: Numbers of sites (Lx, Ly) along both directions.

    Raises:
        UserError: A direction has fewer than three sites, so that a site would be its own or twice another's neighbour.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.size) < 3:
            raise UserError(
                f"a lattice of {self} wraps onto itself: with fewer than 3 sites in a direction both neighbours of a site are "
                "the same there; use at least 3 × 3"
            )

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"

    @property
    def num_sites(self) -> int:
        """N = Lx · Ly."""
        return self.size[0] * self.size[1]

    @cached_property
    def displacement_index(self) -> Int[np.ndarray, "sites sites"]:
        """For sites i and j the index x · Ly + y of the displacement from i to j: what makes a kernel a circulant matrix."""
        x, y = np.divmod(np.arange(self.num_sites), self.size[1])
        return (x - x[:, None]) % self.size[0] * self.size[1] + (y - y[:, None]) % self.size[1]

    @cached_property
    def squared_distance(self) -> Int[np.ndarray, " sites"]:
        """d² of each displacement, by its index."""
        x, y = np.divmod(np.arange(self.num_sites), self.size[1])
        return np.minimum(x, self.size[0] - x) ** 2 + np.minimum(y, self.size[1] - y) ** 2

    @cached_property
    def shells(self) -> tuple[int, ...]:
        """d² of all shells, nearest first, without the site itself."""
        return tuple(int(d2) for d2 in np.unique(self.squared_distance) if d2)

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """Number of sites in each shell."""
        return tuple(int((self.squared_distance == d2).sum()) for d2 in self.shells)

    @cached_property
    def signs(self) -> Float[np.ndarray, " sites"]:
        """(−1)^(x+y); frustrated across the border where a direction has an odd number of sites."""
        x, y = np.divmod(np.arange(self.num_sites), self.size[1])
        return 1.0 - 2.0 * ((x + y) % 2)

    def in_shells(self, shells: tuple[int, ...]) -> Bool[np.ndarray, "shells sites"]:
        """Which displacements belong to which shell.

        Args:
            shells: d² of the shells.

        Raises:
            UserError: The lattice is too small to have one of them.
        """
        missing = [d2 for d2 in shells if d2 not in (0, *self.shells)]
        if missing:
            raise UserError(
                f"a {self} lattice has no sites at squared distance {', '.join(map(str, missing))}, which the model couples; "
                f"it has {', '.join(map(str, self.shells))}: use a larger lattice, or a model of fewer shells"
            )
        return self.squared_distance == np.array(shells)[:, None]

    def hopping(self, amplitude: float) -> Float[np.ndarray, "sites sites"]:
        """−amplitude between nearest neighbours, 0 elsewhere."""
        return -amplitude * self.in_shells((1,))[0][self.displacement_index].astype(float)


def parse_lattice(text: str) -> SquareLattice:
    """A lattice from text such as `6x6`.

    Raises:
        UserError: It is no size.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise UserError(f"{text!r} is no size of a lattice; write the numbers of sites in both directions, such as 6x6")
    return SquareLattice((int(parts[0]), int(parts[1])))
