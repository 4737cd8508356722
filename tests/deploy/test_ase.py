"""The ASE calculator: conventions, few compilations, and an NVE run with ASE's own integrator."""

import ase
import ase.units
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from equiform.deploy.ase import EquiformCalculator, calculator
from equiform.deploy.predictor import Predictor
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig, ToyModel


def test_properties_follow_the_conventions_of_ase(crystal, predictor):
    model = predictor(cutoff=2.2)
    crystal.calc = calculator(model)
    prediction = model.predict_one(crystal)
    assert crystal.get_potential_energy() == prediction.energy
    assert crystal.get_potential_energy(force_consistent=True) == prediction.energy
    assert np.array_equal(crystal.get_forces(), prediction.forces)
    voigt = prediction.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    assert np.allclose(crystal.get_stress(), voigt, atol=1e-12)


def test_the_stress_is_the_derivative_that_ase_computes(crystal, predictor):
    from ase.calculators.fd import calculate_numerical_stress

    crystal.rattle(0.05, seed=1)
    crystal.calc = calculator(predictor(cutoff=2.2))
    numerical = calculate_numerical_stress(crystal, eps=1e-5)
    assert np.allclose(crystal.get_stress(), numerical, rtol=0, atol=1e-7)


def test_a_molecule_has_no_stress(cluster, predictor):
    cluster.calc = calculator(predictor())
    with pytest.raises(PropertyNotImplementedError):
        cluster.get_stress()
    assert np.isfinite(cluster.get_potential_energy())
    cluster.set_cell([10, 10, 10])  # a box around it does not make it periodic
    with pytest.raises(PropertyNotImplementedError):
        cluster.get_stress()


def test_results_are_computed_once_and_again_after_a_move(cluster, predictor):
    cluster.calc = calculator(predictor(cutoff=4.01))  # which no other test has compiled
    first = cluster.get_potential_energy()
    assert cluster.get_potential_energy() == first
    cluster.positions[0, 0] += 0.1
    assert cluster.get_potential_energy() != first
    assert cluster.calc.compilations == 1


def test_growth_is_compiled_a_few_times_only(predictor):
    gas = EquiformCalculator(predictor("float32", cutoff=2.5))
    rng = np.random.default_rng(0)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3) * 1.4
    seen = []
    for count in range(8, 65, 2):
        atoms = ase.Atoms(f"C{count}", sites[:count] + 0.05 * rng.normal(size=(count, 3)))
        atoms.calc = gas
        atoms.get_forces()
        seen.append(gas.compilations)
    # A factor of 8 in atoms, somewhat more in edges, by steps of a quarter: not one for each of the 29 sizes.
    assert 4 <= seen[-1] <= 16
    for count in range(64, 30, -5):
        atoms = ase.Atoms(f"C{count}", sites[:count])
        atoms.calc = gas
        atoms.get_forces()
    assert gas.compilations == seen[-1]


def test_nve_with_the_integrator_of_ase_keeps_the_energy(cluster, predictor):
    from ase.md.verlet import VelocityVerlet
    from ase.optimize import BFGS

    cluster.calc = calculator(predictor("float32", cutoff=4.02))  # which no other test has compiled
    BFGS(cluster, logfile=None).run(fmax=0.01)
    rng = np.random.default_rng(0)
    velocities = rng.normal(size=(7, 3)) * np.sqrt(ase.units.kB * 300 / cluster.get_masses())[:, None]
    cluster.set_velocities(velocities)
    energies = []
    run = VelocityVerlet(cluster, 0.5 * ase.units.fs)
    run.attach(lambda: energies.append(cluster.get_total_energy()))
    run.run(300)
    assert np.ptp(energies) / 7 < 2e-4
    assert cluster.calc.compilations == 1


def test_new_tags_are_a_change(cluster):
    cluster.set_tags(0)
    cluster.calc = calculator(Predictor(Potential(ToyModel(ToyConfig(num_tags=2))), dtype="float64"))
    before = cluster.get_potential_energy()
    cluster.set_tags(1)
    assert cluster.get_potential_energy() == pytest.approx(2 * before, abs=1e-10)
