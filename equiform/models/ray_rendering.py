"""Rendering head on rays: the colour of a target ray from images of other views, in any frame of the world.

At each sample p of the target ray every source view contributes its colour and features where p projects to. What is known of
their directions are invariants of the rotations about the target ray: of the angle θ of a source ray about it, only products
of e^{ikθ} with the mean over the views. Views are blended, samples attend to each other, and densities are integrated.

    e_v[k] = (sin kθ_v, cos kθ_v),   ē = mean_v e_v,   plane_v[k] = (ē · e_v, ē × e_v),   k = 1 … 12
    f_v += MLP([τ · σ_v, plane_v]);    w from τ · σ_v, then from what the views have in common;   G = MLP(mean w, var, mean)
    t[k] = mean_v w_v X_v[k] e_v[k], mixed with real weights per k: features of type k of the target ray
    attention over samples with q, k of (G, t) and v of G → density σ;    colour: softmax over views of the source colours
    α = 1 − e^{−σ},   T = Π (1 − α),   C = Σ T α c                                  (no interval length, as in the reference)

Symmetry: SE(3) of cameras and samples together; permutations of the views.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871) and their code `xuyinxuyin/LightField_NVS`, itself after IBRNet
(Wang et al., CVPR 2021).
Differs: two defects of that code are fixed. (1) Directions are divided by norm + 1e-6 there, which is no unit vector: results
depend on the zero of θ at 4e-7. Here by the norm (`softening` brings it back, for parity). (2) Its cross products name no axis
and take the first one of length three, so with exactly three views frames are wrong and invariance is lost; here the axis is
the last. Kept: samples seen by at most one view get uniform attention, which is what their mask of queries does.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.algebra.cameras import Cameras, project
from equiform.nn import init
from equiform.nn.dense import MLP, Dense
from equiform.nn.images import bilinear
from equiform.nn.rays import SOFTENING


class RayRenderingConfig(BaseModel):
    """Everything that fixes a rendering head's function and parameters; defaults as published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["ray-rendering"] = "ray-rendering"
    features: int = Field(default=32, ge=1, description="Channels of the feature maps of the source images.")
    num_samples: int = Field(default=64, ge=2, description="Samples along each target ray.")
    frequencies: int = Field(default=12, ge=1, description="Types k = 1 … of the features along the ray.")
    tensor_channels: int = Field(default=16, ge=1)
    channels: int = Field(default=16, ge=4, multiple_of=4, description="Channels of a sample; four heads.")
    view_channels: int = Field(default=32, ge=1)
    softening: float = Field(default=0.0, ge=0, description="Added to the norms of directions; 1e-6 is the published code.")


class SampledViews(eqx.Module):
    """What the source views know of the samples.

    Attributes:
        features: Colour and features of each view at the sample.
        cosine: τ · σ_v.
        angle: θ_v, of the source ray about the target ray, radians.
        mask: Whether the sample is in the image.
    """

    features: Float[Array, "rays samples views _"]
    cosine: Float[Array, "rays samples views"]
    angle: Float[Array, "rays samples views"]
    mask: Bool[Array, "rays samples views"]


class Rendered(eqx.Module):
    """The result for each target ray.

    Attributes:
        rgb: Colour.
        depth: Σ T α z, in the unit of the depths.
        weights: T α of each sample.
        colors: Colour of each sample.
        density: σ of each sample.
    """

    rgb: Float[Array, "rays 3"]
    depth: Float[Array, " rays"]
    weights: Float[Array, "rays samples"]
    colors: Float[Array, "rays samples 3"]
    density: Float[Array, "rays samples"]


