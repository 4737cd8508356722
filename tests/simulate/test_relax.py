"""Relaxations end in minima of the energy, cells included."""

import ase
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from equiform.errors import UserError
from equiform.simulate.relax import relax


@pytest.mark.parametrize("optimizer", ["FIRE", "LBFGS", "BFGS"])
def test_a_pair_relaxes_to_the_minimum_of_its_potential(predictor, optimizer):
    r = np.linspace(1.0, 1.4, 400_001)
    energy = ((1 - np.exp(-1.5 * (r - 1.2))) ** 2 - 1) * (1 - (r / 4) ** 2) ** 3
    start = ase.Atoms("CO", [[0, 0, 0], [1.5, 0, 0]])
    result = relax(predictor(), start, optimizer=optimizer, fmax=1e-5)
    assert result.converged
    assert result.atoms.get_distance(0, 1) == pytest.approx(r[energy.argmin()], abs=1e-4)
    assert result.atoms.get_potential_energy() == pytest.approx(energy.min() - 1029.5 - 2041.25, abs=1e-8)
    assert start.get_distance(0, 1) == 1.5


def test_a_relaxed_cell_has_no_stress(predictor):
    small = bulk("C", "fcc", a=1.32)
    small.set_cell(small.cell.array @ [[1, 0, 0], [0.02, 1, 0], [0, 0.01, 1]], scale_atoms=True)
    result = relax(predictor(cutoff=1.6), small, optimizer="LBFGS", cell=True, fmax=1e-3)
    assert result.converged and result.summary["energy_eV"] < result.summary["initial_energy_eV"]
    assert result.summary["compilations"] <= 2
    # What is below fmax is the derivative by strain, stress times volume.
    assert np.abs(result.atoms.get_stress()).max() < 1e-3 / result.summary["volume_A3"]
    assert result.summary["volume_A3"] != pytest.approx(small.get_volume(), rel=1e-3)


@pytest.mark.slow
def test_a_cell_that_flew_apart_is_not_relaxed(predictor):
    # Without forces or stress at its end, but above its start: six times the volume, no atom with a neighbour. The energy has a
    # negative curvature where it starts, with which BFGS goes uphill.
    small = bulk("C", "fcc", a=1.75)
    small.set_cell(small.cell.array @ [[1, 0, 0], [0.02, 1, 0], [0, 0.01, 1]], scale_atoms=True)
    result = relax(predictor(cutoff=2.2), small, optimizer="LBFGS", cell=True, fmax=1e-3)
    assert not result.converged and result.summary["above_start_eV"] == pytest.approx(2.013, abs=1e-3)
    assert result.summary["max_force_eV_per_A"] < 1e-3


@pytest.mark.parametrize("suffix", [".traj", ".extxyz"])
def test_every_step_is_in_the_trajectory(cluster, predictor, tmp_path, suffix):
    path, seen = tmp_path / f"relax{suffix}", []
    result = relax(predictor(), cluster, trajectory=path, fmax=0.05, progress=seen.append)
    frames = read(path, ":")
    assert len(frames) == len(seen) == result.summary["steps"] + 1
    assert np.allclose([f.get_potential_energy() for f in frames], [p.energy for p in seen], atol=1e-6)
    assert seen[-1].max_force < 0.05
    with pytest.raises(UserError, match="exists already"):
        relax(predictor(), cluster, trajectory=path)
    relax(predictor(), cluster, trajectory=path, fmax=10.0, overwrite=True)
    assert len(read(path, ":")) == 1


def test_fixed_atoms_stay(cluster, predictor):
    from ase.constraints import FixAtoms

    cluster.set_constraint(FixAtoms([0]))
    result = relax(predictor(), cluster, fmax=0.02)
    assert result.converged
    assert np.array_equal(result.atoms.positions[0], cluster.positions[0])


def test_too_few_steps_are_said(cluster, predictor):
    cluster.rattle(0.1, seed=0)
    result = relax(predictor(), cluster, steps=2)
    assert not result.converged
    assert result.summary["steps"] == 2


def test_what_cannot_be_relaxed_is_refused(cluster, predictor):
    with pytest.raises(UserError, match="not periodic along all three"):
        relax(predictor(), cluster, cell=True)
    with pytest.raises(UserError, match="fmax must be positive"):
        relax(predictor(), cluster, fmax=0.0)
    with pytest.raises(UserError, match="exploded at step 0"):
        relax(predictor(), ase.Atoms("CC", [[0, 0, 0], [0, 0, 0.1]]), max_force=10.0)
    with pytest.raises(UserError, match="has U"):
        relax(predictor(), ase.Atoms("U"))
