"""GATr of moving particles: masses, positions and velocities in, positions a little later out, in any of the four algebras.

Each particle is a token of one multivector (in the Euclidean algebra two): its mass as a scalar, its position as a point, its
velocity as a translation. All particles of a graph attend to one another. The output is read as a point.

    x_i = m_i + point(p_i) + translation(v_i)         E: [m_i + p_i, v_i], from the centre
    y = GATr(x);   displacement_i = position of y_i − p_i

| `algebra` | exact symmetry |
|---|---|
| "improved-projective" | SE(3): points change sign under mirrors, masses and translations do not |
| "projective" | E(3): without the join, what that sign could reach never reaches a position |
| "euclidean", "conformal" | E(3) |

Source: the n-body experiment of Brehmer et al., NeurIPS 2023 (arXiv:2305.18415), authors' code, release 1.4.3; de Haan et al.,
AISTATS 2024 (arXiv:2311.04744) for the other algebras.
Differs: `centred` subtracts the mean position first, which changes nothing but rounding, and is needed in the Euclidean
algebra. The published training adds 0.01 of the squared deviation of the output's weight |e123| from 1 to the loss; here the
position alone is trained.
"""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field, model_validator

from equiform.algebra.clifford import conformal, euclidean, projective
from equiform.algebra.clifford.assemble import scalar
from equiform.graph import Graph
from equiform.models.api import E3, SE3, Model, Traits, all_decay
from equiform.models.gatr import AlgebraName, GATr, GATrConfig
from equiform.models.particle_inputs import ParticleConfig, particle_inputs, particle_positions
from equiform.models.particle_rows import by_graph
from equiform.models.width import WidthFields
from equiform.nn.multivector_init import Scheme

Rows = Float[Array, "rows slots inputs"]


class MotionGATrConfig(ParticleConfig):
    """Everything that determines the function and parameters of a GATr of moving particles."""

    width_fields: ClassVar[WidthFields] = {"channels": (), "scalars": ()}

    name: Literal["gatr-motion"] = "gatr-motion"
    node_scalars: tuple[str, ...] = Field(("charge",), min_length=1, max_length=1, description="Field with the masses.")
    node_vectors: tuple[str, ...] = Field(("velocity",), min_length=1, max_length=1, description="Field with the velocities.")
    vector_readouts: tuple[str, ...] = Field(("displacement",), min_length=1, max_length=1, description="Name of the readout.")
    centred: bool = Field(default=True, description="Positions relative to the mean of the graph inside the network.")
    algebra: AlgebraName = "improved-projective"
    channels: int = Field(default=16, ge=1, description="Multivector channels of the blocks.")
    scalars: int = Field(default=128, ge=1, description="Scalar channels of the blocks.")
    num_blocks: int = Field(default=10, ge=1)
    num_heads: int = Field(default=8, ge=1)
    init: Scheme = "balanced"

    @model_validator(mode="after")
    def _euclidean_is_centred(self) -> "MotionGATrConfig":
        if self.algebra == "euclidean" and not self.centred:
            raise ValueError("the Euclidean algebra has no translations: it needs centred=true")
        return self

    @property
    def layers(self) -> GATrConfig:
        """The network's configuration."""
        return GATrConfig.model_validate(
            {
                "algebra": self.algebra,
                "in_channels": 2 if self.algebra == "euclidean" else 1,
                "channels": self.channels,
                "in_scalars": 1,
                "out_scalars": 1,
                "scalars": self.scalars,
                "num_blocks": self.num_blocks,
                "num_heads": self.num_heads,
                "init": self.init,
            }
        )

    @property
    def traits(self) -> Traits:
        """The model's traits."""
        return self.particle_traits(SE3 if self.algebra == "improved-projective" else E3)


class MotionGATr(Model):
    """The model; call it on a graph. Equivariant under E(3); in the improved projective algebra under SE(3)."""

    network: GATr
    config: MotionGATrConfig = eqx.field(static=True)

    def __init__(self, config: MotionGATrConfig, *, key: PRNGKeyArray):
        self.config = config
        self.network = GATr(config.layers, key=key)

    def __call__(self, graph: Graph, *, key: PRNGKeyArray | None = None) -> dict[str, Array]:
        """The displacement (atoms, 3).

        Args:
            graph: The batch.
            key: Unused; the model has no dropout.
        """
        later = by_graph(self.positions_after, graph, particle_inputs(graph, self.config))
        return {self.config.vector_readouts[0]: later - particle_positions(graph, self.config.centred)}

    def decay_mask(self) -> "MotionGATr":
        """Weight-decay mask: all parameters."""
        return all_decay(self)

    def positions_after(self, inputs: Rows, segments: Int[Array, "rows slots"]) -> Float[Array, "rows slots 3"]:
        """Positions after the motion, of rows of particles.

        Args:
            inputs: Position, velocity and mass of each.
            segments: The set that each belongs to.
        """
        x = embedded(self.config.algebra, inputs[..., :3], inputs[..., 3:6], inputs[..., 6])
        y, _ = self.network(x, jnp.zeros_like(inputs[..., :1]), segments=segments)
        return position_of(self.config.algebra, y[..., 0, :])


def embedded(
    algebra: AlgebraName,
    positions: Float[Array, "*batch 3"],
    velocities: Float[Array, "*batch 3"],
    masses: Float[Array, "*batch"],
) -> Float[Array, "*batch channels components"]:
    """Particles as multivectors.

    Args:
        algebra: The algebra.
        positions: Positions, in the Euclidean algebra from a centre.
        velocities: Velocities.
        masses: Masses.
    """
    if algebra == "euclidean":
        mass = scalar(euclidean.euclidean().algebra, masses)
        return jnp.stack([mass + euclidean.direction(positions), euclidean.direction(velocities)], axis=-2)
    space, geometry = (conformal, conformal.conformal()) if algebra == "conformal" else (projective, projective.projective())
    mass = scalar(geometry.algebra, masses)
    return (mass + space.point(positions) + space.translation(velocities))[..., None, :]


def position_of(algebra: AlgebraName, y: Float[Array, "*batch components"]) -> Float[Array, "*batch 3"]:
    """A multivector read as a point."""
    if algebra == "euclidean":
        return euclidean.extract_direction(y)
    return conformal.extract_point(y) if algebra == "conformal" else projective.extract_point(y)
