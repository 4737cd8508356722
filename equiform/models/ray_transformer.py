"""Ray transformer: from rays of calibrated images to a value at any point of space, whatever frame the cameras are given in.

Each token is a ray with features, such as a pixel. Rays exchange features by convolution and attention on the space of rays,
with fields of types k = 0, 1, 2 that rotate about them; query points then attend to all rays, and, if given, at the pixels they
project to. The output at a point (a logit of occupancy, a signed distance) is invariant when cameras and points move
together, because only relative positions of rays and points are used.

    h_k ← [W f]_k + mean_y K_k0(x, y) W_k f(y)                       lift, [W f] for k = 0 alone
    h ← Gate(h + RayAttention(h))                                    num_ray_layers times
    s ← s + PointAttention(p, h; s) (+ PointAttention(p, views; s))  num_point_layers times; s = scalars F and vectors V
    y = W tanh(W [F, |V|²])

Symmetry: SE(3) of rays and points together, permutations of the rays. A mirror image changes the result: d × u is a
pseudo-vector and c changes its sign.

Source: Xu, Lei and Daniilidis, NeurIPS 2023 (arXiv:2212.14871). Their reconstruction code is not public: widths, the readout
and everything that the paper leaves open are ours.
Differs: smooth kernels (a^k R) with ω = 0; rays through the points as tokens of their own; `posed` adds invariants of the
centres of projection, which leaves the pure space of rays. An ordinary network on image patches may make the features: joint
motions of cameras and scene do not touch the images.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equiform.algebra.pluecker import (
    PointPairs,
    RayPairs,
    Rays,
    RayType,
    Section,
    base_section,
    check_directions,
    pairs_through,
    point_pairs,
    ray_pairs,
    rays_through,
)
from equiform.nn.dense import MLP
from equiform.nn.rays import RayField, RayGate, RayLinear, scalar_field
from equiform.nn.rays_attention import PointAttention, PointState, RayAttention
from equiform.nn.rays_convolution import RayConvolution, pair_invariants, posed_invariants


class RayTransformerConfig(BaseModel):
    """Everything that fixes a ray transformer's function and parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["ray-transformer"] = "ray-transformer"
    features: int = Field(default=3, ge=1, description="Features of each ray, such as the colour of its pixel.")
    view_features: int = Field(default=0, ge=0, description="Features of the rays through each point; 0: there are none.")
    degrees: tuple[int, ...] = Field(default=(0, 1, 2), description="Types k of the fields on rays; 0 is among them.")
    channels: int = Field(default=32, ge=1, description="Channels of each type, and of the points.")
    num_heads: int = Field(default=4, ge=1)
    num_ray_layers: int = Field(default=2, ge=0)
    num_point_layers: int = Field(default=2, ge=1)
    radial_hidden: int = Field(default=8, ge=1, description="Hidden channels of each function of the invariants of a pair.")
    readout_hidden: int = Field(default=64, ge=1)
    neighbor_distance: float | None = Field(
        default=None,
        gt=0,
        description="Lines that pass nearer than this are neighbours, in units of `length`; None: all.",
    )
    posed: bool = Field(
        default=False, description="Use centres of projection: no longer the pure space of rays, and better informed."
    )
    length: float = Field(default=1.0, gt=0, description="Unit of length of the scene; all geometry is divided by it.")

    @model_validator(mode="after")
    def _consistent(self) -> "RayTransformerConfig":
        if 0 not in self.degrees or len(set(self.degrees)) != len(self.degrees):
            raise ValueError(f"degrees must have 0 among them and none twice; received {self.degrees}")
        if self.channels % self.num_heads:
            raise ValueError(f"channels ({self.channels}) must be divisible by num_heads ({self.num_heads})")
        return self

    @property
    def types(self) -> tuple[RayType, ...]:
        """Types of the fields on rays."""
        return tuple(RayType(k) for k in self.degrees)


