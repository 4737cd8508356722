"""Features of images by a small U-Net: what every pixel shows together with what is around it, up to the whole image.

    x_0 = conv(image);  x_{i+1} = conv(mean of 2 × 2 of x_i)                    widths channels of the levels
    y_n = x_n;          y_i = conv([x_i, y_{i+1} of the pixel's quarter])       back to the size of the image

Each conv is SiLU(3 × 3 convolution) twice; a linear map ends it. Joint motions of cameras and scene do not touch images, so a
model that reads these features is as invariant as before.

Source: Ronneberger, Fischer and Brox, MICCAI 2015 (arXiv:1505.04597), for the form. Sizes are ours.
"""

from itertools import pairwise
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.models.ray_inputs import SceneInputs
from equiform.nn.dense import Dense
from equiform.nn.images import Convolution, bilinear


class ImageFeaturesConfig(BaseModel):
    """Everything that fixes the network's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: int = Field(default=32, ge=1, description="Features of a pixel.")
    widths: tuple[int, ...] = Field(default=(24, 32, 48), min_length=1, description="Channels of each level, finest first.")


class ImageFeatures(eqx.Module):
    """The network; images of any size."""

    down: list["Block"]
    up: list["Block"]
    out: Dense
    config: ImageFeaturesConfig = eqx.field(static=True)

    def __init__(self, config: ImageFeaturesConfig, *, key: PRNGKeyArray):
        widths = config.widths
        keys = iter(jax.random.split(key, 2 * len(widths)))
        self.config = config
        self.down = [Block(given, width, key=next(keys)) for given, width in zip((3, *widths), widths)]
        self.up = [Block(fine + coarse, fine, key=next(keys)) for fine, coarse in pairwise(widths)]
        self.out = Dense(widths[0], config.features, key=next(keys))

    def __call__(self, images: Float[Array, "views height width 3"]) -> Float[Array, "views height width features"]:
        """The features of every pixel.

        Args:
            images: Colours − 1, so that a white background is zero.
        """
        height, width = images.shape[1:3]
        unit = 2 ** (len(self.down) - 1)
        x = jnp.pad(images, ((0, 0), (0, -height % unit), (0, -width % unit), (0, 0)))
        levels: list[Array] = []
        for block in self.down:
            x = block(_halved(levels[-1]) if levels else x)
            levels.append(x)
        for block, fine in zip(self.up[::-1], levels[-2::-1]):
            x = block(jnp.concatenate([fine, _doubled(x)], axis=-1))
        return self.out(x[:, :height, :width])

    def added_to(self, scene: SceneInputs) -> SceneInputs:
        """The scene with features after the colours of its ray tokens and of its views, there interpolated."""
        maps = self(jnp.asarray(scene.images))
        of_rays = maps.reshape(-1, maps.shape[-1])[jnp.asarray(scene.pixel)]
        of_views = bilinear(maps, jnp.asarray(scene.view_pixel))
        return scene._replace(
            patch=jnp.concatenate([jnp.asarray(scene.patch), of_rays], axis=-1),
            view_patch=jnp.concatenate([jnp.asarray(scene.view_patch), of_views], axis=-1),
        )


class Block(eqx.Module):
    """Two convolutions, each followed by SiLU."""

    first: Convolution
    second: Convolution

    def __init__(self, channels_in: int, channels_out: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        # Such a network has no normalisation: weights keep the scale of its features (He et al., ICCV 2015).
        self.first = Convolution(channels_in, channels_out, gain=sqrt(6), key=keys[0])
        self.second = Convolution(channels_out, channels_out, gain=sqrt(6), key=keys[1])

    def __call__(self, x: Float[Array, "views height width _"]) -> Float[Array, "views height width _"]:
        return jax.nn.silu(self.second(jax.nn.silu(self.first(x))))


def _halved(x: Float[Array, "views height width c"]) -> Float[Array, "views half_height half_width c"]:
    views, height, width, channels = x.shape
    return x.reshape(views, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _doubled(x: Float[Array, "views height width c"]) -> Float[Array, "views twice_height twice_width c"]:
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
