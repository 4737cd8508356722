"""Baselines of the ray transformer: they see its pixels, in coordinates of the world or of the camera.

    ViewMLP           per view [patch, geometry] → 64, mean and minimum over the views → logit
    WorldTransformer  tokens of rays [patch, d, m, C], of the point [p] and of its views [patch, p, d, C, depth]; self-attention
                      among the rays, then the point looks at the rays and its views

ViewMLP on the point in the camera's frame is invariant; on p, d and C of the world it is not. WorldTransformer never is.
"""

from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.models.ray_inputs import SceneInputs
from equiform.nn.dense import MLP, Dense
from equiform.nn.radial import LayerNorm


class ViewMLPConfig(BaseModel):
    """Everything that fixes a `ViewMLP`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["view-mlp"] = "view-mlp"
    view_features: int = Field(ge=1, description="Numbers that a view shows at a point.")
    geometry: Literal["camera", "world"] = Field(default="camera", description="Whose coordinates it sees.")
    distance: float = Field(default=3.0, gt=0, description="Typical distance of the cameras.")


class WorldTransformerConfig(BaseModel):
    """Everything that fixes a `WorldTransformer`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["world-transformer"] = "world-transformer"
    features: int = Field(ge=1, description="Numbers on each ray.")
    view_features: int = Field(ge=1, description="Numbers that a view shows at a point.")
    width: int = Field(default=64, ge=4, multiple_of=4, description="Channels; there are 4 heads.")
    num_layers: int = Field(default=2, ge=1, description="Of the encoder, and of the decoder.")
    distance: float = Field(default=3.0, gt=0, description="Typical distance of the cameras.")


class ViewMLP(eqx.Module):
    """See above; a point that no view shows gets the logit of zeros."""

    view: MLP
    readout: MLP
    config: ViewMLPConfig = eqx.field(static=True)

    def __init__(self, config: ViewMLPConfig, *, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.config = config
        self.view = MLP(config.view_features + (3 if config.geometry == "camera" else 9), 128, 64, key=keys[0])
        self.readout = MLP(128, 128, 1, key=keys[1])

    def __call__(self, scene: SceneInputs) -> Float[Array, " points"]:
        scene = jax.tree.map(jnp.asarray, scene)
        if self.config.geometry == "camera":
            extra = [scene.view_depth[..., None] - self.config.distance, scene.view_place]
        else:
            shape = scene.view_direction.shape
            extra = [jnp.broadcast_to(scene.points[:, None], shape), scene.view_direction]
            extra.append(jnp.broadcast_to(scene.view_centre[None], shape) / self.config.distance)
        h = jax.nn.relu(self.view(jnp.concatenate([scene.view_patch, *extra], axis=-1), jax.nn.relu))
        seen = scene.view_mask[..., None]
        mean = jnp.where(seen, h, 0).sum(1) / jnp.maximum(seen.sum(1), 1).astype(h.dtype)
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
    config: WorldTransformerConfig = eqx.field(static=True)

    def __init__(self, config: WorldTransformerConfig, *, key: PRNGKeyArray):
        width, layers = config.width, config.num_layers
        keys = iter(jax.random.split(key, 4 + 2 * layers))
        self.config = config
        self.embed_rays = Dense(config.features + 9, width, key=next(keys))
        self.embed_points = Dense(3, width, key=next(keys))
        self.embed_views = MLP(config.view_features + 10, 2 * width, width, key=next(keys))
        self.encoder = [Block(width, key=next(keys)) for _ in range(layers)]
        self.decoder = [Block(width, key=next(keys)) for _ in range(layers)]
        self.readout = MLP(width, width, 1, key=next(keys))

    def __call__(self, scene: SceneInputs) -> Float[Array, " points"]:
        scene = jax.tree.map(jnp.asarray, scene)
        moment = jnp.cross(scene.centre, scene.direction)
        x = self.embed_rays(
            jnp.concatenate([scene.patch, scene.direction, moment, scene.centre / self.config.distance], axis=-1)
        )
        for block in self.encoder:
            x = block(x, x[None], jnp.ones((1, x.shape[0]), bool))
        shape = scene.view_direction.shape
        centre = jnp.broadcast_to(scene.view_centre[None], shape) / self.config.distance
        place = [
            jnp.broadcast_to(scene.points[:, None], shape),
            scene.view_direction,
            centre,
            scene.view_depth[..., None] - self.config.distance,
        ]
        views = self.embed_views(jnp.concatenate([scene.view_patch, *place], axis=-1))
        p = self.embed_points(jnp.asarray(scene.points))
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
        rows = self.norms[1](keys.reshape(-1, keys.shape[-1])).reshape(keys.shape)
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
