"""Operations on images: 3 × 3 convolution, bilinear sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from equiform.nn import init


class Convolution(eqx.Module):
    """A 3 × 3 convolution with zeros outside of the image."""

    weight: Float[Array, "3 3 _ _"]
    bias: Float[Array, " channels"]

    def __init__(self, channels_in: int, channels_out: int, *, gain: float = 1.0, key: PRNGKeyArray):
        """Make the layer; weights are U(±gain / √(9 channels_in)), biases 0."""
        bound = gain * (9 * channels_in) ** -0.5
        self.weight = init.uniform((3, 3, channels_in, channels_out), -bound, bound, key=key)
        self.bias = init.zeros(channels_out)

    def __call__(self, images: Float[Array, "views height width _"]) -> Float[Array, "views height width _"]:
        order = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(images, self.weight, (1, 1), "SAME", dimension_numbers=order)
        return out + self.bias.reshape(1, 1, 1, -1)


def bilinear(
    images: Float[Array, "views rows columns channels"], place: Float[Array, "*points views 2"]
) -> Float[Array, "*points views channels"]:
    """Images at (x, y) in 0 … 1, from the centre of the first pixel to that of the last; zero outside."""
    rows, columns = images.shape[1:3]
    x, y = place[..., 0] * (columns - 1), place[..., 1] * (rows - 1)
    # Far outside (behind a camera) the place is huge, and no integer.
    x, y = jnp.clip(x, -2, columns + 1), jnp.clip(y, -2, rows + 1)
    left, top = jnp.floor(x), jnp.floor(y)
    view = jnp.arange(images.shape[0], dtype=jnp.int32).reshape((1,) * (x.ndim - 1) + (-1,))
    total = jnp.zeros((*x.shape, images.shape[-1]), images.dtype)
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row))
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            r, c = (jnp.clip(value, 0, size - 1).astype(jnp.int32) for value, size in ((row, rows), (column, columns)))
            total = total + jnp.where(inside, weight, 0)[..., None] * images[view, r, c]
    return total