class RayTokens(eqx.Module):
    """The rays of a scene.

    Attributes:
        rays: The rays, in the unit of the scene.
        features: Features of each ray.
        mask: False for padding.
        centres: Centre of projection of each ray; read by posed models.
    """

    rays: Rays
    features: Float[Array, "rays features"]
    mask: Bool[Array, " rays"]
    centres: Float[Array, "rays 3"]


def ray_tokens(
    centres: Float[Array, "rays 3"],
    directions: Float[Array, "rays 3"],
    features: Float[Array, "rays features"],
    mask: Bool[Array, " rays"],
) -> RayTokens:
    """Tokens of rays given by points and directions. Reads values: call it outside `jit`.

    Args:
        centres: A point of each ray; the centre of projection, for posed models.
        directions: Directions of any length; those of padding may be zero.
        features: Features of each ray.
        mask: False for padding.

    Raises:
        UserError: A ray has no direction.
    """
    padded = jnp.where(mask[:, None], directions, jnp.asarray([0, 0, 1], directions.dtype)[None])
    check_directions(padded)
    return RayTokens(rays_through(centres, padded), features, mask, centres)


class PointViews(eqx.Module):
    """For each query point the rays through it, one per view.

    Attributes:
        direction: Unit directions from the centres of projection to the point.
        depth: Distances from the centres; read by posed models.
        features: What the image shows where the point projects to.
        mask: False where the point is not in the image.
    """

    direction: Float[Array, "points views 3"]
    depth: Float[Array, "points views"]
    features: Float[Array, "points views view_features"]
    mask: Bool[Array, "points views"]


