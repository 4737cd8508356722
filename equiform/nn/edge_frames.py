"""What layers on irreps see of an edge."""

import equinox as eqx
from jaxtyping import Array, Float

from equiform.algebra.so3.rotations import Directions


class EdgeFrames(eqx.Module):
    """Direction and invariant numbers of each edge; every array has a row per edge, so that it can be chunked.

    Attributes:
        directions: Harmonics, and rotations into the frame in which the edge is the polar axis.
        basis: Radial basis of the distance, and what else radial networks see. Invariant.
    """

    directions: Directions
    basis: Float[Array, "edges basis"]
