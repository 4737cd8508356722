"""LAMMPS: energy, forces and virial of the ASE calculator, dynamics, barostats, growth, failures and bad input."""

from pathlib import Path

import ase
import ase.units
import numpy as np
import pytest
from ase.build import fcc100

from equiform.deploy.ase import calculator
from equiform.deploy.lammps import attach
from equiform.deploy.lammps_input import split
from equiform.deploy.predictor import Predictor
from equiform.errors import UserError
from equiform.tasks.energy import Potential
from tests.deploy.lammps_cases import instance, positions, results, standard, started
from tests.toy import ToyConfig, ToyModel

TYPES = ("O", "H", "C")  # neither in the order of the numbers nor of the structures


def skewed() -> ase.Atoms:
    """Each height of the cell is less than the toy's cutoff of 4 Å."""
    cell = [[2.9, 0, 0], [-0.9, 3.1, 0], [0.8, 0.7, 2.8]]
    return ase.Atoms("CHO", [[0, 0, 0], [1.4, 1.5, 0.2], [0.1, 1.4, 1.5]], cell=cell, pbc=True)


def slab() -> ase.Atoms:
    atoms = fcc100("C", (2, 2, 2), a=1.9, vacuum=3.0)
    atoms.set_chemical_symbols("C4O3H")
    atoms.rattle(0.05, seed=3)
    return atoms


def molecule() -> ase.Atoms:
    return ase.Atoms("COH2", [[0, 0, 0], [0, 0, 1.2], [0, 0.9, -0.6], [0.1, -0.9, -0.6]])


@pytest.mark.parametrize("units", ["metal", "real"])
@pytest.mark.parametrize("case", [skewed, slab, molecule])
def test_energy_forces_and_virial_are_those_of_the_ase_calculator(case, units, predictor):
    atoms = standard(case()) if case is skewed else case()
    for dtype, tolerance in (("float64", 1e-10), ("float32", 5e-5)):
        if (units, dtype) == ("real", "float32"):
            continue
        model = predictor(dtype)
        lmp = instance(atoms, TYPES, units)
        coupling = attach(lmp, model, types=",".join(TYPES))
        lmp.command("run 0")
        energy, forces, virial = results(lmp)
        lmp.close()
        atoms.calc = calculator(model)
        assert coupling.calls == 1
        assert energy == pytest.approx(atoms.get_potential_energy(), rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=tolerance, atol=tolerance)
        if atoms.pbc.any():
            expected = -atoms.get_volume() * atoms.get_stress(voigt=False)
        else:
            expected = atoms.positions.T @ atoms.get_forces()
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(virial, expected, rtol=tolerance, atol=5 * tolerance)


def test_the_virial_is_the_derivative_of_the_energy_with_respect_to_strain(predictor):
    step, atoms = 1e-5, standard(skewed())

    def energy(line: str) -> tuple[float, np.ndarray]:
        lmp = instance(atoms, TYPES)
        attach(lmp, model, types=TYPES)
        if line:
            lmp.command(f"change_box all {line} remap units box")
        lmp.command("run 0")
        found = results(lmp)
        lmp.close()
        return found[0], found[2]

    model = predictor()
    virial = energy("")[1]
    _, b, c = atoms.cell.array
    lines = {  # of a strain e: x += e x, z += e z, x += e y, y += e z
        (0, 0): lambda e: f"x scale {1 + e:.17g} xy delta {e * b[0]:.17g} xz delta {e * c[0]:.17g}",
        (2, 2): lambda e: f"z scale {1 + e:.17g}",
        (0, 1): lambda e: f"xy delta {e * b[1]:.17g} xz delta {e * c[1]:.17g}",
        (1, 2): lambda e: f"yz delta {e * c[2]:.17g}",
    }
    for (i, j), line in lines.items():
        ends = [energy(line(e))[0] for e in (step, -step)]
        assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(virial[i, j], abs=1e-5 * np.abs(virial).max())


