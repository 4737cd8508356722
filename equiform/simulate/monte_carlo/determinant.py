"""Change of the free energy when one spin turns, from the Green function at its site instead of a diagonalisation.

    β (F' − F) = −2 Re Σ_p R_p ln det[ 1 − ΔV G_ii(μ + i z_p T) ],    G(z) = (z − H)⁻¹,  ΔV = (J/2) (S'_i − S_i) · σ

This is the contour integral of the Fermi function f with poles ±i z_p and residues R_p. tr ΔV = 0, so f's constant ½ drops out.
ΔV has one eigenvalue of each sign, and eigenvalues interlace: the phase of the determinant stays within (−π, π), where the
principal logarithm is the right one.

With all Matsubara poles z_p = (2p − 1)π, R_p = 1 it is the textbook sum, which converges as the third power of their number.
The Padé approximant of f has few poles, at other places: 18 give f to 1e-12 up to |E − μ| = 90 T. The first is kept as
the plain form of the second.

An accepted flip changes G by a product of rank two, O(N²) a pole instead of the O(N³) of a diagonalisation:

    G' = G + G_·i (1 − ΔV G_ii)⁻¹ ΔV G_i·

Source: matrix-determinant lemma; Padé poles by Ozaki, Phys. Rev. B 75, 035123 (2007), eigenvalues of a tridiagonal matrix.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, spin_term


class FermiPoles(eqx.Module):
    """Poles of an approximate Fermi function, f(x) ≈ ½ − Σ_p 2 R_p x / (x² + z_p²), in units of the temperature.

    Attributes:
        positions: z_p.
        residues: R_p.
    """

    positions: Float[np.ndarray | Array, " poles"]
    residues: Float[np.ndarray | Array, " poles"]

    @classmethod
    def matsubara(cls, count: int) -> "FermiPoles":
        """The first poles of the exact function."""
        return cls((2 * np.arange(count) + 1) * np.pi, np.ones(count))

    @classmethod
    def pade(cls, count: int) -> "FermiPoles":
        """Ozaki's: reciprocal eigenvalues of the tridiagonal matrix with b_n = 1 / (2 √((2n−1)(2n+1)))."""
        odd = 2 * np.arange(1, 2 * count) - 1
        beside = 0.5 / np.sqrt(odd * (odd + 2.0))
        values, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
        positive = values > 0
        return cls(1 / values[positive], vectors[0, positive] ** 2 / (4 * values[positive] ** 2))

    @classmethod
    def enough(cls, largest: float, error: float = 1e-12) -> "FermiPoles":
        """The fewest Padé poles for |x| up to `largest`.

        Args:
            largest: Largest |E − μ| / T.
            error: Of f, relative to 1; that of βΔF is a few times larger.
        """
        x = np.linspace(0, largest, 4001)
        exact, count = 1 / (1 + np.exp(np.minimum(x, 700))), 4
        while np.abs((poles := cls.pade(count)).filling(x) - exact).max() > error:
            count += 1
        return poles

    def filling(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """The approximate f(x)."""
        return 0.5 - np.sum(2 * self.residues * x[:, None] / (x[:, None] ** 2 + self.positions**2), axis=1)


class Green(eqx.Module):
    """G(μ + i z_p T) at every pole, of the present spins."""

    values: Complex[Array, "poles states states"]


def largest_energy(model: DoubleExchange) -> float:
    """A bound of |E_n − μ|: the norm of the hopping, |J|/2 and |μ|."""
    hops = np.abs(np.linalg.eigvalsh(model.hopping)).max()
    return float(hops + abs(model.coupling) / 2 + abs(model.chemical_potential))


def green_function(
    model: DoubleExchange, spins: Float[Array, "sites 3"], poles: FermiPoles, temperature: Float[Array, ""]
) -> tuple[Green, Float[Array, " states"]]:
    """The Green function, and the eigenvalues of which it was made."""
    energies, states = jnp.linalg.eigh(model.hamiltonian(spins), symmetrize_input=False)
    heights = temperature * jnp.asarray(poles.positions)
    distance = jax.lax.complex(*jnp.broadcast_arrays(model.chemical_potential - energies[None], heights[:, None]))
    return Green((states[None] / distance[:, None]) @ states.conj().T), energies


def change(
    model: DoubleExchange,
    green: Green,
    poles: FermiPoles,
    site: Int[Array, ""],
    difference: Float[Array, "3"],
) -> Float[Array, ""]:
    """β (F' − F) of a single flip.

    Args:
        model: The model.
        green: Of the spins before.
        poles: Of the Green function.
        site: Which spin.
        difference: S'_i − S_i.
    """
    product = spin_term(model.coupling, difference) @ _block(green, site)
    # 1 − tr + det is det(1 − ΔV G_ii), as its logarithm near 1.
    shift = _determinant(product) - product[:, 0, 0] - product[:, 1, 1]
    return -2 * jnp.sum(jnp.asarray(poles.residues) * jnp.log1p(shift).real)


def updated(model: DoubleExchange, green: Green, site: Int[Array, ""], difference: Float[Array, "3"]) -> Green:
    """G after the flip.

    Args:
        model: The model.
        green: Of the spins before.
        site: Which spin.
        difference: S'_i − S_i; zero changes nothing.
    """
    step = spin_term(model.coupling, difference)
    one = jnp.eye(2, dtype=step.dtype)[None]
    matrix = one - step @ _block(green, site)
    trace = jnp.trace(matrix, axis1=1, axis2=2)[:, None, None]
    inverse = (trace * one - matrix) / _determinant(matrix)[:, None, None]  # of 2 × 2, by its adjugate
    by_site = green.values.reshape(*green.values.shape[:2], -1, 2)
    columns = by_site[:, :, site]  # poles states 2
    rows = (inverse @ step) @ green.values.reshape(green.values.shape[0], -1, 2, green.values.shape[2])[:, site]
    # Two outer products, written out: fused with the sum they are one pass over G.
    first = columns[:, :, :1] * rows[:, :1]
    return Green(green.values + first + columns[:, :, 1:] * rows[:, 1:])


def _block(green: Green, site: Int[Array, ""]) -> Complex[Array, "poles 2 2"]:
    poles, states = green.values.shape[:2]
    return green.values.reshape(poles, states // 2, 2, states // 2, 2)[:, site, :, site]


def _determinant(matrices: Complex[Array, "poles 2 2"]) -> Complex[Array, " poles"]:
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
