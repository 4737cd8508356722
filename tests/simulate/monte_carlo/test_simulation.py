"""Runs: exact restart, training, observables, analysis, files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from equiform.errors import UserError
from equiform.lattice import SquareLattice
from equiform.models.spin_linear import SpinLinear, SpinLinearConfig
from equiform.models.spin_transformer import SpinTransformer, SpinTransformerConfig
from equiform.persist.spin_model_file import CONFIG, WEIGHTS, load_effective, save_effective
from equiform.simulate.monte_carlo.analysis import correlations, series, summarize
from equiform.simulate.monte_carlo.chain_file import CHAIN, load_chain, load_simulation, save_simulation
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, DoubleExchangeConfig
from equiform.simulate.monte_carlo.observables import (
    correlation_by_distance,
    magnetization,
    staggered_magnetization,
    structure_factor,
)
from equiform.simulate.monte_carlo.run import run_folder, scan_folder
from equiform.simulate.monte_carlo.simulation import TRACED, Simulation, SimulationConfig, first_spins
from equiform.simulate.monte_carlo.training import (
    FitConfig,
    Samples,
    energies,
    fit_linear,
    fit_transformer,
    mean_squared_error,
    samples_of,
    split_runs,
    time_blocks,
)
from tests.simulate.monte_carlo.conftest import at, unit_vectors

THREE = DoubleExchangeConfig(size=(3, 3))
CONFIG_THREE = SimulationConfig(model=THREE, temperature=0.2, num_chains=2, keep=2, local_sweeps=2)


def model_of_two_shells() -> SpinLinear:
    """On 3 × 3 lattices."""
    values = (jnp.array([-0.02, 0.01]), jnp.zeros(()))
    return eqx.tree_at(lambda m: (m.couplings, m.offset), SpinLinear(SpinLinearConfig(shells=(1, 2))), values)


@pytest.mark.parametrize("effective", [None, model_of_two_shells()])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, effective):
    whole = run_folder(tmp_path / "whole", CONFIG_THREE, 7, effective)
    run_folder(tmp_path / "parts", CONFIG_THREE, 3, effective)
    resumed, model = load_simulation(tmp_path / "parts")
    assert (model is None) == (effective is None) and resumed.steps == 3
    resumed.run(4)
    for ours, theirs in zip(resumed.trace, whole.trace):
        np.testing.assert_array_equal(ours, theirs)
    assert len(whole.trace.kept) == 3 and whole.trace.values.shape == (7, 2, len(TRACED))


def test_every_step_has_random_numbers_of_its_own():
    """Nearly every flip is accepted at T = 5: the same numbers once more would give the same spins."""
    simulation = Simulation(CONFIG_THREE.model_copy(update={"temperature": 5.0}))
    simulation.run(1)
    first = simulation.spins
    simulation.run(1)
    assert (np.abs(simulation.spins - first).max(axis=-1) > 1e-3).mean() > 0.5


def test_traced_values_are_those_of_the_spins():
    simulation = Simulation(CONFIG_THREE)
    simulation.run(2)
    row = dict(zip(TRACED, simulation.trace.values[-1, 1]))
    spins = simulation.spins[1]
    exact = DoubleExchange.of(THREE).thermodynamics(jnp.asarray(spins), at(0.2))
    np.testing.assert_allclose(row["free_energy"], exact.free_energy, rtol=1e-12)
    np.testing.assert_allclose(row["energy"], exact.energy, rtol=1e-12)
    np.testing.assert_allclose(row["magnetization"], np.linalg.norm(spins.mean(axis=0)), rtol=1e-12)
    np.testing.assert_array_equal(simulation.trace.kept[0], simulation.spins)
    np.testing.assert_allclose(np.linalg.norm(spins, axis=-1), 1, atol=1e-12)
    assert not np.array_equal(simulation.spins[0], spins)


def test_precision_outside_stays_what_it_was():
    with jax.enable_x64(False):
        simulation = Simulation(CONFIG_THREE)
        simulation.run(1)
        assert not jax.config.jax_enable_x64
        assert simulation.trace.values.dtype == np.float64 and jnp.zeros(1).dtype == jnp.float32


def test_first_configurations():
    spins = first_spins(CONFIG_THREE.model_copy(update={"num_chains": 4}))
    lattice = THREE.lattice
    np.testing.assert_allclose(magnetization(jnp.asarray(spins[0])), 1)
    np.testing.assert_allclose(staggered_magnetization(lattice, jnp.asarray(spins[1])), 1)
    np.testing.assert_array_equal(spins[3], spins[0])
    assert np.linalg.norm(spins[2].mean(axis=0)) < 0.9


def test_structure_factor_and_correlations_are_double_sums():
    lattice = SquareLattice((3, 4))
    spins = unit_vectors(0, 12)
    x, y = np.divmod(np.arange(12), 4)
    factor = structure_factor(lattice, spins)
    for a, b in ((0, 0), (1, 2), (2, 3)):
        phase = np.exp(-2j * np.pi * (a * x / 3 + b * y / 4))
        np.testing.assert_allclose(factor[a, b], np.sum(np.abs(phase @ spins) ** 2) / 12, atol=1e-12)
    np.testing.assert_allclose(factor.sum(), 12)
    found = correlation_by_distance(lattice, factor)
    gram, distance = spins @ spins.T, lattice.squared_distance[lattice.displacement_index]
    expected = [gram[distance == d2].mean() for d2 in (0, *lattice.shells)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_magnetisations_are_points_of_the_structure_factor():
    lattice, spins = SquareLattice((4, 4)), unit_vectors(1, 16)
    factor = structure_factor(lattice, spins)
    np.testing.assert_allclose(factor[0, 0], 16 * magnetization(jnp.asarray(spins)) ** 2)
    np.testing.assert_allclose(factor[2, 2], 16 * staggered_magnetization(lattice, jnp.asarray(spins)) ** 2)


def quadratic_samples(lattice: SquareLattice, count: int) -> tuple[SpinLinear, Samples]:
    """Free energies that a linear model has exactly."""
    shells = lattice.shells[:3]
    values = (jnp.array([-0.1, 0.2, 0.05]), jnp.asarray(-3.0))
    model = eqx.tree_at(lambda m: (m.couplings, m.offset), SpinLinear(SpinLinearConfig(shells=shells)), values)
    spins = unit_vectors(3, count, lattice.num_sites)
    return model, Samples(spins, energies(lattice, model, spins))


def test_least_squares_finds_a_linear_model():
    lattice = SquareLattice((4, 4))
    model, samples = quadratic_samples(lattice, 50)
    found = fit_linear(lattice, samples, lattice.shells[:3])
    np.testing.assert_allclose(found.couplings, model.couplings, rtol=1e-9)
    np.testing.assert_allclose(found.offset, model.offset, rtol=1e-9)
    assert mean_squared_error(lattice, found, samples, 0.1) < 1e-20


def test_too_few_configurations_are_refused():
    lattice = SquareLattice((4, 4))
    with pytest.raises(UserError, match="cannot fit"):
        fit_linear(lattice, quadratic_samples(lattice, 3)[1], lattice.shells[:3])


def test_layers_that_are_added_lower_the_error():
    """The target is a transformer of one layer, which the linear model cannot express."""
    lattice = SquareLattice((3, 3))
    config = SpinTransformerConfig(num_layers=1, shells=(1, 2), initial_scale=0.5)
    target = SpinTransformer(config, key=jax.random.key(3))
    target = eqx.tree_at(lambda m: m.couplings, target, jnp.array([0.3, -0.2]))
    spins = unit_vectors(4, 200, 9)
    samples = Samples(spins, energies(lattice, target, spins))
    steps: list[int] = []
    fit = FitConfig(num_layers=1, shells=(1, 2), steps=300, learning_rate=0.02)
    models = fit_transformer(lattice, samples, 1.0, fit, progress=lambda done, total, what: steps.append(done))
    errors = [mean_squared_error(lattice, model, samples, 1.0) for model in models]
    assert [model.config.num_layers for model in models] == [0, 1] and steps == [100, 200, 300]
    assert errors[1] < 0.7 * errors[0]


def test_kept_configurations_have_their_own_free_energies():
    simulation = Simulation(CONFIG_THREE)
    simulation.run(10)
    samples = samples_of(CONFIG_THREE, simulation.trace, 0.2)
    assert samples.spins.shape == (8, 9, 3)  # of five kept ones of two chains, the first left out
    exact = DoubleExchange.of(THREE)
    expected = [exact.free_energy(jnp.asarray(spins), at(0.2)) for spins in samples.spins]
    np.testing.assert_allclose(samples.free_energy, expected, rtol=1e-12)
    fitted, held_out = split_runs([(CONFIG_THREE, simulation.trace)], 0.0)
    np.testing.assert_array_equal(held_out.spins, simulation.trace.kept[-1])
    assert len(fitted.free_energy) == 8


def test_time_blocks_do_not_overlap():
    splits = time_blocks(20, 5)
    assert len(splits) == 5
    for fitted, held_out in splits:
        assert not set(fitted) & set(held_out) and len(fitted) + len(held_out) == 20
        assert held_out.max() - held_out.min() == len(held_out) - 1


def test_specific_heat_is_the_derivative_of_the_energy():
    """Of two spin configurations with the same probability the exact average is known: heat alone, then fluctuation too."""
    trace = Simulation(CONFIG_THREE).trace
    values = np.zeros((200, 2, len(TRACED)))
    rng = np.random.default_rng(0)
    values[:, :, TRACED.index("energy")] = rng.choice([-1.0, 1.0], (200, 2))
    values[:, :, TRACED.index("heat")] = 0.5
    summary = summarize(CONFIG_THREE, trace._replace(values=values), 0.0)
    energy = values[:, :, TRACED.index("energy")]
    assert summary.specific_heat.value == pytest.approx((energy.var() + 0.5) / (0.2**2 * 9))
    assert 0 < summary.specific_heat.error < 0.3


def test_correlations_of_a_run(tmp_path):
    simulation = run_folder(tmp_path, CONFIG_THREE, 12)
    found = correlations(THREE.lattice, simulation.trace, 0.0)
    np.testing.assert_allclose(found.structure_factor, structure_factor(THREE.lattice, simulation.trace.kept).mean(axis=(0, 1)))
    np.testing.assert_allclose(found.structure_factor.sum(), 9)
    np.testing.assert_allclose(found.correlation[0], 1)
    assert (found.correlation_error[1:] > 0).all()


def test_scan_goes_from_hot_to_cold_and_is_resumed(tmp_path):
    done: list[tuple[int, int]] = []
    folders = scan_folder(tmp_path, CONFIG_THREE, [0.2, 0.21], 2, progress=lambda a, b, note: done.append((a, b)))
    assert [folder.name for folder in folders] == ["T0.21", "T0.2"] and done[-1] == (4, 4)
    config, trace, spins = load_chain(folders[0])
    assert config.temperature == 0.21
    first = Simulation(CONFIG_THREE.model_copy(update={"temperature": 0.2}), spins=spins)
    first.run(2)
    np.testing.assert_array_equal(first.trace.values, load_chain(folders[1])[1].values)
    longer = scan_folder(tmp_path, CONFIG_THREE, [0.2, 0.21], 2)
    assert longer == folders and len(load_chain(folders[0])[1].values) == len(trace.values)


@pytest.mark.parametrize("temperatures", [[], [0.1, 0.1], [0.1, 0.0], [-0.1]])
def test_scans_without_meaning_are_refused(tmp_path, temperatures):
    with pytest.raises(UserError, match="positive temperatures"):
        scan_folder(tmp_path, CONFIG_THREE, temperatures, 2)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": -0.1}, {"num_chains": 0}, {"start": "cold"}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValidationError):
        SimulationConfig(**{"temperature": 0.1, **wrong})


def test_blocks_larger_than_the_lattice_are_refused():
    with pytest.raises(UserError, match="does not fit"):
        SimulationConfig(temperature=0.1, model=THREE, block=4)


def test_spins_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="shape"):
        Simulation(CONFIG_THREE, spins=unit_vectors(0, 2, 16))
    with pytest.raises(UserError, match="unit vectors"):
        Simulation(CONFIG_THREE, spins=2 * unit_vectors(0, 2, 9))


def test_a_model_of_too_many_shells_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="no sites at squared distance"):
        Simulation(CONFIG_THREE, SpinLinear(SpinLinearConfig()))


def test_runs_of_other_settings_and_damaged_ones_are_refused(tmp_path):
    run_folder(tmp_path, CONFIG_THREE, 1)
    with pytest.raises(UserError, match="other settings"):
        run_folder(tmp_path, CONFIG_THREE.model_copy(update={"seed": 1}), 1)
    with pytest.raises(UserError, match="other settings"):
        run_folder(tmp_path, CONFIG_THREE, 1, model_of_two_shells())
    with pytest.raises(UserError, match="not a lattice run"):
        load_chain(tmp_path / "elsewhere")
    content = (tmp_path / CHAIN).read_bytes()
    (tmp_path / CHAIN).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_chain(tmp_path)


def test_short_runs_and_wrong_burn_in_are_refused():
    simulation = Simulation(CONFIG_THREE)
    simulation.run(1)
    with pytest.raises(UserError, match="too short"):
        summarize(CONFIG_THREE, simulation.trace)
    with pytest.raises(UserError, match="burn-in"):
        series(simulation.trace, "energy", 1.0)
    with pytest.raises(UserError, match="kept"):
        correlations(THREE.lattice, simulation.trace)


def test_an_interrupted_run_is_on_disk(tmp_path):
    def stop(done: int, total: int, note: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_folder(tmp_path, CONFIG_THREE, 10, progress=stop)
    assert len(load_chain(tmp_path)[1].values) == 3


def test_effective_models_are_kept_bit_for_bit(tmp_path):
    model = SpinTransformer(SpinTransformerConfig(num_layers=2), key=jax.random.key(1))
    save_effective(tmp_path / "model", model, {"seed": 3})
    loaded, metadata = load_effective(tmp_path / "model")
    assert metadata == {"seed": 3} and loaded.config == model.config
    np.testing.assert_array_equal(loaded.weights, model.weights)
    linear = model_of_two_shells()
    save_effective(tmp_path / "linear", linear, {})
    np.testing.assert_array_equal(load_effective(tmp_path / "linear")[0].couplings, linear.couplings)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_damaged_models_are_refused(tmp_path, file):
    save_effective(tmp_path, model_of_two_shells(), {})
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-9] + b"000000000")
    with pytest.raises(UserError, match="damaged"):
        load_effective(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no effective model"):
        load_effective(tmp_path)


def test_saving_keeps_the_earlier_state_where_the_disk_refuses(tmp_path):
    simulation = run_folder(tmp_path / "run", CONFIG_THREE, 1)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_simulation(blocked, simulation, effective=None)
