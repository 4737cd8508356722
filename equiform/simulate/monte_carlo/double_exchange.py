"""Double-exchange model: electrons that hop between sites and are coupled to a classical spin on each, exactly.

    H(S) = −t Σ_{⟨ij⟩σ} (c†_iσ c_jσ + h.c.) + (J/2) Σ_i S_i · σ_i,        |S_i| = 1
    F(S) = −T Σ_n log(1 + exp(−(E_n − μ)/T)),     weight of a configuration: exp(−F/T), with the uniform measure of spheres

E_n are the eigenvalues of a Hermitian matrix of two rows a site (basis index 2i + σ). βF is of the order −10³ and enters
through differences, so everything is in float64. Energies, temperatures (k_B = 1), J and μ are in one unit, usually t.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from pydantic import BaseModel, ConfigDict, Field, field_validator

from equiform.lattice import SquareLattice


class DoubleExchangeConfig(BaseModel):
    """Parameters of the model on a square lattice.

    Attributes:
        size: Sites along both directions.
        hopping: t.
        coupling: J, of the spins to the electrons; both signs give the same weights.
        chemical_potential: μ; 0 is half filling, one electron a site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: tuple[int, int] = (6, 6)
    hopping: float = Field(default=1.0, gt=0)
    coupling: float = 1.0
    chemical_potential: float = 0.0

    @field_validator("size")
    @classmethod
    def _lattice_exists(cls, size: tuple[int, int]) -> tuple[int, int]:
        SquareLattice(size)
        return size

    @property
    def lattice(self) -> SquareLattice:
        """The lattice."""
        return SquareLattice(self.size)


class Thermodynamics(eqx.Module):
    """Thermodynamics of the electrons in one spin configuration.

    Attributes:
        free_energy: F(S).
        energy: Σ_n E_n f(E_n).
        electrons: Σ_n f(E_n).
        heat: Σ_n (E_n − μ)² f (1 − f): the term of the specific heat besides the fluctuation of energy.
    """

    free_energy: Float[Array, "*batch"]
    energy: Float[Array, "*batch"]
    electrons: Float[Array, "*batch"]
    heat: Float[Array, "*batch"]


class DoubleExchange(eqx.Module):
    """The model on any bonds. F is invariant under O(3) of all spins, S → −S, and symmetries of the bonds.

    Attributes:
        hopping: Amplitudes between sites, a symmetric matrix: −t on a bond.
        coupling: J.
        chemical_potential: μ.
    """

    hopping: Float[np.ndarray | Array, "sites sites"]
    coupling: float
    chemical_potential: float

    @classmethod
    def of(cls, config: DoubleExchangeConfig) -> "DoubleExchange":
        """The model on a square lattice."""
        return cls(config.lattice.hopping(config.hopping), config.coupling, config.chemical_potential)

    def hamiltonian(self, spins: Float[Array, "sites 3"]) -> Complex[Array, "states states"]:
        """H(S), without −μN.

        Raises:
            TypeError: The spins are not in float64.
        """
        if spins.dtype != jnp.float64:
            raise TypeError(f"exact weights need spins in float64, got {spins.dtype}; call inside `with jax.enable_x64(True)`")
        sites = spins.shape[0]
        blocks = spin_term(self.coupling, spins)
        onsite = jnp.einsum("ij,iab->iajb", jnp.eye(sites, dtype=blocks.dtype), blocks)
        hops = jnp.einsum("ij,ab->iajb", jnp.asarray(self.hopping), jnp.eye(2))
        return (hops.astype(blocks.dtype) + onsite).reshape(2 * sites, 2 * sites)

    def eigenvalues(self, spins: Float[Array, "sites 3"]) -> Float[Array, " states"]:
        """E_n, ascending."""
        return jnp.linalg.eigvalsh(self.hamiltonian(spins), symmetrize_input=False)

    def thermodynamics(self, spins: Float[Array, "sites 3"], temperature: Float[Array, ""]) -> Thermodynamics:
        """Free energy, energy and number of electrons, by one diagonalisation."""
        return self.of_eigenvalues(self.eigenvalues(spins), temperature)

    def of_eigenvalues(self, energies: Float[Array, " states"], temperature: Float[Array, ""]) -> Thermodynamics:
        """The same from eigenvalues that are known."""
        x = (energies - self.chemical_potential) / temperature
        filling = jax.nn.sigmoid(-x)
        return Thermodynamics(
            free_energy=-temperature * jnp.sum(jnp.logaddexp(jnp.zeros_like(x), -x)),
            energy=jnp.sum(energies * filling),
            electrons=jnp.sum(filling),
            heat=temperature**2 * jnp.sum(x**2 * filling * jax.nn.sigmoid(x)),
        )

    def free_energy(self, spins: Float[Array, "sites 3"], temperature: Float[Array, ""]) -> Float[Array, ""]:
        """F(S)."""
        return self.thermodynamics(spins, temperature).free_energy


def spin_term(coupling: float, vectors: Float[Array, "*batch 3"]) -> Complex[Array, "*batch 2 2"]:
    """(J/2) v · σ = ½J [[v_z, v_x − i v_y], [v_x + i v_y, −v_z]].

    Args:
        coupling: J.
        vectors: Spins, or differences of spins.
    """
    x, y, z = 0.5 * coupling * jnp.moveaxis(vectors, -1, 0)
    rows = [jnp.stack([jax.lax.complex(z, jnp.zeros_like(z)), jax.lax.complex(x, -y)], axis=-1)]
    rows += [jnp.stack([jax.lax.complex(x, y), jax.lax.complex(-z, jnp.zeros_like(z))], axis=-1)]
    return jnp.stack(rows, axis=-2)
