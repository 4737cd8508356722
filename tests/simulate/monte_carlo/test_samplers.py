"""Detailed balance: whatever the effective model, averages are those of the exact weight."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.models.spin_linear import PairHamiltonian
from equiform.simulate.monte_carlo import estimates
from equiform.simulate.monte_carlo.metropolis import Metropolis, metropolis
from equiform.simulate.monte_carlo.sampler import Sampler, draw_flips, random_spins, start_of
from equiform.simulate.monte_carlo.self_learning import SelfLearning, blocks_of, effective_flips, whole_lattice
from tests.simulate.monte_carlo.conftest import DIMER_AVERAGES, at, dimer_average


def wrong_model(strength: float = 0.3) -> PairHamiltonian:
    """H_eff = +0.3 c: of the right sign, but far too strong, so the effective chain alone is far off."""
    return PairHamiltonian(jnp.array([[0.0, -strength], [-strength, 0.0]]), jnp.zeros(()))


def correlations(dimer, sampler: Sampler, temperature: float, chains: int, steps: int, seed: int = 0):
    """c = S_1 · S_2 and acceptance of chains from random spins, after a tenth of the steps."""
    keys = jax.random.split(jax.random.key(seed), chains)

    @eqx.filter_jit
    def run(sampler, keys):
        def chain(key):
            state = start_of(dimer, at(temperature), random_spins(key, 2))

            def one(state, number):
                state, accepted = sampler.step(dimer, at(temperature), state, jax.random.fold_in(key, number))
                return state, (jnp.sum(state.spins[0] * state.spins[1]), accepted)

            return jax.lax.scan(one, state, jnp.arange(steps))[1]

        return jax.vmap(chain)(keys)

    c, accepted = run(sampler, keys)
    return np.asarray(c)[:, steps // 10 :], np.asarray(accepted)[:, steps // 10 :]


@pytest.mark.parametrize("temperature", DIMER_AVERAGES)
def test_quadrature_of_the_dimer_is_the_published_one(temperature):
    assert abs(dimer_average(temperature) - DIMER_AVERAGES[temperature]) < 1e-7


def test_self_learning_with_a_wrong_model_is_exact(dimer):
    """The effective chain alone would give −0.67 at T = 0.1, some 60 errors away."""
    c, accepted = correlations(dimer, SelfLearning(wrong_model(), 3, whole_lattice(2)), 0.1, 100, 1500)
    found = estimates.mean(c)
    assert found.error < 0.006
    assert abs(found.value - DIMER_AVERAGES[0.1]) < 3 * found.error
    assert 0.5 < accepted.mean() < 0.75
    strength = 3.0  # β 0.3
    assert abs(-(1 / np.tanh(strength) - 1 / strength) - DIMER_AVERAGES[0.1]) > 50 * found.error


@pytest.mark.slow
def test_self_learning_in_blocks_is_exact(dimer):
    """A proposal that may change one spin only, with a model of the wrong sign."""
    sampler = SelfLearning(wrong_model(-0.1), 2, np.array([[0], [1]]))
    c, _ = correlations(dimer, sampler, 0.1, 100, 1500)
    found = estimates.mean(c)
    assert found.error < 0.006
    assert abs(found.value - DIMER_AVERAGES[0.1]) < 3 * found.error


@pytest.mark.parametrize(
    ("method", "temperature"),
    [
        ("determinant", 0.1),
        pytest.param("determinant", 0.05, marks=pytest.mark.slow),
        pytest.param("diagonalization", 0.1, marks=pytest.mark.slow),
        pytest.param("diagonalization", 0.05, marks=pytest.mark.slow),
    ],
)
def test_local_sampling_of_the_dimer_is_exact(dimer, method, temperature):
    c, _ = correlations(dimer, metropolis(dimer, temperature, method), temperature, 100, 1000)
    found = estimates.mean(c)
    assert found.error < 0.005
    assert abs(found.value - DIMER_AVERAGES[temperature]) < 3 * found.error


def test_an_effective_model_taken_for_exact_is_noticed(dimer):
    """The check can fail: without the correction by the exact weight the average is the model's own."""

    class Uncorrected(SelfLearning):
        def step(self, model, temperature, state, key):
            spins = effective_flips(self.effective, temperature, state.spins, draw_flips(key, jnp.arange(2), 6))
            return start_of(model, temperature, spins), jnp.ones(())

    c, _ = correlations(dimer, Uncorrected(wrong_model(), 3, whole_lattice(2)), 0.1, 100, 300)
    found = estimates.mean(c)
    assert abs(found.value - DIMER_AVERAGES[0.1]) > 30 * found.error
    expected = -(1 / np.tanh(3.0) - 1 / 3.0)  # of two spins with the energy 0.3 c at T = 0.1
    assert abs(found.value - expected) < 4 * found.error


@pytest.mark.slow
def test_both_local_methods_make_the_same_chain(six):
    keys = jax.random.split(jax.random.key(1), 3)

    def chain(sampler):
        state = start_of(six, at(0.05), random_spins(jax.random.key(0), 36))
        accepted = []
        step = eqx.filter_jit(lambda sampler, state, key: sampler.step(six, at(0.05), state, key))
        for key in keys:
            state, fraction = step(sampler, state, key)
            accepted.append(float(fraction))
        return state, accepted

    fast, slow = chain(metropolis(six, 0.05)), chain(Metropolis(None))
    assert fast[1] == slow[1] and 0 < sum(fast[1]) < 3
    np.testing.assert_array_equal(fast[0].spins, slow[0].spins)
    np.testing.assert_allclose(fast[0].electrons.free_energy, slow[0].electrons.free_energy, rtol=1e-13)


def test_blocks_are_squares_of_a_periodic_lattice():
    blocks = blocks_of((4, 5), 2)
    assert blocks.shape == (20, 4)
    assert sorted(blocks[0]) == [0, 1, 5, 6]
    assert sorted(blocks[-1]) == [0, 4, 15, 19]  # around both corners
    assert (np.bincount(blocks.ravel()) == 4).all()
