"""GATr on surfaces: a vector at every vertex of a vessel's wall, such as the stress of the flowing blood.

Every vertex is a token of three multivectors: the point, the plane that touches the surface there, and the distance from the
inlet as a scalar. All vertices of a mesh attend to one another. The output is the normal of a plane.

    x_i = [point(p_i), plane through p_i with normal n_i, d_i];   v_i = normal of GATr(x)_i

Equivariant under SE(3): points change sign under mirrors, planes do not.

Source: the artery experiment of Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), authors' code, release 1.4.3; the default
sizes are theirs, 246,418 parameters. The published outputs are in units of 53.836 Pa, here `training.normalization.readouts`.
Differs: `centred` subtracts the mean position of the mesh, which changes nothing but rounding.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from equiform.algebra.clifford import projective
from equiform.algebra.clifford.assemble import scalar
from equiform.graph import Graph
from equiform.models.api import SE3, Model, Traits, all_decay
from equiform.models.gatr import GATr, GATrConfig
from equiform.models.particle_inputs import ParticleConfig, particle_inputs
from equiform.models.particle_rows import by_graph
from equiform.models.width import WidthFields
from equiform.nn.dense_attention import Execution
from equiform.nn.multivector_init import Scheme


class SurfaceGATrConfig(ParticleConfig):
    """Everything that determines the function and parameters of a GATr on surfaces."""

    width_fields: ClassVar[WidthFields] = {"channels": (), "scalars": ()}

    name: Literal["gatr-surface"] = "gatr-surface"
    node_scalars: tuple[str, ...] = Field(("inlet_distance",), min_length=1, max_length=1, description="Field with distances.")
    node_vectors: tuple[str, ...] = Field(("normal",), min_length=1, max_length=1, description="Field with unit normals.")
    vector_readouts: tuple[str, ...] = Field(
        ("wall_shear_stress",), min_length=1, max_length=1, description="Name of the readout."
    )
    centred: bool = Field(default=True, description="Positions relative to the mean of the mesh inside the network.")
    channels: int = Field(default=8, ge=1, description="Multivector channels of the blocks.")
    scalars: int = Field(default=32, ge=1, description="Scalar channels of the blocks.")
    num_blocks: int = Field(default=10, ge=1)
    num_heads: int = Field(default=4, ge=1)
    init: Scheme = "balanced"

    @property
    def layers(self) -> GATrConfig:
        """The network's configuration."""
        return GATrConfig.model_validate(
            {
                "in_channels": 3,
                "channels": self.channels,
                "in_scalars": 1,
                "out_scalars": 1,
                "scalars": self.scalars,
                "num_blocks": self.num_blocks,
                "num_heads": self.num_heads,
                "reinserted_channels": (0,),
                "init": self.init,
            }
        )

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        return self.particle_traits(SE3)


class SurfaceGATr(Model):
    """The model; call it on a graph. Equivariant under SE(3)."""

    network: GATr
    config: SurfaceGATrConfig = eqx.field(static=True)

    def __init__(self, config: SurfaceGATrConfig, *, key: PRNGKeyArray):
        self.config = config
        self.network = GATr(config.layers, key=key)

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The vector of each vertex (atoms, 3).

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        return {self.config.vector_readouts[0]: by_graph(self.vectors, graph, particle_inputs(graph, self.config))}

    def decay_mask(self) -> "SurfaceGATr":
        """Weight-decay mask: all parameters."""
        return all_decay(self)

    def vectors(
        self, inputs: Float[Array, "rows slots inputs"], segments: Int[Array, "rows slots"]
    ) -> Float[Array, "rows slots 3"]:
        """Vectors of rows of vertices.

        Args:
            inputs: Position, normal and distance from the inlet of each.
            segments: The mesh that each belongs to.
        """
        positions, normals, distances = inputs[..., :3], inputs[..., 3:6], inputs[..., 6]
        planes = projective.plane_through(normals, positions)
        numbers = scalar(projective.projective().algebra, distances)
        x = jnp.stack([projective.point(positions), planes, numbers], axis=-2)
        y, _ = self.network(x, jnp.zeros_like(inputs[..., :1]), segments=segments, execution=Execution(rematerialise=True))
        return projective.extract_plane(y[..., 0, :])[0]
