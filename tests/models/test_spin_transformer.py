"""Models of classical spins: equations written out site by site, symmetries, one model on any lattice."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from equiform.errors import UserError
from equiform.lattice import SquareLattice
from equiform.models.spin_linear import SpinLinear, SpinLinearConfig, shell_features
from equiform.models.spin_model import SpinHamiltonian, SpinModel
from equiform.models.spin_transformer import SpinTransformer, SpinTransformerConfig, TransformerHamiltonian

SHELLS = (1, 2, 4, 5, 8, 9)


def spins_on(lattice: SquareLattice, seed: int = 0) -> np.ndarray:
    """Random unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(lattice.num_sites, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def transformer(num_layers: int = 2, shells: tuple[int, ...] = SHELLS) -> SpinTransformer:
    """With weights large enough to matter."""
    config = SpinTransformerConfig(num_layers=num_layers, shells=shells, initial_scale=0.2)
    model = SpinTransformer(config, key=jax.random.key(0))
    couplings = jnp.asarray(np.random.default_rng(1).normal(size=len(shells)))
    return eqx.tree_at(lambda m: (m.couplings, m.offset), model, (couplings, jnp.asarray(-1.3)))


def linear(shells: tuple[int, ...] = SHELLS) -> SpinLinear:
    """With random couplings."""
    couplings = jnp.asarray(np.random.default_rng(2).normal(size=len(shells)))
    return eqx.tree_at(
        lambda m: (m.couplings, m.offset), SpinLinear(SpinLinearConfig(shells=shells)), (couplings, jnp.asarray(0.7))
    )


def energy_of(hamiltonian: SpinHamiltonian, spins: np.ndarray) -> jax.Array:
    """Compiled once for models of the same shapes."""
    return _energy(hamiltonian, jnp.asarray(spins))


def effective_of(hamiltonian: TransformerHamiltonian, spins: np.ndarray) -> jax.Array:
    """S⁰ … Sᴸ."""
    return _effective(hamiltonian, jnp.asarray(spins))


_energy = eqx.filter_jit(lambda hamiltonian, spins: hamiltonian.energy(spins))
_effective = eqx.filter_jit(lambda hamiltonian, spins: hamiltonian.effective_spins(spins))


def written_out(model: SpinTransformer, size: tuple[int, int], spins: np.ndarray) -> tuple[np.ndarray, float]:
    """Effective spins and energy by loops over sites, displacements and components."""
    lx, ly = size
    sites = [(x, y) for x in range(lx) for y in range(ly)]

    def squared(a, b):
        dx, dy = abs(a[0] - b[0]), abs(a[1] - b[1])
        return min(dx, lx - dx) ** 2 + min(dy, ly - dy) ** 2

    shells = (0, *model.config.shells)
    grid = {site: spins[index] for index, site in enumerate(sites)}
    for layer in np.asarray(model.weights):
        q, k, v = (
            {i: sum(w[shells.index(squared(i, j))] * grid[j] for j in sites if squared(i, j) in shells) for i in sites}
            for w in layer
        )
        moved = {i: grid[i] + 36 / len(sites) * sum(max(q[i] @ k[j] / np.sqrt(3), 0) * v[j] for j in sites) for i in sites}
        grid = {i: vector / np.linalg.norm(vector) for i, vector in moved.items()}
    energy = float(model.offset)
    for a, i in enumerate(sites):
        for j in sites[a + 1 :]:
            if squared(i, j) in shells:
                energy -= float(model.couplings[shells.index(squared(i, j)) - 1]) * grid[i] @ grid[j]
    return np.array(list(grid.values())), energy


@pytest.mark.parametrize(("size", "shells"), [((6, 6), SHELLS), ((4, 5), (1, 2, 5))])
def test_transformer_is_its_equations(size, shells):
    lattice, model = SquareLattice(size), transformer(2, shells)
    spins = spins_on(lattice)
    hamiltonian = model.on(lattice)
    effective, energy = written_out(model, size, spins)
    np.testing.assert_allclose(effective_of(hamiltonian, spins)[-1], effective, atol=1e-12)
    np.testing.assert_allclose(energy_of(hamiltonian, spins), energy, rtol=1e-12)


def test_linear_model_is_the_transformer_without_layers():
    lattice = SquareLattice((6, 6))
    spins = spins_on(lattice)
    without = transformer(0)
    same = eqx.tree_at(lambda m: (m.couplings, m.offset), linear(), (without.couplings, without.offset))
    np.testing.assert_allclose(energy_of(same.on(lattice), spins), energy_of(without.on(lattice), spins), rtol=1e-14)
    features = shell_features(lattice, SHELLS, jnp.asarray(spins))
    np.testing.assert_allclose(energy_of(same.on(lattice), spins), same.offset - same.couplings @ features, rtol=1e-12)


def test_circulant_matrices_are_circular_convolutions():
    """By Fourier transforms."""
    lattice, model = SquareLattice((6, 8)), transformer(1)
    spins = spins_on(lattice)
    kernel = np.asarray(model.weights[0, 0]) @ lattice.in_shells((0, *SHELLS))
    waves = np.fft.fft2(kernel.reshape(6, 8))[..., None] * np.fft.fft2(spins.reshape(6, 8, 3), axes=(0, 1))
    expected = np.fft.ifft2(waves, axes=(0, 1)).real.reshape(48, 3)
    np.testing.assert_allclose(np.asarray(model.on(lattice).projections[0, 0]) @ spins, expected, atol=1e-13)


def test_zero_weights_are_the_identity():
    lattice = SquareLattice((6, 6))
    model = eqx.tree_at(lambda m: m.weights, transformer(2), replace_fn=jnp.zeros_like)
    spins = spins_on(lattice)
    np.testing.assert_allclose(effective_of(model.on(lattice), spins)[-1], spins, atol=1e-15)


def test_growing_keeps_what_was_trained():
    model = transformer(2)
    grown = model.grown(key=jax.random.key(5))
    assert grown.config.num_layers == 3
    np.testing.assert_array_equal(grown.weights[:2], model.weights)
    np.testing.assert_array_equal(grown.couplings, model.couplings)
    assert 0 < np.abs(grown.weights[2]).max() < 1


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_parameter_count(layers):
    sizes = [leaf.size for leaf in jax.tree.leaves(eqx.filter(transformer(layers), eqx.is_array))]
    assert sum(sizes) == 7 + 21 * layers


def orthogonal(seed: int, determinant: int) -> np.ndarray:
    matrix = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return determinant * matrix


@pytest.mark.parametrize("determinant", [1, -1])
def test_effective_spins_rotate_and_reflect_with_the_spins(determinant):
    lattice, matrix = SquareLattice((6, 6)), orthogonal(3, determinant)
    hamiltonian, spins = transformer().on(lattice), spins_on(lattice)
    turned = effective_of(hamiltonian, spins @ matrix.T)
    np.testing.assert_allclose(turned, effective_of(hamiltonian, spins) @ matrix.T, atol=1e-12)


MOVES = {
    "rotation": lambda grid: grid @ orthogonal(3, 1).T,
    "reflection": lambda grid: grid * np.array([1, -1, 1]),
    "reversal": lambda grid: -grid,
    "translation": lambda grid: np.roll(grid, (1, 4), (0, 1)),
    "transposition": lambda grid: grid.transpose(1, 0, 2),
    "axis flip": lambda grid: grid[:, ::-1],
}


@pytest.mark.parametrize("build", [transformer, linear])
@pytest.mark.parametrize("move", MOVES)
def test_energy_has_the_symmetries(build, move):
    lattice: SquareLattice = SquareLattice((6, 6))
    hamiltonian = build().on(lattice)
    spins = spins_on(lattice)
    moved = MOVES[move](spins.reshape(6, 6, 3)).reshape(36, 3)
    np.testing.assert_allclose(energy_of(hamiltonian, moved), energy_of(hamiltonian, spins), rtol=1e-11)


def test_exchanging_two_sites_changes_the_energy():
    """No symmetry that is not claimed."""
    lattice, spins = SquareLattice((6, 6)), spins_on(SquareLattice((6, 6)))
    order = np.arange(36)
    order[[0, 1]] = 1, 0
    hamiltonian = transformer().on(lattice)
    assert abs(energy_of(hamiltonian, spins) - energy_of(hamiltonian, spins[order])) > 1e-3


@pytest.mark.parametrize("build", [transformer, linear])
def test_energy_after_a_flip_is_that_of_the_new_spins(build):
    lattice = SquareLattice((6, 6))
    hamiltonian, spins, new = build().on(lattice), spins_on(lattice), spins_on(lattice, 8)[0]
    before = energy_of(hamiltonian, spins)
    after = hamiltonian.energy_after(jnp.asarray(spins), before, jnp.asarray(11), jnp.asarray(new))
    spins[11] = new
    np.testing.assert_allclose(after, energy_of(hamiltonian, spins), rtol=1e-12)


@pytest.mark.parametrize("build", [transformer, linear])
def test_one_model_runs_on_every_lattice_that_has_its_shells(build):
    model: SpinModel = build()
    for size in ((6, 6), (7, 8)):
        lattice = SquareLattice(size)
        assert np.isfinite(energy_of(model.on(lattice), spins_on(lattice)))


@pytest.mark.parametrize("build", [transformer, linear])
def test_a_lattice_without_the_shells_is_refused(build):
    with pytest.raises(UserError, match="no sites at squared distance 9"):
        build().on(SquareLattice((4, 4)))


def test_attention_keeps_its_size_on_a_repeated_lattice():
    """Four copies of a periodic configuration: every site sees the same neighbourhood four times over, and the same mean."""
    small, large = SquareLattice((7, 7)), SquareLattice((14, 14))
    spins = spins_on(small)
    copies = np.tile(spins.reshape(7, 7, 3), (2, 2, 1)).reshape(196, 3)
    model = transformer(2)
    one, four = (effective_of(model.on(lattice), s)[-1] for lattice, s in ((small, spins), (large, copies)))
    np.testing.assert_allclose(np.tile(one.reshape(7, 7, 3), (2, 2, 1)).reshape(196, 3), four, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"num_layers": -1}, {"shells": ()}, {"layers": 2}])
def test_configurations_without_meaning_are_refused(wrong):
    with pytest.raises(ValidationError):
        SpinTransformerConfig(**wrong)
