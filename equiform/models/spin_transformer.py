"""Equivariant transformer of classical spins: attention makes effective spins, and a Heisenberg energy of them is the energy.

    S⁰ = S
    Q, K, V = Σ_n w_n Σ_{j in shell n of i} S_j         circular convolutions, one weight per shell; n = 0 is the site
    Sˡ = N( Sˡ⁻¹ + (36 / sites) ReLU(Q Kᵀ / √3) V )     N divides each site's vector by its length
    H_eff = E_0 − Σ_n J_n Σ_{pairs of shell n} Sᴸ_i · Sᴸ_j

Every weight multiplies whole vectors, and scores are scalar products: the effective spins rotate, reflect and change sign with
the spins, move with translations, and the energy is invariant. ReLU instead of softmax leaves zero weights the identity, so a
layer can be added to a trained model without changing it. With L layers and k shells there are 1 + k + 3 (k + 1) L parameters,
and none depends on the lattice's size.

Source: Nagai and Tomiya, J. Phys. Soc. Jpn. 93, 114007 (arXiv:2306.11527); there is no public code.
Differs: attention is multiplied by 36 / sites: the paper's sum on 6 × 6, where it was published, but a mean that keeps its size
on larger lattices (measured: docs/results.md).
Shells of one distance share a weight (the paper does not say which weights it ties), so that the point group is exact.
Convolutions are products with circulant matrices, not Fourier transforms: attention costs N² anyway.
"""

from math import sqrt
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import BaseModel, ConfigDict, Field

from equiform.lattice import SquareLattice
from equiform.models.spin_linear import PairHamiltonian, shell_couplings
from equiform.models.spin_model import SpinHamiltonian, SpinModel


class SpinTransformerConfig(BaseModel):
    """Everything that fixes a spin transformer's function and parameters.

    Attributes:
        num_layers: L; without layers the model is the linear one.
        shells: d² of the shells of neighbours, in Q, K, V and in the energy.
        reference_sites: Number of sites on which attention is the plain sum.
        initial_scale: Standard deviation of initial weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["spin-transformer"] = "spin-transformer"
    num_layers: int = Field(default=3, ge=0)
    shells: tuple[int, ...] = Field(default=(1, 2, 4, 5, 8, 9), min_length=1)
    reference_sites: int = Field(default=36, ge=1)
    initial_scale: float = Field(default=0.05, ge=0)


class SpinTransformer(SpinModel):
    """The model. Invariant under O(3), translations and the lattice's point group.

    Attributes:
        weights: w of Q, K and V in each layer, for the site itself and the shells.
        couplings: J_n, in units of the hopping amplitude.
        offset: E_0.
    """

    weights: Float[Array, "layers 3 shells_and_site"]
    couplings: Float[Array, " shells"]
    offset: Float[Array, ""]
    config: SpinTransformerConfig = eqx.field(static=True)

    def __init__(self, config: SpinTransformerConfig, *, key: PRNGKeyArray):
        self.config = config
        self.weights = config.initial_scale * jax.random.normal(key, (config.num_layers, 3, 1 + len(config.shells)))
        self.couplings = jnp.zeros(len(config.shells))
        self.offset = jnp.zeros(())

    def on(self, lattice: SquareLattice) -> "TransformerHamiltonian":
        """The energy on a lattice that has all the shells."""
        factors = jnp.array([1, 1, self.config.reference_sites / lattice.num_sites], self.weights.dtype)  # of Q, K and V
        kernels = (
            factors[None, :, None] * self.weights @ jnp.asarray(lattice.in_shells((0, *self.config.shells)), self.weights.dtype)
        )
        pairs = PairHamiltonian(shell_couplings(lattice, self.config.shells, self.couplings), self.offset)
        return TransformerHamiltonian(kernels[..., jnp.asarray(lattice.displacement_index)], pairs)

    def grown(self, *, key: PRNGKeyArray) -> "SpinTransformer":
        """The same model with one more layer on top, its weights random and small.

        Args:
            key: Of the new weights.
        """
        config = self.config.model_copy(update={"num_layers": self.config.num_layers + 1})
        new = config.initial_scale * jax.random.normal(key, (1, *self.weights.shape[1:]), self.weights.dtype)
        larger = SpinTransformer(config, key=key)
        parameters = (jnp.concatenate([self.weights, new]), self.couplings, self.offset)
        return eqx.tree_at(lambda model: (model.weights, model.couplings, model.offset), larger, parameters)


class TransformerHamiltonian(SpinHamiltonian):
    """The model on one lattice. A flip costs a whole evaluation, since attention sees every site.

    Attributes:
        projections: Circulant matrices of Q, K and V in each layer.
        pairs: The energy of effective spins.
    """

    projections: Float[Array, "layers 3 sites sites"]
    pairs: PairHamiltonian

    def effective_spins(self, spins: Float[Array, "sites 3"]) -> Float[Array, "layers_and_input sites 3"]:
        """S⁰ … Sᴸ; they rotate, reflect and translate with the spins."""
        layers = [spins]
        for projection in self.projections:
            layers.append(_attention_block(projection, layers[-1]))
        return jnp.stack(layers)

    def energy(self, spins: Float[Array, "sites 3"]) -> Float[Array, ""]:
        """H_eff(S)."""
        return self.pairs.energy(self.effective_spins(spins)[-1])

    def energy_after(
        self, spins: Float[Array, "sites 3"], energy: Float[Array, ""], site: Int[Array, ""], new: Float[Array, "3"]
    ) -> Float[Array, ""]:
        """H_eff of the changed spins; `energy` is not needed."""
        return self.energy(spins.at[site].set(new))


def _attention_block(projection: Float[Array, "3 sites sites"], spins: Float[Array, "sites 3"]) -> Float[Array, "sites 3"]:
    query, key, value = projection @ spins
    attended = jax.nn.relu(query @ key.T / sqrt(3)) @ value
    moved = spins + attended
    return moved / jnp.sqrt(jnp.sum(moved**2, axis=-1, keepdims=True))
