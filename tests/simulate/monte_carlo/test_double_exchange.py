"""The exact model: spectra known in closed form, symmetries, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from equiform.errors import UserError
from equiform.lattice import SquareLattice, parse_lattice
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, DoubleExchangeConfig
from tests.simulate.monte_carlo.conftest import at, dense_hamiltonian, unit_vectors

UP = np.tile([0.0, 0.0, 1.0], (36, 1))


def bands(lx: int, ly: int) -> np.ndarray:
    """−2 (cos kx + cos ky) on all k, ascending."""
    kx, ky = (2 * np.pi * np.arange(n) / n for n in (lx, ly))
    return np.sort((-2 * (np.cos(kx)[:, None] + np.cos(ky))).ravel())


def test_free_electrons_have_the_bands_of_the_square_lattice():
    model = DoubleExchange.of(DoubleExchangeConfig(size=(4, 6), coupling=0.0))
    energies = model.eigenvalues(jnp.asarray(unit_vectors(0, 24)))
    np.testing.assert_allclose(energies, np.repeat(bands(4, 6), 2), atol=1e-13)


def test_ferromagnet_shifts_the_bands(six):
    expected = np.sort(np.concatenate([bands(6, 6) + 0.5, bands(6, 6) - 0.5]))
    np.testing.assert_allclose(six.eigenvalues(jnp.asarray(UP)), expected, atol=1e-13)


def test_neel_order_opens_a_gap(six):
    spins = SquareLattice((6, 6)).signs[:, None] * UP
    gapped = np.sqrt(bands(6, 6) ** 2 + 0.25)
    expected = np.sort(np.concatenate([gapped, -gapped]))
    np.testing.assert_allclose(six.eigenvalues(jnp.asarray(spins)), expected, atol=1e-13)


def test_hamiltonian_equals_kronecker_products():
    config = DoubleExchangeConfig(size=(3, 4), coupling=1.7, hopping=0.8)
    spins = unit_vectors(1, 12)
    expected = dense_hamiltonian(config.lattice.hopping(0.8), 1.7, spins)
    np.testing.assert_allclose(DoubleExchange.of(config).hamiltonian(jnp.asarray(spins)), expected, atol=1e-15)


def moved(spins: np.ndarray, name: str) -> np.ndarray:
    """A configuration that must have the same free energy."""
    grid = spins.reshape(6, 6, 3)
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    changes = {
        "rotation": grid @ rotation.T,
        "reflection": grid * np.array([1, 1, -1]),
        "reversal": -grid,
        "translation": np.roll(grid, (2, 3), (0, 1)),
        "transposition": grid.transpose(1, 0, 2),
        "axis flip": grid[::-1],
    }
    return changes[name].reshape(36, 3)


@pytest.mark.parametrize("name", ["rotation", "reflection", "reversal", "translation", "transposition", "axis flip"])
def test_free_energy_has_the_symmetries(six, name):
    spins = unit_vectors(2, 36)
    ours = [six.free_energy(jnp.asarray(s), at(0.05)) / 0.05 for s in (spins, moved(spins, name))]
    assert abs(ours[0] - ours[1]) < 1e-10


def test_turning_one_spin_changes_the_free_energy(six):
    spins = unit_vectors(2, 36)
    other = spins.copy()
    other[5] *= -1
    assert abs(six.free_energy(jnp.asarray(spins), at(0.05)) - six.free_energy(jnp.asarray(other), at(0.05))) > 1e-3


def test_spectrum_is_symmetric_on_a_bipartite_lattice(six):
    energies = six.eigenvalues(jnp.asarray(unit_vectors(4, 36)))
    np.testing.assert_allclose(energies, -energies[::-1], atol=1e-13)


def test_energy_and_heat_are_derivatives_of_the_free_energy():
    """K = ∂(βF)/∂β = E − μn, ∂K/∂β = −heat, n = −∂F/∂μ, by finite differences."""
    config = DoubleExchangeConfig(size=(4, 4), chemical_potential=0.3)
    model, spins, beta, step = DoubleExchange.of(config), jnp.asarray(unit_vectors(5, 16)), 4.0, 1e-4

    def of(beta: float, mu: float = 0.3):
        changed = DoubleExchange.of(config.model_copy(update={"chemical_potential": mu}))
        return changed.thermodynamics(spins, at(1 / beta))

    now, before, after = of(beta), of(beta - step), of(beta + step)
    grand = (now.energy - 0.3 * now.electrons, before.energy - 0.3 * before.electrons, after.energy - 0.3 * after.electrons)
    slope = ((beta + step) * after.free_energy - (beta - step) * before.free_energy) / (2 * step)
    np.testing.assert_allclose(grand[0], slope, rtol=1e-6)
    np.testing.assert_allclose(-now.heat, (grand[2] - grand[1]) / (2 * step), rtol=1e-6)
    by_mu = -(of(beta, 0.3 + step).free_energy - of(beta, 0.3 - step).free_energy) / (2 * step)
    np.testing.assert_allclose(now.electrons, by_mu, rtol=1e-6)
    assert model.coupling == 1.0


def test_single_precision_is_refused(six):
    with pytest.raises(TypeError, match="float64"):
        six.eigenvalues(jnp.asarray(UP, jnp.float32))


@pytest.mark.parametrize("size", [(2, 6), (6, 1), (0, 4)])
def test_lattices_that_wrap_onto_themselves_are_refused(size):
    with pytest.raises(UserError, match="wraps onto itself"):
        DoubleExchangeConfig(size=size)


@pytest.mark.parametrize("text", ["6", "6x", "axb", "6x6x6", "-3x4"])
def test_text_that_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="6x6"):
        parse_lattice(text)


@pytest.mark.parametrize("wrong", [{"hopping": 0.0}, {"coupling": float("nan")}, {"spins": 3}])
def test_parameters_without_meaning_are_refused(wrong):
    with pytest.raises(ValidationError):
        DoubleExchangeConfig(**wrong)


def test_shells_of_six_by_six():
    """Multiplicities count sites, so shells at half the lattice have fewer."""
    lattice = SquareLattice((6, 6))
    assert lattice.shells == (1, 2, 4, 5, 8, 9, 10, 13, 18)
    assert lattice.multiplicities == (4, 4, 4, 8, 4, 2, 4, 4, 1)


def test_importing_does_not_switch_precision():
    import subprocess
    import sys

    code = "import equiform.simulate.monte_carlo.simulation, jax; raise SystemExit(jax.config.jax_enable_x64)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert jax.config.jax_enable_x64  # the tests' own setting
