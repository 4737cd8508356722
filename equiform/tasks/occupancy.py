"""Occupancy: whether points of a scene are inside a solid, or their signed distance, from rays of calibrated images.

    occupancy          logit at each point, loss: cross-entropy
    signed distance    d / clip at each point, loss: |d − label|, both clipped at ± clip

It reads scenes (`SceneInputs`), not structures; several along a first axis at once.
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from scipy.special import expit

from equiform.algebra.pluecker import rays_through
from equiform.fields import Field
from equiform.graph import AnyArray
from equiform.models.image_features import ImageFeatures
from equiform.models.ray_baselines import ViewMLP, WorldTransformer
from equiform.models.ray_inputs import SceneInputs
from equiform.models.ray_transformer import PointViews, RayTokens, RayTransformer

Quantity = Literal["occupancy", "signed_distance"]
FIELDS = {
    "occupancy": Field("occupancy", "tokens", "invariant"),
    "signed_distance": Field("signed_distance", "tokens", "invariant", "unit of length of the scene"),
}
"""What is predicted at each query point."""
DEPTH_AND_PLACE = 3
"""Numbers beside colours that a view shows of a point: how far it is and where in the image."""

SceneModel = RayTransformer | ViewMLP | WorldTransformer


class LabelledScenes(NamedTuple):
    """A batch: scenes along the first axis.

    Attributes:
        inputs: What the model is given.
        signed_distance: At the points, negative inside.
    """

    inputs: SceneInputs
    signed_distance: Float[AnyArray, "scenes points"]


class Occupancy(eqx.Module):
    """A model of scenes and the meaning of its number at a point. Invariant where the model is.

    Attributes:
        model: The model.
        quantity: What the number means.
        distance: Typical distance of the cameras; depths are measured from it.
        clip: Signed distances count up to here.
        image_features: Network whose features of the images are added to the colours; None: colours alone.
        threshold: A point is inside where the model's number is above it (a logit) or below it (a distance). Training points
            crowd about surfaces, so what is best on points anywhere is not 0.
    """

    model: SceneModel
    quantity: Quantity = eqx.field(static=True, default="occupancy")
    distance: float = eqx.field(static=True, default=3.0)
    clip: float = eqx.field(static=True, default=0.1)
    image_features: ImageFeatures | None = None
    threshold: float = eqx.field(static=True, default=0.0)

    @property
    def target(self) -> Field:
        """What is predicted."""
        return FIELDS[self.quantity]

    def __call__(self, given: SceneInputs) -> Float[Array, " points"]:
        """The model's number at each point of one scene: a logit, or a signed distance divided by `clip`."""
        model: Any = self.model
        scene: Any = jax.tree.map(jnp.asarray, given)
        if self.image_features is not None:
            scene = self.image_features.added_to(scene)
        if not isinstance(model, RayTransformer):
            return model(scene)
        depth, place = scene.view_depth - self.distance, scene.view_place
        if not model.config.posed:
            depth, place = jnp.zeros_like(depth), jnp.zeros_like(place)
        features = jnp.concatenate([scene.view_patch, depth[..., None], place], axis=-1)
        views = PointViews(scene.view_direction, depth, features, scene.view_mask)
        mask = jnp.ones(scene.direction.shape[0], bool)
        tokens = RayTokens(rays_through(scene.centre, scene.direction), scene.patch, mask, scene.centre)
        return model(tokens, scene.points, views)

    def predict(self, scene: SceneInputs) -> Float[Array, " points"]:
        """The probability that a point is inside, or its signed distance."""
        out = self(scene)
        return jax.nn.sigmoid(out) if self.quantity == "occupancy" else self.clip * out

    def inside(self, scene: SceneInputs) -> Array:
        """Whether each point is inside."""
        return jnp.asarray(self.is_inside(self(scene), self.threshold))

    def is_inside(self, out: AnyArray, threshold: float) -> AnyArray:
        """Whether points with these numbers of the model are inside."""
        return out > threshold if self.quantity == "occupancy" else out < threshold

    @property
    def level(self) -> float:
        """The value of `predict` at the surface."""
        return float(expit(self.threshold)) if self.quantity == "occupancy" else self.clip * self.threshold

    def loss(self, batch: LabelledScenes) -> Float[Array, ""]:
        """The mean loss over all points of a batch."""
        out, label = jax.vmap(self)(batch.inputs), jnp.asarray(batch.signed_distance)
        if self.quantity == "occupancy":
            return optax.sigmoid_binary_cross_entropy(out, (label < 0).astype(out.dtype)).mean()
        label = (label / self.clip).astype(out.dtype)
        return jnp.abs(jnp.clip(out, -1, 1) - jnp.clip(label, -1, 1)).mean()

    def settings(self) -> dict[str, Any]:
        """Everything but the model, as plain values."""
        network = self.image_features
        images = None if network is None else network.config.model_dump(mode="json")
        plain = {"quantity": self.quantity, "distance": self.distance, "clip": self.clip, "threshold": self.threshold}
        return plain | {"image_features": images}
