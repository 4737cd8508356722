"""Whole runs: conservation, temperature, periodic cells, constraints, and what ends a run."""

import ase
import ase.units
import numpy as np
import pytest

from equiform.deploy.ase import EquiformCalculator
from equiform.errors import UserError
from equiform.simulate.md.dynamics import MDConfig, run_md
from equiform.simulate.relax import relax


@pytest.fixture
def relaxed(cluster, predictor):
    return relax(predictor(), cluster, optimizer="BFGS", fmax=1e-4).atoms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nve_keeps_the_energy(relaxed, predictor, dtype):
    config = MDConfig(temperature=300, steps=20_000)
    summary = run_md(predictor(dtype), relaxed, config).summary
    # Asked of the product: 1e-4. Rounding in float32 and the integrator's own fluctuation stay far below.
    assert abs(summary["energy_drift_eV_per_atom_per_ps"]) < 3e-6
    assert summary["energy_std_eV_per_atom"] < 1e-3
    assert summary["neighbor_list_rebuilds"] == 0
    assert summary["compilations"] == 1
    assert summary["time_ps"] == pytest.approx(10)
    # A relaxed structure gives half of its kinetic energy away.
    assert 130 < summary["temperature_K"] < 200


def test_the_energy_fluctuates_with_the_square_of_the_time_step(relaxed, predictor):
    short, long = (
        run_md(predictor(), relaxed, MDConfig(temperature=300, steps=2000 // step, timestep=step)).summary for step in (1, 4)
    )
    ratio = long["energy_std_eV_per_atom"] / short["energy_std_eV_per_atom"]
    assert ratio == pytest.approx(16, rel=0.25)


def test_langevin_gives_an_ideal_gas_its_temperature(predictor):
    grid = 20.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)
    gas = ase.Atoms("C32O32", grid)
    config = MDConfig(ensemble="nvt", temperature=350, steps=10_000, timestep=2, friction=0.02, seed=3, skin=8)
    result = run_md(predictor("float32"), gas, config)
    # Relative error of the mean: √(2/3N) · √(2 τ/t) with the kinetic energy's τ = 1/2γ = 25 fs, t = 20 ps.
    error = 350 * np.sqrt(2 / 192) * np.sqrt(50 / 20_000)
    assert result.summary["temperature_K"] == pytest.approx(350, abs=3 * error)
    # The canonical spread of the temperature of 192 degrees of freedom.
    assert result.summary["temperature_std_K"] == pytest.approx(350 * np.sqrt(2 / 192), rel=0.1)


def test_langevin_samples_positions_and_velocities_of_a_harmonic_molecule(relaxed, predictor, tmp_path):
    temperature, log = 20.0, tmp_path / "log.csv"
    config = MDConfig(ensemble="nvt", temperature=temperature, steps=60_000, timestep=1, friction=0.02, log_interval=5)
    result = run_md(predictor(), relaxed, config, log=log)
    rows = np.genfromtxt(log, delimiter=",", names=True)[2000:]
    minimum = relaxed.get_potential_energy()
    # ½ kT for each of the 15 vibrations; 0.37/√(independent samples) ≈ 2 % error, 1 % anharmonicity.
    expected = 15 / 2 * ase.units.kB * temperature
    assert (rows["potential_energy_eV"] - minimum).mean() == pytest.approx(expected, rel=0.06)
    assert result.summary["temperature_K"] == pytest.approx(temperature, rel=0.04)
    assert result.summary["energy_drift_eV_per_atom_per_ps"] is None


def test_a_seed_gives_a_trajectory_and_another_seed_another_one(cluster, predictor):
    def end(seed: int) -> np.ndarray:
        config = MDConfig(ensemble="nvt", temperature=300, steps=50, seed=seed)
        return run_md(predictor("float32"), cluster, config).atoms.positions

    assert np.array_equal(end(1), end(1))
    assert not np.allclose(end(1), end(2), atol=1e-3)


@pytest.mark.parametrize("pbc", [True, (True, True, False)])
def test_a_periodic_run_with_many_rebuilds_is_the_run_with_a_fresh_list_at_every_step(crystal, predictor, pbc):
    from ase.md.verlet import VelocityVerlet

    crystal.pbc = pbc
    model = predictor(cutoff=2.2)
    config = MDConfig(temperature=3000, steps=60, timestep=1, skin=0.15)
    result = run_md(model, crystal, config)
    assert result.summary["neighbor_list_rebuilds"] >= 5
    assert result.summary["compilations"] <= 3

    start = run_md(model, crystal, MDConfig(temperature=3000, steps=0))
    crystal.set_velocities(start.atoms.get_velocities())
    crystal.calc = EquiformCalculator(model)
    VelocityVerlet(crystal, ase.units.fs).run(60)
    # The trajectory is chaotic: 1e-15 grows by a few powers of ten.
    assert np.allclose(result.atoms.positions, crystal.positions, rtol=0, atol=1e-6)
    assert result.atoms.get_potential_energy() == pytest.approx(crystal.get_potential_energy(), abs=1e-6)


def test_float32_conserves_the_energy_of_a_crystal_through_wrapping(crystal, predictor):
    config = MDConfig(temperature=600, steps=4000, skin=0.4)
    summary = run_md(predictor("float32", cutoff=2.2), crystal, config).summary
    assert summary["neighbor_list_rebuilds"] > 0
    assert abs(summary["energy_drift_eV_per_atom_per_ps"]) < 3e-5


def test_momentum_and_angular_momentum_start_at_zero_and_stay(relaxed, predictor):
    atoms = run_md(predictor("float32"), relaxed, MDConfig(temperature=500, steps=2000)).atoms
    scale = np.abs(atoms.get_momenta()).sum()
    assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-5 * scale
    arms = atoms.positions - atoms.get_center_of_mass()
    assert np.abs(np.cross(arms, atoms.get_momenta()).sum(0)).max() < 1e-5 * scale


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_fixed_atoms_do_not_move(cluster, predictor, ensemble):
    from ase.constraints import FixAtoms

    cluster.set_constraint(FixAtoms([1, 4]))
    end = run_md(predictor(), cluster, MDConfig(ensemble=ensemble, temperature=300, steps=100)).atoms
    assert np.array_equal(end.positions[[1, 4]], cluster.positions[[1, 4]])
    assert np.abs(end.positions - cluster.positions)[[0, 2, 3, 5, 6]].max() > 1e-2
    assert isinstance(end.constraints[0], FixAtoms)


def test_nve_goes_on_from_the_velocities_of_the_structure(relaxed, predictor):
    first = run_md(predictor(), relaxed, MDConfig(temperature=300, steps=100))
    second = run_md(predictor(), first.atoms, MDConfig(steps=100))
    whole = run_md(predictor(), relaxed, MDConfig(temperature=300, steps=200))
    assert np.allclose(second.atoms.positions, whole.atoms.positions, rtol=0, atol=1e-9)


def test_the_list_and_the_room_for_edges_grow_with_a_contracting_gas(predictor):
    rng = np.random.default_rng(0)
    sites = 2.6 * np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)
    gas = ase.Atoms("C64", sites + rng.normal(size=(64, 3)) * 0.05)
    config = MDConfig(ensemble="nvt", temperature=300, steps=600, friction=0.1, skin=0.5, stop_when_apart=False)
    result = run_md(predictor(cutoff=3.0), gas, config)
    energy = predictor(cutoff=3.0).energy(result.atoms)
    assert result.atoms.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    assert 2 <= result.summary["compilations"] <= 8


