"""Interface of effective models of classical spins: one energy per configuration, on any lattice.

A `SpinModel` holds parameters for any lattice; `on(lattice)` gives a `SpinHamiltonian`, which computes on that lattice. It is
called once, outside of the loops over spins.

Every energy here is invariant under O(3) of all spins together (reflections and S → −S included) and under the translations
and the point group of the lattice.
"""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float, Int

from equiform.lattice import SquareLattice


class SpinHamiltonian(eqx.Module):
    """An effective energy of the spins of one lattice."""

    @abstractmethod
    def energy(self, spins: Float[Array, "sites 3"]) -> Float[Array, ""]:
        """H_eff(S), in the units of the hopping amplitude.

        Args:
            spins: Unit vectors.
        """

    @abstractmethod
    def energy_after(
        self, spins: Float[Array, "sites 3"], energy: Float[Array, ""], site: Int[Array, ""], new: Float[Array, "3"]
    ) -> Float[Array, ""]:
        """H_eff after one spin has been replaced.

        Args:
            spins: Unit vectors before.
            energy: H_eff before.
            site: Which spin.
            new: Its new value, a unit vector.
        """


class SpinModel(eqx.Module):
    """Parameters of an effective energy, for any lattice that has the shells it couples."""

    @abstractmethod
    def on(self, lattice: SquareLattice) -> SpinHamiltonian:
        """The energy on a lattice.

        Raises:
            UserError: The lattice is too small for the model's shells.
        """
