"""Linear spin model: a Heisenberg energy with one coupling per shell of neighbours.

    H_eff(S) = E_0 − Σ_n J_n c_n(S),    c_n(S) = Σ_{pairs (i,j) at d² = d²_n, each once} S_i · S_j

The baseline of self-learning Monte Carlo. It is linear in its parameters, so least squares on configurations S and their exact
energies fits it; with couplings from second-order perturbation theory it is the RKKY model
(`equiform.simulate.monte_carlo.rkky`).

Source: Liu, Qi, Meng and Fu, Phys. Rev. B 95, 041101 (arXiv:1610.03137); for the double-exchange model Liu, Shen, Qi, Meng and
Fu, Phys. Rev. B 95, 241104 (arXiv:1611.09364).
"""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import BaseModel, ConfigDict, Field

from equiform.lattice import SquareLattice
from equiform.models.spin_model import SpinHamiltonian, SpinModel


class SpinLinearConfig(BaseModel):
    """Everything that fixes a linear spin model's function and parameters.

    Attributes:
        shells: d² of the shells that are coupled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["spin-linear"] = "spin-linear"
    shells: tuple[int, ...] = Field(default=(1, 2, 4, 5, 8, 9), min_length=1)


class SpinLinear(SpinModel):
    """The model. Invariant under O(3), translations and the lattice's point group.

    Attributes:
        couplings: J_n, positive for ferromagnetic, in units of the hopping amplitude.
        offset: E_0.
    """

    couplings: Float[Array, " shells"]
    offset: Float[Array, ""]
    config: SpinLinearConfig = eqx.field(static=True)

    def __init__(self, config: SpinLinearConfig):
        self.config = config
        self.couplings = jnp.zeros(len(config.shells))
        self.offset = jnp.zeros(())

    def on(self, lattice: SquareLattice) -> "PairHamiltonian":
        """The energy on a lattice that has all the shells."""
        return PairHamiltonian(shell_couplings(lattice, self.config.shells, self.couplings), self.offset)


class PairHamiltonian(SpinHamiltonian):
    """H_eff = E_0 − ½ Σ_ij J_ij S_i · S_j for any symmetric couplings without a diagonal; a flip costs O(N)."""

    couplings: Float[Array, "sites sites"]
    offset: Float[Array, ""]

    def energy(self, spins: Float[Array, "sites 3"]) -> Float[Array, ""]:
        """H_eff(S)."""
        return self.offset - 0.5 * jnp.sum(spins * (self.couplings @ spins))

    def energy_after(
        self, spins: Float[Array, "sites 3"], energy: Float[Array, ""], site: Int[Array, ""], new: Float[Array, "3"]
    ) -> Float[Array, ""]:
        """H_eff − (S'_i − S_i) · Σ_j J_ij S_j."""
        field = self.couplings[site] @ spins
        return energy - jnp.sum((new - spins[site]) * field)


def shell_couplings(
    lattice: SquareLattice, shells: tuple[int, ...], couplings: Float[Array, " shells"]
) -> Float[Array, "sites sites"]:
    """J_ij = J_n where j is in shell n of i."""
    kernel = couplings @ jnp.asarray(lattice.in_shells(shells), couplings.dtype)
    return kernel[jnp.asarray(lattice.displacement_index)]


def shell_features(
    lattice: SquareLattice, shells: tuple[int, ...], spins: Float[Array, "*batch sites 3"]
) -> Float[Array, "*batch shells"]:
    """c_n = Σ S_i · S_j over the pairs of each shell, each pair once.

    Args:
        lattice: The lattice.
        shells: d² of the shells.
        spins: Unit vectors.
    """
    pairs = np.asarray(lattice.in_shells(shells))[:, lattice.displacement_index]  # shells sites sites
    gram = jnp.einsum("...ix,...jx->...ij", spins, spins)
    return 0.5 * jnp.einsum("nij,...ij->...n", jnp.asarray(pairs, spins.dtype), gram)
