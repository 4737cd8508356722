"""Energies and forces that do not belong together are said, with the numbers of the structures."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equiform.data.config import DataConfig
from equiform.data.formats.reading import label_structures
from equiform.data.pipeline.belonging import energy_force_slope, frame_warning, free_energy_warning
from equiform.data.pipeline.inspect import inspect
from equiform.data.prepare import prepare
from tests.data.samples import labelled, molecules


def turned(structures, chosen):
    """Forces of some structures turned by 40°, as where positions are written in another orientation."""
    turn = Rotation.from_rotvec([0, 0.4, 0.5]).as_matrix()
    for k in chosen:
        structures[k].calc.results["forces"] = structures[k].calc.results["forces"] @ turn.T
    return structures


def test_forces_in_another_frame_have_a_net_torque():
    structures = turned(labelled(molecules(6)), [4])
    reading = label_structures(structures)
    line = frame_warning(reading.structures, reading.labels, reading.names)
    assert "1 of 6 structures have a net torque" in line and "structure 4" in line
    assert any("net torque" in line for line in inspect(reading).warnings)


def test_sound_forces_noise_and_crystals_are_silent():
    structures = labelled(molecules(6))
    for atoms in structures:
        noise = 0.003 * np.random.default_rng(0).normal(size=(len(atoms), 3))  # of a grid
        atoms.calc.results["forces"] = atoms.calc.results["forces"] + noise
    reading = label_structures(structures)
    assert frame_warning(reading.structures, reading.labels, reading.names) is None
    for atoms in turned(structures, [0]):
        atoms.set_cell([20, 20, 20])
        atoms.pbc = True
    reading = label_structures(structures)
    assert frame_warning(reading.structures, reading.labels, reading.names) is None


def test_missing_forces_leave_a_net_force():
    structures = labelled(molecules(6))
    structures[2].calc.results["forces"] = structures[2].calc.results["forces"] + [0, 0, 1.0]
    reading = label_structures(structures)
    assert "1 of 6 structures have a net force" in frame_warning(reading.structures, reading.labels, reading.names)


def smeared(number):
    """Energies extrapolated to zero smearing, which differ from what the forces derive from by a part of the binding."""
    structures = labelled(molecules(number))
    for atoms in structures:
        free = atoms.calc.results["energy"]
        mean = float(np.mean([a.calc.results["energy"] for a in structures]))
        atoms.calc.results.update(free_energy=free, energy=free + 0.1 * (free - mean) + 0.02)
    return structures


def test_the_energy_that_forces_derive_from_is_recommended_with_the_evidence():
    reading = label_structures(smeared(30))
    slope = energy_force_slope(reading.structures, reading.labels)
    line = free_energy_warning(reading.structures, reading.labels, reading.free_energies, slope, reading.names)
    assert line.endswith("set data.energy_key=free_energy") and "with 'free_energy'" in line
    assert any("energy_key=free_energy" in line for line in inspect(reading).warnings)
    chosen = label_structures(smeared(30), DataConfig(train="x", energy_key="free_energy"))
    assert not any("energy_key=free_energy" in line for line in inspect(chosen).warnings)


def test_equal_energies_are_silent():
    structures = labelled(molecules(12))
    for atoms in structures:
        atoms.calc.results["free_energy"] = atoms.calc.results["energy"]
    assert not any("smearing" in line for line in inspect(label_structures(structures)).warnings)


@pytest.mark.parametrize("validation", [0.5, "b.xyz"])
def test_outliers_of_every_part_are_looked_for_with_the_numbers_of_the_file(tmp_path, validation):
    from ase.io import write

    first, second = labelled(molecules(24)), labelled(molecules(24, seed=1))
    for structures in (first, second):
        structures[7].calc.results["energy"] += 90.0
    lone = first[0].copy()[:1]  # An isolated atom in front shifts places, not numbers.
    lone.positions[:] = 0
    lone.calc = type(first[0].calc)(lone, energy=-1029.0)
    write(tmp_path / "a.xyz", [lone, *first])
    write(tmp_path / "b.xyz", second)
    chosen = str(tmp_path / validation) if isinstance(validation, str) else validation
    for seed in range(2):
        config = DataConfig(train=str(tmp_path / "a.xyz"), validation=chosen, seed=seed, reference_energies="none")
        warnings = prepare(config, 2.0).report.warnings
        assert any("energies are far from the rest: structure 8" in line for line in warnings)
        if isinstance(validation, str):
            assert any(line.startswith("validation: 1 energies are far from the rest: structure 7") for line in warnings)
