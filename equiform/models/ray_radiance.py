"""Radiance model: an ordinary CNN on the source images, and the rendering head on rays.

    features = conv(ELU(conv(image)))        3 × 3, the same for every image
    colour, depth, density = RayRendering(samples, cameras, images, features)

Symmetry: SE(3) of source cameras, target camera and samples together, since joint motions do not touch images; permutations of
the views.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871) for the head. Differs: two layers of convolution instead of a
ResUNet; the density's last bias starts at 0.3, because a ReLU that is zero at all samples of all rays has no gradient.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.cameras import Cameras
from equiform.graph import AnyArray
from equiform.models.ray_rendering import RayRendering, RayRenderingConfig, Rendered
from equiform.nn.images import Convolution

FIRST_DENSITY = 0.3


class RayRadianceConfig(BaseModel):
    """Everything that fixes a radiance model's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["ray-radiance"] = "ray-radiance"
    head: RayRenderingConfig = RayRenderingConfig()
    hidden: int = Field(default=16, ge=1, description="Channels between the two convolutions.")


class TargetRays(NamedTuple):
    """Rays to be rendered, and the views they are rendered from.

    Attributes:
        samples: Points of each ray, from near to far.
        depths: Their distances from the target camera.
        centre: C of the target camera.
        axis: Its x axis, the zero of the angle about its rays; results do not depend on it.
        images: Source images, 0 … 1.
        rotation: Of the source cameras.
        source_centre: Of the source cameras.
        intrinsics: Of the source cameras, pixel centres at whole numbers.
    """

    samples: Float[AnyArray, "rays samples 3"]
    depths: Float[AnyArray, "rays samples"]
    centre: Float[AnyArray, "3"]
    axis: Float[AnyArray, "3"]
    images: Float[AnyArray, "views height width 3"]
    rotation: Float[AnyArray, "views 3 3"]
    source_centre: Float[AnyArray, "views 3"]
    intrinsics: Float[AnyArray, "views 3 3"]


class RayRadiance(eqx.Module):
    """The model; one target camera at a time. Invariant under SE(3)."""

    convolutions: tuple[Convolution, Convolution]
    head: RayRendering
    config: RayRadianceConfig = eqx.field(static=True)

    def __init__(self, config: RayRadianceConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.config = config
        first = Convolution(3, config.hidden, key=keys[0])
        self.convolutions = (first, Convolution(config.hidden, config.head.features, key=keys[1]))
        head = RayRendering(config.head, key=keys[2])
        bias = jnp.full((1,), FIRST_DENSITY)
        self.head = eqx.tree_at(lambda h: h.density.second.bias, head, bias)

    def __call__(self, target: TargetRays) -> Rendered:
        """Colour and depth of the target rays."""
        first, second = self.convolutions
        target = jax.tree.map(jnp.asarray, target)
        images: Any = target.images
        features = second(jax.nn.elu(first(images - 0.5)))
        height, width = images.shape[1:3]
        cameras = Cameras(target.rotation, target.source_centre, target.intrinsics, height, width)
        samples, depths, centre, axis = (jnp.asarray(array) for array in target[:4])
        return self.head(samples, depths, centre, axis, cameras, images, features)