class RayRendering(eqx.Module):
    """The head; call it with target rays, source cameras, their images and feature maps. Invariant under SE(3)."""

    sharpness: Float[Array, ""]
    directions: MLP
    base: MLP
    visibility: MLP
    second_visibility: MLP
    geometry: MLP
    to_tensors: MLP
    tensors: tuple["TensorLayer", "TensorLayer"]
    attention: "SampleAttention"
    density: MLP
    colour: tuple[Dense, Dense, Dense]
    config: RayRenderingConfig = eqx.field(static=True)

    def __init__(self, config: RayRenderingConfig, *, key: PRNGKeyArray):
        keys = iter(jax.random.split(key, 14))
        given, views, freq = config.features + 3, config.view_channels, config.frequencies
        angles = 2 * freq + 1
        self.config = config
        self.sharpness = jnp.asarray(0.2)
        self.directions = MLP(angles, 32, given, key=next(keys))
        self.base = MLP(3 * given, 64, views, key=next(keys))
        self.visibility = MLP(views, views, views + 1, key=next(keys))
        self.second_visibility = MLP(views, views, 1, key=next(keys))
        self.geometry = MLP(2 * views + 1, 64, config.channels, key=next(keys))
        self.to_tensors = MLP(views, views, 2 * freq, key=next(keys))
        first = TensorLayer(freq, 2, config.tensor_channels, key=next(keys))
        self.tensors = (first, TensorLayer(freq, config.tensor_channels, 4, key=next(keys)))
        self.attention = SampleAttention(config.channels, freq, key=next(keys))
        self.density = MLP(config.channels, 16, 1, key=next(keys))
        sizes = zip((views + 1 + angles, 16, 8), (16, 8, 1))
        first, second, third = (Dense(size_in, size_out, key=next(keys)) for size_in, size_out in sizes)
        self.colour = (first, second, third)

    def __call__(
        self,
        samples: Float[Array, "rays samples 3"],
        depths: Float[Array, "rays samples"],
        centre: Float[Array, "3"],
        axis: Float[Array, "3"],
        cameras: Cameras,
        images: Float[Array, "views height width 3"],
        feature_maps: Float[Array, "views _ _ features"],
    ) -> Rendered:
        """Colour and depth of the target rays.

        Args:
            samples: Points of each target ray, from near to far.
            depths: Their distances from the target camera.
            centre: C of the target camera.
            axis: x axis of the target camera, the zero of θ; the result does not depend on it.
            cameras: The source cameras; pixel centres at whole numbers.
            images: Their images, 0 … 1.
            feature_maps: Features of the images, of any size.
        """
        views = sampled_views(samples, centre, axis, cameras, images, feature_maps, self.config.softening)
        colors, density = self.radiance(views)
        alpha = 1 - jnp.exp(-density)
        through = jnp.cumprod(1 - alpha + 1e-10, axis=1)
        weights = alpha * jnp.concatenate([jnp.ones_like(through[:, :1]), through[:, :-1]], axis=1)
        rgb = (weights[..., None] * colors).sum(1)
        return Rendered(rgb, (weights * depths).sum(1), weights, colors, density)

    def radiance(self, views: SampledViews) -> tuple[Float[Array, "rays samples 3"], Float[Array, "rays samples"]]:
        """Colour and density of each sample."""
        mask = views.mask[..., None].astype(views.cosine.dtype)
        k = jnp.arange(1, self.config.frequencies + 1, dtype=views.angle.dtype)
        turns = k.reshape(1, 1, 1, -1) * views.angle[..., None]
        e = jnp.stack([jnp.sin(turns), jnp.cos(turns)], axis=-1)  # rays samples views frequencies 2
        mean_e = e.mean(axis=2, keepdims=True)
        plane = jnp.stack([(mean_e * e).sum(-1), mean_e[..., 0] * e[..., 1] - mean_e[..., 1] * e[..., 0]], axis=-1)
        angles = jnp.concatenate([views.cosine[..., None], plane.reshape(*plane.shape[:3], -1)], axis=-1)

        features = views.features + _elu(self.directions, angles)
        near = jnp.exp(jnp.abs(self.sharpness) * (views.cosine[..., None] - 1))
        w = _shares((near - near.min(axis=2, keepdims=True)) * mask)
        mean, variance = _moments(w, features)
        common = jnp.broadcast_to(jnp.concatenate([mean, variance], -1)[:, :, None], (*features.shape[:3], 2 * mean.shape[-1]))
        x = _elu(self.base, jnp.concatenate([common, features], axis=-1))
        y = _elu(self.visibility, x * w)
        x = x + y[..., :-1]
        visible = jax.nn.sigmoid(y[..., -1:]) * mask
        visible = jax.nn.sigmoid(self.second_visibility(x * visible, jax.nn.elu)) * mask
        w = _shares(visible)
        mean, variance = _moments(w, x)
        geometry = _elu(self.geometry, jnp.concatenate([w.mean(axis=2), variance, mean], axis=-1))
        geometry = geometry + jnp.asarray(sinusoids(*geometry.shape[1:]), geometry.dtype)[None]

        amplitude = _elu(self.to_tensors, x).reshape(*x.shape[:3], -1, 2)
        tensors = jnp.einsum("rsv,rsvkc,rsvkx->rskcx", w[..., 0], amplitude, e) / x.shape[2]
        for layer in self.tensors:
            tensors = layer(tensors)
        seen = mask.sum(axis=(2, 3))
        along = self.attention(geometry, tensors, seen > 1)
        density = jnp.where(seen >= 1, jax.nn.relu(self.density(along, jax.nn.elu))[..., 0], 0)

        first, second, third = self.colour
        scores = jnp.concatenate([x, visible, angles], axis=-1)
        scores = third(jax.nn.elu(second(jax.nn.elu(first(scores)))))
        blend = jax.nn.softmax(jnp.where(views.mask[..., None], scores, -1e9), axis=2)
        return (blend * views.features[..., :3]).sum(axis=2), density