def _fails(predictor, atoms, config, match, **files):
    with pytest.raises(UserError, match=match):
        run_md(predictor, atoms, config, **files)


def test_an_explosion_names_the_step_and_keeps_the_last_sound_frame(relaxed, predictor, tmp_path):
    from ase.io import read

    path = tmp_path / "run.extxyz"
    config = MDConfig(temperature=3000, steps=2000, timestep=30, frame_interval=1000, max_temperature=1e9)
    _fails(predictor("float32"), relaxed, config, r"exploded at step \d+ .*last valid step", trajectory=path)
    frames = read(path, ":")
    assert frames[0].info["step"] == 0
    assert len(frames) == 2
    assert np.isfinite(frames[-1].get_forces()).all()
    assert np.linalg.norm(frames[-1].get_forces(), axis=1).max() <= 100


def test_numbers_that_are_not_finite_end_the_run(cluster, predictor):
    broken = predictor(depth=float("nan"))
    _fails(broken, cluster, MDConfig(temperature=300, steps=10), "step 0 .*not finite.*no step was valid")


def test_heat_ends_the_run(relaxed, predictor):
    config = MDConfig(temperature=300, steps=10, max_temperature=200)
    _fails(predictor(), relaxed, config, "300 K, above the limit of 200 K")


def test_an_atom_that_flies_off_ends_the_run(predictor):
    pair = ase.Atoms("CO", [[0, 0, 0], [1.2, 0, 0]])
    pair.set_velocities([[-2, 0, 0], [2, 0, 0]])
    _fails(predictor(), pair, MDConfig(steps=20_000), "flown off")
    lenient = MDConfig(steps=2000, stop_when_apart=False)
    assert run_md(predictor(), pair, lenient).atoms.get_distance(0, 1) > 10


