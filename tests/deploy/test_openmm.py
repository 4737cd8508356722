"""OpenMM: the energies of the ASE calculator, wrapping, dynamics, serialisation, and a mixed system of openmm-ml."""

import ase
import numpy as np
import pytest
from ase.build import molecule

from equiform.data.units import ENERGY
from equiform.deploy.ase import calculator
from equiform.errors import UserError
from tests.deploy.conftest import box
from tests.toy import ToyConfig, ToyModel

openmm = pytest.importorskip("openmm", reason="the extra openmm is not installed")
app, unit = pytest.importorskip("openmm.app"), pytest.importorskip("openmm.unit")
KJ_MOL = ENERGY["kJ/mol"]


def topology(atoms: ase.Atoms, residues: int = 1):
    made = app.Topology()
    chain = made.addChain()
    for _ in range(residues):
        residue = made.addResidue("HOH", chain)
        for symbol in atoms.get_chemical_symbols():
            made.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    if atoms.pbc.any():
        made.setPeriodicBoxVectors([openmm.Vec3(*row) * unit.angstrom for row in atoms.cell.array])
    return made


def context(system, positions: np.ndarray, step: float = 0.0005):
    integrator = openmm.VerletIntegrator(step * unit.picosecond)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.setPositions(positions * unit.angstrom)
    return made, integrator


def state(made) -> tuple[float, np.ndarray]:
    found = made.getState(getEnergy=True, getForces=True)
    energy = found.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_MOL
    return energy, found.getForces(asNumpy=True)._value * KJ_MOL / 10


@pytest.mark.parametrize("case", [box, lambda: molecule("CH3CH2OH")], ids=["box", "molecule"])
def test_energy_and_forces_are_those_of_the_ase_calculator(case, predictor):
    from equiform.deploy.openmm import system

    atoms, model = case(), predictor()
    made, _ = context(system(model, topology(atoms)), atoms.positions)
    energy, forces = state(made)
    atoms.calc = calculator(model)
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=1e-10, atol=1e-10)
    if atoms.pbc.any():
        images = np.array([[0, 0, 0], [1, 0, 0], [0, -2, 0], [1, 1, 1], [0, 0, 3]])
        made.setPositions((atoms.positions + images @ atoms.cell.array) * unit.angstrom)
        wrapped = state(made)
        assert wrapped[0] == pytest.approx(energy, abs=1e-10)
        np.testing.assert_allclose(wrapped[1], forces, rtol=0, atol=1e-9)


def test_a_system_survives_xml_with_its_weights(predictor, monkeypatch):
    from equiform.deploy.openmm import system
    from equiform.models import MODELS

    monkeypatch.setitem(MODELS, "toy", (ToyConfig, ToyModel))

    atoms = molecule("H2O")
    original = system(predictor(depth=0.7), topology(atoms))
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(original))
    results = [state(context(made, atoms.positions)[0]) for made in (original, again)]
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_dynamics_keep_the_energy(cluster, predictor):
    from equiform.deploy.openmm import system

    made, integrator = context(system(predictor(), topology(cluster)), cluster.positions, step=0.0002)
    made.setVelocitiesToTemperature(100 * unit.kelvin, 1)
    energies = []
    for _ in range(10):
        integrator.step(10)
        found = made.getState(getEnergy=True)
        whole = found.getPotentialEnergy() + found.getKineticEnergy()
        energies.append(whole.value_in_unit(unit.kilojoule_per_mole) * KJ_MOL / len(cluster))
    assert np.ptp(energies) < 2e-4  # of a Verlet step of 0.2 fs


def test_part_of_a_system_is_the_models_and_the_rest_a_force_fields(predictor):
    mlpotential = pytest.importorskip("openmmml", reason="the extra openmm is not installed").MLPotential
    water = molecule("H2O")
    top = topology(water, residues=2)
    first = list(top.atoms())
    for residue in (0, 3):
        top.addBond(first[residue], first[residue + 1])
        top.addBond(first[residue], first[residue + 2])
    positions = np.concatenate([water.positions, water.positions + np.array([0, 0, 3.2])])
    mm = app.ForceField("tip3p.xml").createSystem(top, nonbondedMethod=app.NoCutoff, rigidWater=False)
    mixed = mlpotential("equiform", predictor=predictor()).createMixedSystem(top, mm, [0, 1, 2], removeConstraints=False)
    alone = water.copy()
    alone.calc = calculator(predictor())
    energies = []
    for shift in (0.0, 0.05):  # inside the molecule of the model; then of the rest
        moved, lone = positions.copy(), alone.copy()
        moved[1, 1] += shift
        lone.positions = moved[:3]
        lone.calc = alone.calc
        energies.append(state(context(mixed, moved)[0])[0] - lone.get_potential_energy())
    rest = app.ForceField("tip3p.xml").createSystem(top, nonbondedMethod=app.NoCutoff, rigidWater=False)
    assert [type(f).__name__ for f in mixed.getForces()].count("PythonForce") == 1
    # What is left is the other molecule and the electrostatics between them: small, and smooth in the displacement.
    assert abs(energies[0]) < 1 and abs(energies[1] - energies[0]) < 0.1
    assert rest.getNumParticles() == mixed.getNumParticles() == 6


def test_topologies_that_a_model_cannot_take_are_refused(predictor):
    from equiform.deploy.openmm import force, system

    with pytest.raises(UserError, match="the topology has Xe, but the model knows only H, C, O"):
        system(predictor(), topology(ase.Atoms("HXe", [[0, 0, 0], [0, 0, 2]])))
    with pytest.raises(UserError, match="there are no atoms"):
        system(predictor(), app.Topology())
    with pytest.raises(UserError, match="atom 7 is not in the topology"):
        force(predictor(), topology(molecule("H2O")), atoms=[0, 7])
    made = topology(molecule("H2O"))
    made.addAtom("M", None, next(made.residues()))
    with pytest.raises(UserError, match=r"atom 3 \(M\) of the topology has no element"):
        system(predictor(), made)
