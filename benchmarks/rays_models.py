"""Baselines of the study of rays: they see the pixels of the ray transformer, in coordinates of the world or of the camera.

    ViewMLP           per view [patch, geometry] → 64, mean and minimum over the views → logit
    WorldTransformer  tokens of rays [patch, d, m, C], of the point [p] and of its views [patch, p, d, C, depth]; self-attention
                      among the rays, then the point looks at the rays and its views

ViewMLP on the point in the camera's frame is invariant; on p, d and C of the world it is not. WorldTransformer never is.
"""

from math import sqrt
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from equiform.nn.dense import MLP, Dense
from equiform.nn.radial import LayerNorm


class SceneInputs(NamedTuple):
    """What every model is given of one scene; all geometry in the coordinates of the world.

    Attributes:
        direction: Of each ray token.
        centre: Its centre of projection.
        patch: Colours about its pixel.
        points: Query points.
        view_direction: From each camera to each point.
        view_depth: Distance from the camera.
        view_place: Where the point appears, as (x / z, y / z) in the camera's frame. Invariant.
        view_centre: Centre of each camera.
        view_patch: Colours about the pixel the point projects to.
        view_mask: Whether it is in the image.
    """

    direction: Float[Array, "rays 3"]
    centre: Float[Array, "rays 3"]
    patch: Float[Array, "rays _"]
    points: Float[Array, "points 3"]
    view_direction: Float[Array, "points views 3"]
    view_depth: Float[Array, "points views"]
    view_place: Float[Array, "points views 2"]
    view_centre: Float[Array, "views 3"]
    view_patch: Float[Array, "points views _"]
    view_mask: Bool[Array, "points views"]


class ViewMLP(eqx.Module):
    """See above; a point that no view shows gets the logit of zeros."""

    view: MLP
    readout: MLP
    geometry: Literal["camera", "world"] = eqx.field(static=True)

    def __init__(self, patch: int, geometry: Literal["camera", "world"], *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.geometry = geometry
        self.view = MLP(patch + (3 if geometry == "camera" else 9), 128, 64, key=keys[0])
        self.readout = MLP(128, 128, 1, key=keys[1])

    def __call__(self, scene: SceneInputs) -> Float[Array, " points"]:
        if self.geometry == "camera":
            extra = [scene.view_depth[..., None] - 3, scene.view_place]
        else:
            shape = scene.view_direction.shape
            extra = [jnp.broadcast_to(scene.points[:, None], shape), scene.view_direction]
            extra.append(jnp.broadcast_to(scene.view_centre[None], shape) / 3)
        h = jax.nn.relu(self.view(jnp.concatenate([scene.view_patch, *extra], axis=-1), jax.nn.relu))
        seen = scene.view_mask[..., None]
        mean = jnp.where(seen, h, 0).sum(1) / jnp.maximum(seen.sum(1), 1)
        least = jnp.where(seen, h, jnp.inf).min(1)
        pooled = jnp.concatenate([mean, jnp.where(jnp.isfinite(least), least, 0)], axis=-1)
        return self.readout(pooled, jax.nn.relu)[:, 0]


class WorldTransformer(eqx.Module):
    """See above: a pre-norm encoder over the rays and a decoder for the points."""

    embed_rays: Dense
    embed_points: Dense
    embed_views: MLP
    encoder: list["Block"]
    decoder: list["Block"]
    readout: MLP

    def __init__(self, ray_patch: int, view_patch: int, *, width: int = 64, layers: int = 2, key: PRNGKeyArray):
        keys = iter(jax.random.split(key, 4 + 2 * layers))
        self.embed_rays = Dense(ray_patch + 9, width, key=next(keys))
        self.embed_points = Dense(3, width, key=next(keys))
        self.embed_views = MLP(view_patch + 10, 2 * width, width, key=next(keys))
        self.encoder = [Block(width, key=next(keys)) for _ in range(layers)]
        self.decoder = [Block(width, key=next(keys)) for _ in range(layers)]
        self.readout = MLP(width, width, 1, key=next(keys))

    def __call__(self, scene: SceneInputs) -> Float[Array, " points"]:
        moment = jnp.cross(scene.centre, scene.direction)
        x = self.embed_rays(jnp.concatenate([scene.patch, scene.direction, moment, scene.centre / 3], axis=-1))
        for block in self.encoder:
            x = block(x, x[None], jnp.ones((1, x.shape[0]), bool))
        shape = scene.view_direction.shape
        centre = jnp.broadcast_to(scene.view_centre[None], shape) / 3
        place = [jnp.broadcast_to(scene.points[:, None], shape), scene.view_direction, centre, scene.view_depth[..., None] - 3]
        views = self.embed_views(jnp.concatenate([scene.view_patch, *place], axis=-1))
        p = self.embed_points(scene.points)
        keys = jnp.concatenate([jnp.broadcast_to(x[None], (p.shape[0], *x.shape)), views], axis=1)
        allowed = jnp.concatenate([jnp.ones((p.shape[0], x.shape[0]), bool), scene.view_mask], axis=1)
        for block in self.decoder:
            p = block(p, keys, allowed)
        return self.readout(p)[:, 0]


class Block(eqx.Module):
    """Attention of each token to the keys of its row (one row for all, or one each), then a dense layer."""

    query: Dense
    keys: Dense
    values: Dense
    mix: Dense
    feed_forward: MLP
    norms: tuple[LayerNorm, LayerNorm, LayerNorm]

    def __init__(self, width: int, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 5)
        self.query, self.keys, self.values, self.mix = (Dense(width, width, kind="xavier", key=k) for k in keys[:4])
        self.feed_forward = MLP(width, 2 * width, width, kind="xavier", key=keys[4])
        self.norms = (LayerNorm(width), LayerNorm(width), LayerNorm(width))

    def __call__(
        self, x: Float[Array, "tokens width"], keys: Float[Array, "rows keys width"], allowed: Bool[Array, "rows keys"]
    ) -> Float[Array, "tokens width"]:
        rows = self.norms[1](keys)
        q, k, v = self.query(self.norms[0](x)), self.keys(rows), self.values(rows)
        q, k, v = (t.reshape(*t.shape[:-1], 4, -1) for t in (q, k, v))
        if k.shape[0] == 1:
            logits = jnp.einsum("thc,khc->thk", q, k[0]) / sqrt(q.shape[-1])
        else:
            logits = jnp.einsum("thc,tkhc->thk", q, k) / sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(allowed[:, None], logits, -jnp.inf), axis=-1)
        out = jnp.einsum("thk,khc->thc", weights, v[0]) if k.shape[0] == 1 else jnp.einsum("thk,tkhc->thc", weights, v)
        x = x + self.mix(out.reshape(x.shape))
        return x + self.feed_forward(self.norms[2](x), jax.nn.gelu)
