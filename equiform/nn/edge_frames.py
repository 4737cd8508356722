"""Edge inputs of layers on irreps."""

import equinox as eqx
from jaxtyping import Array, Float

from equiform.algebra.so3.rotations import Directions


class EdgeFrames(eqx.Module):
    """Direction and invariants of each edge; every array has one row per edge, so that it can be chunked.

    Attributes:
        directions: Harmonics, and rotations into the frame in which the edge is the polar axis.
        basis: Radial basis of the distance, and any other inputs of radial networks. Invariant.
    """

    directions: Directions
    basis: Float[Array, "edges basis"]
