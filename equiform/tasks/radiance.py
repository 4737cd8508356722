"""Radiance: colours of rays of a camera that was not there, from calibrated images of others.

    C = Σ T α c + (1 − Σ T α) · background        loss: mean squared error of the colours

It reads target rays with their source views (`TargetRays`), not structures.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.fields import Field
from equiform.graph import AnyArray
from equiform.models.ray_radiance import RayRadiance, TargetRays


class LabelledRays(NamedTuple):
    """Target rays and their true colours.

    Attributes:
        target: What the model is given.
        rgb: Colours, 0 … 1.
    """

    target: TargetRays
    rgb: Float[AnyArray, "rays 3"]


class Radiance(eqx.Module):
    """A model and the background that rays see where they meet nothing. Invariant under SE(3).

    Attributes:
        model: The model.
        background: Grey value of the background, 0 … 1.
        depth_range: Nearest and farthest sample, in units of the mean distance of the cameras from where they look.
    """

    model: RayRadiance
    background: float = eqx.field(static=True, default=1.0)
    depth_range: tuple[float, float] = eqx.field(static=True, default=(0.6, 1.4))

    @property
    def target(self) -> Field:
        """What is predicted."""
        return Field("rgb", "tokens", "invariant")

    def __call__(self, target: TargetRays) -> Float[Array, "rays 3"]:
        """Colours of the target rays."""
        found = self.model(target)
        return found.rgb + self.background * (1 - found.weights.sum(1, keepdims=True))

    def loss(self, batch: LabelledRays) -> Float[Array, ""]:
        """The mean squared error of the colours."""
        return ((self(batch.target) - jnp.asarray(batch.rgb)) ** 2).mean()

    def settings(self) -> dict[str, Any]:
        """Everything but the model, as plain values."""
        return {"background": self.background, "depth_range": list(self.depth_range)}