def test_what_cannot_be_simulated_is_refused_with_a_reason(cluster, crystal, predictor, tmp_path):
    from ase.constraints import FixAtoms, FixBondLength

    model, config = predictor(), MDConfig(temperature=300, steps=1)
    _fails(model, ase.Atoms("C"), config, "single atom")
    _fails(model, ase.Atoms(), config, "no atoms")
    _fails(model, ase.Atoms("C", cell=[3, 3, 3], pbc=True), config, "no internal degree of freedom")
    _fails(model, ase.Atoms("CC", [[0, 0, 0], [1, 0, 0]], pbc=True), config, "zero or parallel")
    _fails(model, ase.Atoms("CC", [[0, 0, 0], [1, 0, 0]], cell=[3, 3, 0], pbc=True), config, "zero or parallel")
    _fails(model, ase.Atoms("CU", [[0, 0, 0], [1, 0, 0]]), config, "has U, but the model knows only H, C, O")
    _fails(model, ase.Atoms("CC", [[0, 0, 0], [0, 0, 0.01]]), config, "overlapping atoms: ")
    _fails(model, ase.Atoms("CC", [[0, 0, 0], [np.nan, 0, 1]]), config, "not finite")
    _fails(model, cluster, MDConfig(steps=1), "no velocities; give a temperature")
    _fails(model, cluster, MDConfig(ensemble="nvt", steps=1), "NVT needs a temperature")
    cluster.set_constraint(FixBondLength(0, 1))
    _fails(model, cluster, config, "FixBondLength")
    cluster.set_constraint(FixAtoms(range(7)))
    _fails(model, cluster, config, "all 7 atoms")


def test_files_are_checked_before_anything_is_computed(cluster, predictor, tmp_path):
    model, config = predictor(), MDConfig(temperature=300, steps=1)
    existing = tmp_path / "old.extxyz"
    existing.write_text("precious")
    _fails(model, cluster, config, "exists already.*--overwrite", trajectory=existing)
    _fails(model, cluster, config, "exists already", log=existing)
    _fails(model, cluster, config, "exists already", restart=existing)
    assert existing.read_text() == "precious"
    _fails(model, cluster, config, "does not exist; create it", trajectory=tmp_path / "no" / "run.extxyz")
    _fails(model, cluster, config, "is a folder", log=tmp_path)
    _fails(model, cluster, config, r"named \*.extxyz", trajectory=tmp_path / "run.pdb")
    same = tmp_path / "same.xyz"
    _fails(model, cluster, config, "different files", trajectory=same, log=same)
    run_md(model, cluster, config, trajectory=existing, overwrite=True)
    assert "precious" not in existing.read_text()