class TensorLayer(eqx.Module):
    """t ← N(t W_k) per frequency, N(t) = t / (|t| + ε) · ELU(|t| − β). Equivariant under rotations about the ray."""

    weight: Float[Array, "frequencies _ _"]
    threshold: Float[Array, "frequencies _"]

    def __init__(self, frequencies: int, channels_in: int, channels_out: int, *, key: PRNGKeyArray):
        self.weight = init.normal((frequencies, channels_in, channels_out), 1 / np.sqrt(channels_in).item(), key=key)
        self.threshold = jnp.asarray(np.ones((frequencies, channels_out)), float)

    def __call__(self, tensors: Float[Array, "rays samples frequencies _ 2"]) -> Float[Array, "rays samples frequencies _ 2"]:
        mixed = jnp.einsum("rskcx,kcd->rskdx", tensors, self.weight)
        square = (mixed**2).sum(-1)
        length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        return mixed * (jax.nn.elu(length - self.threshold[None, None]) / (length + SOFTENING))[..., None]


class SampleAttention(eqx.Module):
    """Four heads over the samples of a ray: logits from invariants and tensors, values from invariants. Invariant."""

    query: Dense
    key: Dense
    value: Dense
    query_tensors: Float[Array, "frequencies 4 4"]
    key_tensors: Float[Array, "frequencies 4 4"]
    mix: Dense
    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]

    def __init__(self, channels: int, frequencies: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        self.query, self.key, self.value, self.mix = (Dense(channels, channels, bias=False, key=k) for k in keys[:4])
        self.query_tensors, self.key_tensors = (init.normal((frequencies, 4, 4), 0.5, key=k) for k in keys[4:])
        self.scale, self.shift = init.ones(channels), init.zeros(channels)

    def __call__(
        self,
        geometry: Float[Array, "rays samples channels"],
        tensors: Float[Array, "rays samples frequencies 4 2"],
        seen: Bool[Array, "rays samples"],
    ) -> Float[Array, "rays samples channels"]:
        q, k, v = (layer(geometry).reshape(*geometry.shape[:2], 4, -1) for layer in (self.query, self.key, self.value))
        asked, known = (jnp.einsum("rskcx,kch->rskhx", tensors, w) for w in (self.query_tensors, self.key_tensors))
        logits = jnp.einsum("rahd,rbhd->rhab", q, k) + jnp.einsum("rakhx,rbkhx->rhab", asked, known)
        # A masked query attends to all samples alike; keys are not masked (as published).
        weights = jax.nn.softmax(jnp.where(seen[:, None, :, None], logits / 2, 0), axis=-1)
        out = geometry + self.mix(jnp.einsum("rhab,rbhd->rahd", weights, v).reshape(geometry.shape))
        centred = out - out.mean(-1, keepdims=True)
        row = (1, 1, -1)
        normed = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return normed * self.scale.reshape(row) + self.shift.reshape(row)


def sampled_views(
    samples: Float[Array, "rays samples 3"],
    centre: Float[Array, "3"],
    axis: Float[Array, "3"],
    cameras: Cameras,
    images: Float[Array, "views height width 3"],
    feature_maps: Float[Array, "views _ _ _"],
    softening: float = 0.0,
) -> SampledViews:
    """Colour, features and angles of every source view at every sample; see `RayRendering.__call__`."""
    target = _direction(centre[None, None] - samples, softening)[:, :, None]
    source = _direction(jnp.asarray(cameras.centre)[None, None] - samples[:, :, None], softening)
    second = jnp.cross(target, jnp.broadcast_to(axis, target.shape), axis=-1)
    first = jnp.cross(target, second, axis=-1)
    angle = jnp.arctan2((second * source).sum(-1), (first * source).sum(-1))
    (place, depth), size = project(cameras, samples), jnp.asarray([cameras.width - 1, cameras.height - 1], samples.dtype)
    relative = place / size.reshape((1, 1, 1, 2))
    mask = (depth > 0) & ((relative >= 0) & (relative <= 1)).all(axis=-1)
    features = jnp.concatenate([bilinear(images, relative), bilinear(feature_maps, relative)], axis=-1)
    return SampledViews(features, (target * source).sum(-1), angle, mask)


def sinusoids(samples: int, channels: int) -> Float[np.ndarray, "samples channels"]:
    """sin and cos of index / 10000^{2⌊c/2⌋/channels} in turn, rounded to float32 as in the published code.

    Source: Vaswani et al., NeurIPS 2017, section 3.5.
    """
    column = np.arange(channels)
    angle = np.arange(samples)[:, None] / 10000 ** (2 * (column // 2) / channels)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32).astype(np.float64)


def _direction(vectors: Array, softening: float) -> Array:
    square = (vectors**2).sum(-1, keepdims=True)
    return vectors / (jnp.sqrt(jnp.where(square > 0, square, 1)) + softening)


def _elu(layers: MLP, x: Array) -> Array:
    """With ELU after the last layer too."""
    return jax.nn.elu(layers(x, jax.nn.elu))


def _shares(weights: Array) -> Array:
    return weights / (weights.sum(axis=2, keepdims=True) + 1e-8)


def _moments(w: Array, x: Array) -> tuple[Array, Array]:
    """Weighted mean and variance over the views."""
    mean = (w * x).sum(axis=2, keepdims=True)
    return mean[:, :, 0], (w * (x - mean) ** 2).sum(axis=2)
