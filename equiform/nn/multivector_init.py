"""Initial weights of equivariant linear layers: the initial scale of each map of an algebra.

A weight W[o, i, b] is drawn from U(±μ f_b / √C_in). With unit-variance inputs, component j of the output then has variance
⅓ μ² Σ_b f_b² Σ_k B_b[j, k]². "balanced" makes this ⅓ for all components (in the orthogonal basis, for μ = 1). In the projective
algebra only maps without e0 could do that, and the published factors stand instead: 1/2 for e0 and e0i, 1/6 for e123, 1/3 else.
"identity" gives all components one random number for each pair of channels, so that a layer begins as a mixture of channels.

| weights | default | small | near_unit |
|---|---|---|---|
| μ, all maps and scalar → component 0 | 1 | 0.1 | 0.5 |
| β, mean of the bias of component 0 | 0 | 0 | 1 |
| σ, everything that ends in scalars | 1 | 0.1 | 1 |

Source: authors' code, release 1.4.3, for the table and for f of the projective algebra; de Haan, Cohen & Brehmer
(arXiv:2311.04744), appendix C, for the identity in the conformal algebra; f of the others is computed.
Differs: the released code means to shrink weights of grade 0 by √½ where there are scalars. That has no effect there, and is
left out here.
"""

from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.clifford.geometry import Geometry
from equiform.nn import init

Scheme = Literal["balanced", "published", "identity"]
Role = Literal["default", "small", "near_unit"]


class Gains(NamedTuple):
    """μ, β and σ of the table above."""

    maps: float
    mean_bias: float
    scalars: float


GAINS: dict[Role, Gains] = {
    "default": Gains(1.0, 0.0, 1.0),
    "small": Gains(0.1, 0.0, 0.1),
    "near_unit": Gains(0.5, 1.0, 1.0),
}

_SQUARES = {
    4: (1, 3, 3, 1),
    9: (1, 4, 6, 2, 0.5, 0.5, 1.5, 1.5, 0.5),
    20: (0.5, 2.5, 5, 5, 2.5, 0.5, 0, 2, 3, 2, 0.5, 0.5, 2, 3, 2, 0, 0.5, 0, 0, 0.5),
}
"""f_b², by the number of maps."""


def map_factors(geometry: Geometry) -> Float[np.ndarray, " maps"]:
    """f_b of the balanced scheme."""
    return np.sqrt(_SQUARES[len(geometry.maps)])


def identity_factors(geometry: Geometry) -> Float[np.ndarray, " maps"]:
    """Coefficients of the identity: √n_k on the projection on grade k, of dimension n_k, and 0 on the other maps."""
    sizes = np.bincount(geometry.algebra.grade)
    return np.concatenate([np.sqrt(sizes), np.zeros(len(geometry.maps) - len(sizes))])


def map_weights(
    geometry: Geometry, out_channels: int, in_channels: int, scheme: Scheme, role: Role, *, key: PRNGKeyArray
) -> Float[Array, "out in maps"]:
    """Weights of the maps.

    Args:
        geometry: The model of space.
        out_channels: Channels of the output.
        in_channels: Channels of the input.
        scheme: "published" is "identity" in the conformal algebra and "balanced" in the others.
        role: What the layer is for.
        key: Random key.
    """
    if scheme == "published":
        scheme = "identity" if geometry.algebra.num_generators == 5 else "balanced"
    bound = GAINS[role].maps / sqrt(in_channels)
    if scheme == "identity":
        return init.uniform((out_channels, in_channels, 1), -bound, bound, key=key) * identity_factors(geometry)[None, None]
    weights = init.uniform((out_channels, in_channels, len(geometry.maps)), -bound, bound, key=key)
    return weights * map_factors(geometry)[None, None]