def test_dynamics_follow_the_velocity_verlet_of_ase(crystal, predictor):
    from ase.md.verlet import VelocityVerlet

    atoms = standard(crystal)
    rng = np.random.default_rng(0)
    velocities = rng.normal(size=(len(atoms), 3)) * np.sqrt(ase.units.kB * 300 / atoms.get_masses())[:, None]
    velocities -= velocities.mean(axis=0)
    per_ps = 1.0364269e-4**-0.5  # ASE's unit of time by LAMMPS' constants, which differ in the eighth digit
    lmp = instance(atoms, ["C"])
    lmp.scatter_atoms("v", 1, 3, np.ctypeslib.as_ctypes((velocities * per_ps).ravel()))
    model = predictor(cutoff=2.2)
    coupling = attach(lmp, model, types="C")
    lmp.commands_string("fix move all nve\ntimestep 0.0005\nneighbor 0.3 bin")
    reference = atoms.copy()
    reference.calc = calculator(model)
    reference.set_velocities(velocities)
    lmp.command("run 100")
    VelocityVerlet(reference, 0.0005 * per_ps).run(100)
    shift = positions(lmp) - reference.positions
    shift -= np.round(shift @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array
    assert np.abs(reference.positions - atoms.positions).max() > 0.05  # they moved
    assert np.abs(shift).max() < 1e-8
    assert coupling.predictor.compilations <= 2
    lmp.close()


def test_growth_beyond_the_capacity_is_compiled_once(predictor):
    atoms = standard(skewed())
    lmp = instance(atoms, TYPES)
    coupling = attach(lmp, predictor(cutoff=3.97), types=TYPES)  # which no other test has compiled
    lmp.command("run 0")
    assert coupling.predictor.compilations == 1
    lmp.command("create_atoms 3 single 1.6 2.6 0.9 units box")
    lmp.command("run 0")
    assert (coupling.predictor.compilations, coupling.calls) == (2, 2)
    lmp.command("run 3")
    assert (coupling.predictor.compilations, coupling.calls) == (2, 6)
    lmp.close()


def test_a_pair_style_beside_the_model_is_added_to_it(predictor):
    atoms, energies = standard(skewed()), []
    for model, zbl in ((True, False), (False, True), (True, True)):
        lmp = instance(atoms, TYPES)
        if zbl:
            lmp.commands_string("pair_style zbl 1.5 2.5\npair_coeff 1 1 8 8\npair_coeff 2 2 1 1\npair_coeff 3 3 6 6")
        if model:
            attach(lmp, predictor(), types=TYPES)
        lmp.command("run 0")
        energies.append(results(lmp)[0])
        lmp.close()
    assert energies[1] > 1
    assert energies[2] == pytest.approx(energies[0] + energies[1], abs=1e-9)


def test_a_failure_of_the_model_ends_the_run_and_raises():
    broken = Predictor(Potential(ToyModel(ToyConfig()), scale=float("nan")), dtype="float64")
    lmp = instance(standard(skewed()), TYPES)
    coupling = attach(lmp, broken, types=TYPES)
    lmp.command("fix move all nve")
    with pytest.raises(Exception, match="the model failed: the model's energy or forces for CHO are not finite"):
        lmp.command("run 100")
    assert lmp.extract_global("ntimestep") < 2 and isinstance(coupling.error, UserError)
    lmp.close()


def test_the_labelmap_says_which_elements_the_types_are(predictor):
    atoms, found = standard(skewed()), []
    for lines, types in (("labelmap atom 1 O 2 H 3 C", None), ("", TYPES)):
        lmp = instance(atoms, TYPES)
        lmp.commands_string(lines)
        attach(lmp, predictor(), types=types)
        lmp.command("run 0")
        found.append(results(lmp)[0])
        lmp.close()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (None, "nobody says which element type 1 is: give --types Si,O"),
        ("O,H", "the input has 3 atom types, but 2 elements"),
        ("O,H,Q", "type 3 is 'Q', which is not a chemical element"),
        ("O,H,Si", "the types have Si, but the model knows only H, C, O"),
    ],
)
def test_types_that_are_missing_or_unknown_are_refused(types, message, predictor):
    lmp = instance(standard(skewed()), TYPES)
    with pytest.raises(UserError, match=message):
        attach(lmp, predictor(), types=types)
    lmp.close()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("units lj\nregion b block 0 4 0 4 0 4\ncreate_box 1 b", "units lj; a model needs units metal"),
        ("units electron\nregion b block 0 4 0 4 0 4\ncreate_box 1 b", "units electron"),
        ("units metal", "there is no simulation box yet"),
        ("units metal\ndimension 2\nregion b block 0 4 0 4 -0.5 0.5\ncreate_box 1 b", "dimension 2"),
    ],
)
def test_inputs_that_a_model_cannot_take_are_refused(lines, message, predictor):
    lmp = started()
    lmp.command("clear")
    lmp.commands_string(lines)
    with pytest.raises(UserError, match=message):
        attach(lmp, predictor(), types="C")
    lmp.close()


def test_atoms_without_identifiers_are_refused(predictor):
    lmp = started()
    lmp.commands_string("clear\nunits metal\natom_modify id no\nregion b block 0 4 0 4 0 4\ncreate_box 1 b\nmass 1 12")
    lmp.command("create_atoms 1 single 1 1 1")
    attach(lmp, predictor(), types="C")
    with pytest.raises(UserError, match="atoms have no identifiers"):
        lmp.command("run 0")
    lmp.close()


def test_models_of_tagged_atoms_are_refused():
    tagged = Predictor(Potential(ToyModel(ToyConfig(num_tags=3))))
    lmp = instance(standard(skewed()), TYPES)
    with pytest.raises(UserError, match="needs a tag for each atom"):
        attach(lmp, tagged, types=TYPES)
    lmp.close()


def test_lost_atoms_end_the_run(predictor):
    lmp = instance(molecule(), TYPES)
    attach(lmp, predictor(), types=TYPES)
    lmp.commands_string(
        "fix move all nve\nthermo_modify lost ignore\nneighbor 0.1 bin\nneigh_modify every 1 delay 0\ntimestep 0.1"
    )
    lmp.command("velocity all set 100 0 0")
    with pytest.raises(Exception, match=r"atoms are lost: \d of 4 are left"):
        lmp.command("run 100")
    lmp.close()


def test_a_box_without_volume_is_one_clear_line():
    lmp = started()
    with pytest.raises(Exception, match="Box bounds are invalid"):
        lmp.commands_string("region b block 0 4 0 4 1 1\ncreate_box 1 b")
    lmp.close()


def test_a_script_is_split_behind_the_line_that_makes_the_fix():
    script = Path("in.lmp")
    head, name, tail = split("units metal\nfix ml all external pf/callback 1 1  # here\nrun 1\n", script)
    assert (head.count("\n"), name, tail) == (2, "ml", "run 1\n")
    with pytest.raises(UserError, match=r"in.lmp does not say where the model is attached; .*write: fix equiform all external"):
        split("units metal\n# fix ml all external pf/callback 1 1\nrun 1\n", script)
    for line in ("fix ml some external pf/callback 1 1", "fix ml all external pf/callback 5 1"):
        with pytest.raises(UserError, match=r"in.lmp, line 2: a model acts on all atoms in each step"):
            split(f"units metal\n{line}\nrun 1\n", script)
