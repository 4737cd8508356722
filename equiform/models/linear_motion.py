"""Linear: the next motion of a particle as a linear map of its current state, the baseline for any model of motion.

    "velocity":  Δ = a v                          one number per vector; with positions x + a v, a straight line
    "vectors":   Δ = a v + b (x − mean x)         one number per pair of vectors
    "full":      Δ = A [x, v, q] + c              a matrix and an offset

The first two are equivariant under rotations, reflections and translations; the full map is not.

Source: the "Linear" rows of the N-body tables of Satorras et al., ICML 2021 (the first form, for positions) and of Fuchs et
al., NeurIPS 2020 (form not stated).
Differs: weights are initialised to zero, so that training starts from particles at rest.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from equiform.graph import Graph
from equiform.models.api import E3, Model, Traits
from equiform.models.particle_inputs import ParticleConfig, named_vectors, particle_inputs, particle_positions
from equiform.models.width import WidthFields
from equiform.nn.fields import node_columns


class LinearMotionConfig(ParticleConfig):
    """Everything that determines a linear map's function and parameters."""

    width_fields: ClassVar[WidthFields] = {}

    name: Literal["linear"] = "linear"
    form: Literal["velocity", "vectors", "full"] = Field("velocity", description="Form of the map.")

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        return super().traits if self.form == "full" else self.particle_traits(E3, scalars=False)


class LinearMotion(Model):
    """The model; call it on a graph. Equivariant under E(3), except for the full map."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"] | None
    config: LinearMotionConfig = eqx.field(static=True)

    def __init__(self, config: LinearMotionConfig, *, key: PRNGKeyArray):
        del key  # Nothing is random.
        outputs, vectors = len(config.vector_readouts), len(config.node_vectors)
        self.config, self.bias = config, None
        if config.form == "full":
            self.weight, self.bias = jnp.zeros((config.num_inputs, 3 * outputs)), jnp.zeros(3 * outputs)
        else:
            self.weight = jnp.zeros((vectors + (config.form == "vectors"), outputs))

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The vectors (atoms, 3) by name.

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        config = self.config
        if self.bias is not None:
            return named_vectors(particle_inputs(graph, config) @ self.weight + self.bias[None], config.vector_readouts)
        vectors = node_columns(graph, config.node_vectors, 3)
        if config.form == "vectors":
            vectors.append(particle_positions(graph, True))
        out = jnp.stack(vectors, axis=2) @ self.weight  # atoms 3 outputs
        return {name: out[:, :, index] for index, name in enumerate(config.vector_readouts)}

    def decay_mask(self) -> "LinearMotion":
        """Weight-decay mask: no parameters."""
        return jax.tree.map(lambda _: False, self)
