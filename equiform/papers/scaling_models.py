"""Models of the scaling study: GATr and a transformer on the same tokens, and what a training step of each costs.

The transformer is given all coordinates as numbers. GATr is given each token as five multivectors,

    x_i = [point(p_i) + translation(v_i), plane through p_i with normal n_i, the same with normal v_i, floor, point(c_i)],

and its output is read as the normal of a plane, which no translation changes. It is equivariant under SE(3), floor included,
since the floor is a token.

Source: ours; the sizes are pairs of width and depth as in Brehmer et al., TMLR 2025 (arXiv:2410.23179), who do not list theirs.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.algebra.clifford import projective
from equiform.data.sets.thrown_bodies import NUM_SCALARS, NUM_VECTORS
from equiform.models.gatr import GATr, GATrConfig
from equiform.models.gatr_presets import nominal_flops
from equiform.models.token_baselines import TokenTransformer, TokenTransformerConfig
from equiform.persist.parameters import num_parameters

Kind = Literal["gatr", "transformer", "transformer-augmented"]
Size = tuple[int, int]
"""Width and number of blocks; the width is that of the transformer, or the scalar channels of GATr."""
SCALARS_PER_MULTIVECTOR = 2
_HEAD = 16


class BodyGATr(eqx.Module):
    """GATr on tokens of bodies."""

    network: GATr

    def __init__(self, size: Size, *, key: PRNGKeyArray):
        width, blocks = size
        channels = max(width // SCALARS_PER_MULTIVECTOR, 1)
        sizes = {"channels": channels, "scalars": width, "num_blocks": blocks, "num_heads": min(4, channels)}
        config = {"in_channels": 5, "in_scalars": NUM_SCALARS, "out_scalars": 1}
        self.network = GATr(GATrConfig.model_validate(sizes | config), key=key)

    def __call__(
        self, vectors: Float[Array, "frames tokens 5 3"], scalars: Float[Array, "frames tokens 6"]
    ) -> Float[Array, "frames tokens 3"]:
        """A vector for each token."""
        place, normal, centre, velocity, up = (vectors[:, :, i] for i in range(NUM_VECTORS))
        parts = (
            projective.point(place) + projective.translation(velocity),
            projective.plane_through(normal, place),
            projective.plane_through(velocity, place),
            projective.plane_through(up, jnp.broadcast_to(place[:, -1:], place.shape)),
            projective.point(centre),
        )
        x, _ = self.network(jnp.stack(parts, axis=-2), scalars)
        return projective.extract_plane(x[..., 0, :])[0]

    @property
    def flops_per_token(self) -> int:
        """Nominal floating-point operations of a training step for each token."""
        return nominal_flops(self.network)


class BodyTransformer(eqx.Module):
    """A transformer on the same tokens, as plain numbers; no symmetry but permutations."""

    network: TokenTransformer

    def __init__(self, size: Size, *, key: PRNGKeyArray):
        width, blocks = size
        sizes = {"channels": width, "num_blocks": blocks, "num_heads": max(width // _HEAD, 1)}
        config = {"in_channels": 3 * NUM_VECTORS + NUM_SCALARS, "out_channels": 3}
        self.network = TokenTransformer(TokenTransformerConfig.model_validate(sizes | config), key=key)

    def __call__(
        self, vectors: Float[Array, "frames tokens 5 3"], scalars: Float[Array, "frames tokens 6"]
    ) -> Float[Array, "frames tokens 3"]:
        """A vector for each token."""
        flat = vectors.reshape(*vectors.shape[:2], 3 * NUM_VECTORS)
        return self.network(jnp.concatenate([flat, scalars], axis=-1))

    @property
    def flops_per_token(self) -> int:
        """Nominal floating-point operations of a training step for each token: 6 for each parameter."""
        return 6 * num_parameters(self.network)


BodyModel = BodyGATr | BodyTransformer


def body_model(kind: Kind, size: Size, seed: int) -> BodyModel:
    """A fresh model.

    Args:
        kind: Which model; augmentation is a matter of the data.
        size: Width and number of blocks.
        seed: Seed of the weights.
    """
    key = jax.random.key(seed)
    return BodyGATr(size, key=key) if kind == "gatr" else BodyTransformer(size, key=key)