class RayTransformer(eqx.Module):
    """The model; one scene at a time, `jax.vmap` for several. Invariant under SE(3)."""

    lift: RayLinear
    lift_pairs: RayConvolution
    ray_layers: list[RayAttention]
    gates: list[RayGate]
    point_layers: list[PointAttention]
    view_lift: MLP | None
    view_layers: list[PointAttention]
    readout: MLP
    config: RayTransformerConfig = eqx.field(static=True)

    def __init__(self, config: RayTransformerConfig, *, key: PRNGKeyArray):
        keys = iter(jax.random.split(key, 4 + 2 * config.num_ray_layers + 2 * config.num_point_layers))
        types, channels, trivial = config.types, config.channels, (RayType(0),)
        hidden, inputs = config.radial_hidden, 5 if config.posed else 2
        self.config = config
        self.lift = RayLinear(trivial, config.features, channels, key=next(keys))
        self.lift_pairs = RayConvolution(
            trivial, types, config.features, channels, inputs=inputs, hidden=hidden, key=next(keys)
        )
        self.ray_layers = [
            RayAttention(types, channels, config.num_heads, inputs=inputs, hidden=hidden, key=next(keys))
            for _ in range(config.num_ray_layers)
        ]
        self.gates = [RayGate(types, channels, key=next(keys)) for _ in range(config.num_ray_layers)]

        def point_layers(types: tuple[RayType, ...]) -> list[PointAttention]:
            return [
                PointAttention(
                    types,
                    channels,
                    config.num_heads,
                    inputs=2 if config.posed else 1,
                    hidden=config.radial_hidden,
                    with_state=index > 0,
                    key=next(keys),
                )
                for index in range(config.num_point_layers)
            ]

        self.point_layers = point_layers(types)
        has_views = config.view_features > 0
        self.view_layers = point_layers(trivial) if has_views else []
        self.view_lift = MLP(config.view_features, 2 * channels, channels, key=next(keys)) if has_views else None
        self.readout = MLP(2 * channels, config.readout_hidden, 1, key=next(keys))

    def __call__(
        self,
        tokens: RayTokens,
        points: Float[Array, "points 3"],
        views: PointViews | None = None,
        *,
        section: Section | None = None,
    ) -> Float[Array, " points"]:
        """The output at each point.

        Args:
            tokens: The rays of the scene.
            points: The query points.
            views: The rays through the points, if the model was made for them.
            section: Frames and origins of the rays; the result does not depend on them. None: `base_section`.
        """
        if (views is None) != (self.view_lift is None):
            raise ValueError(
                f"the model has view_features={self.config.view_features}, so `views`, the rays through the points, must "
                f"{'not ' if self.view_lift is None else ''}be handed in"
            )
        rays, centres = self._scaled(tokens)
        section = base_section(rays) if section is None else self._scaled_section(section)
        field = self.on_rays(tokens, section)
        pairs = point_pairs(points / self.config.length, rays, section)
        depth = (tokens.rays.direction[None] * (points / self.config.length)[:, None]).sum(-1)
        depth = depth - (tokens.rays.direction * centres).sum(-1)[None]
        seen = jnp.broadcast_to(tokens.mask[None], depth.shape)
        invariants = self._of_points(pairs, depth)
        state = None
        for index, layer in enumerate(self.point_layers):
            gathered = layer(field, pairs, invariants, seen, state)
            if views is not None:
                gathered = gathered + self._from_views(index, views, state)
            state = gathered if state is None else state + gathered
        return self._read(state)

    def _from_views(self, index: int, views: PointViews, state: PointState | None) -> PointState:
        if self.view_lift is None:
            raise ValueError("the model was made without view_features")
        through = pairs_through(views.direction, views.depth / self.config.length)
        lifted = scalar_field(self.view_lift(views.features))
        return self.view_layers[index](lifted, through, self._of_points(through, through.along), views.mask, state)

    def on_rays(self, tokens: RayTokens, section: Section) -> RayField:
        """The field on the rays after the last ray layer. Equivariant under SE(3).

        Args:
            tokens: The rays of the scene.
            section: Their section, in units of `length`.
        """
        rays, centres = self._scaled(tokens)
        pairs = ray_pairs(rays, section, rays, section)
        invariants = posed_invariants(pairs, rays, centres, rays, centres) if self.config.posed else pair_invariants(pairs)
        neighbors = self._neighbors(pairs, tokens.mask)
        weight = 1 / jnp.maximum(neighbors.sum(axis=1, keepdims=True), 1).astype(invariants.dtype)
        given = scalar_field(tokens.features)
        spread = self.lift_pairs(given, pairs, invariants, jnp.where(neighbors, weight, 0))
        own = self.lift(given).values[0]
        field = spread.map(lambda value, kind: value + own if kind.trivial else value)
        for attention, gate in zip(self.ray_layers, self.gates):
            field = gate(field + attention(field, pairs, invariants, neighbors))
        return field

    def _read(self, state: PointState | None) -> Float[Array, " points"]:
        if state is None:
            raise ValueError("num_point_layers must be at least 1")
        squares = (state.vectors**2).sum(-1)
        return self.readout(jnp.concatenate([state.scalars, squares], axis=-1), jnp.tanh)[:, 0]

    def _scaled(self, tokens: RayTokens) -> tuple[Rays, Float[Array, "rays 3"]]:
        return Rays(tokens.rays.direction, tokens.rays.moment / self.config.length), tokens.centres / self.config.length

    def _scaled_section(self, section: Section) -> Section:
        return Section(section.frame, section.origin / self.config.length)

    def _neighbors(self, pairs: RayPairs, mask: Bool[Array, " rays"]) -> Bool[Array, "rays rays"]:
        near = mask[:, None] & mask[None] & ~jnp.eye(mask.shape[0], dtype=bool)
        limit = self.config.neighbor_distance
        return near if limit is None else near & (pairs.distance < limit)

    def _of_points(self, pairs: PointPairs, depth: Float[Array, "points rays"]) -> Float[Array, "points rays _"]:
        return jnp.stack([pairs.distance, depth] if self.config.posed else [pairs.distance], axis=-1)
