"""Predictions for ASE structures: units, precision, batches, and input that cannot be predicted."""

import json
import subprocess
import sys

import ase
import jax
import numpy as np
import pytest

from equiform.deploy.predictor import Predictor
from equiform.errors import UserError
from equiform.models.api import AttendingModel
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig, ToyModel

REFERENCE_ENERGIES = {1: -13.6, 6: -1029.5, 8: -2041.25}


def make(dtype="float64", model=None, **changes) -> Predictor:
    return Predictor(Potential(model or ToyModel(), **changes), REFERENCE_ENERGIES, dtype=dtype)


def pair_energy(atoms: ase.Atoms, cutoff: float = 4.0) -> float:
    """The toy potential by a plain sum over pairs and images, without graphs."""
    energy = 0.0
    images = [range(-3, 4) if periodic else [0] for periodic in atoms.pbc]
    for shift in np.stack(np.meshgrid(*images, indexing="ij"), -1).reshape(-1, 3):
        r = np.linalg.norm(atoms.positions[:, None] + shift @ atoms.cell.array - atoms.positions, axis=-1)
        r = r[(r < cutoff) & (r > 1e-9)]
        energy += 0.5 * (((1 - np.exp(-1.5 * (r - 1.2))) ** 2 - 1) * (1 - (r / cutoff) ** 2) ** 3).sum()
    return energy + sum(REFERENCE_ENERGIES[z] for z in atoms.numbers.tolist())


def molecule(num_atoms: int, seed: int = 0) -> ase.Atoms:
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3)[:num_atoms] * 1.3
    return ase.Atoms(rng.choice([1, 6, 8], num_atoms), sites + 0.1 * rng.normal(size=(num_atoms, 3)))


@pytest.fixture
def crystal() -> ase.Atoms:
    cell = [[2.9, 0.3, 0], [-0.4, 3.1, 0.2], [0.1, 0, 2.8]]
    return ase.Atoms("CHO", [[0, 0, 0], [1.4, 1.5, 0.2], [0.1, 1.4, 1.5]], cell=cell, pbc=True)


@pytest.mark.parametrize("periodic", [False, True])
def test_energies_are_total_energies_of_every_pair_and_image(crystal, periodic):
    atoms = crystal if periodic else molecule(7)
    assert make().energy(atoms) == pytest.approx(pair_energy(atoms), abs=1e-9)
    single = make("float32").predict_one(atoms)
    # Thousands of eV of reference energy do not cost the interaction energy its digits.
    assert single.energy == pytest.approx(pair_energy(atoms), abs=2e-5)
    assert single.energy - single.interaction_energy == pytest.approx(
        sum(REFERENCE_ENERGIES[z] for z in atoms.numbers), abs=1e-9
    )


def test_forces_and_stress_are_derivatives_of_the_energy(crystal):
    predictor = make()
    forces, stress = predictor.forces(crystal), predictor.stress(crystal)
    step = 1e-4
    for atom, axis in [(0, 0), (1, 2), (2, 1)]:
        ends = [crystal.copy(), crystal.copy()]
        for sign, end in zip((-1, 1), ends):
            end.positions[atom, axis] += sign * step
        slope = (pair_energy(ends[1]) - pair_energy(ends[0])) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=1e-6)
    for i, j in [(0, 0), (1, 1), (0, 2)]:
        ends = [crystal.copy(), crystal.copy()]
        for sign, end in zip((-1, 1), ends):
            strain = np.zeros((3, 3))
            strain[i, j] = sign * step
            end.set_cell(end.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        slope = (pair_energy(ends[1]) - pair_energy(ends[0])) / (2 * step)
        assert stress[i, j] == pytest.approx(slope / crystal.get_volume(), abs=1e-6)


def test_a_batch_gives_what_single_structures_give(crystal):
    structures = [molecule(n, seed=n) for n in (9, 1, 3, 30, 2)] + [crystal, ase.Atoms("H")]
    predictor, calls = make(), []
    results = predictor.predict(structures, batch_size=3, progress=lambda *call: calls.append(call))
    for atoms, result in zip(structures, results, strict=True):
        single = predictor.predict_one(atoms)
        assert result.energy == pytest.approx(single.energy, abs=1e-10)
        assert result.forces.shape == (len(atoms), 3)
        assert np.allclose(result.forces, single.forces, rtol=0, atol=1e-10)
        assert (result.stress is None) == (single.stress is None) == (not atoms.pbc.any())
    assert calls[-1] == (7, 7)
    assert results[1].energy == pytest.approx(REFERENCE_ENERGIES[int(structures[1].numbers[0])])
    assert predictor.energy(structures) == [result.energy for result in results]
    assert predictor.predict([]) == []


def test_float64_is_switched_on_for_the_call_only():
    predictors = make("float64"), make("float32")
    with jax.enable_x64(False):
        fine, coarse = (predictor.energy(molecule(9)) for predictor in predictors)
        assert jax.numpy.zeros(1).dtype == np.float32
    exact = pair_energy(molecule(9))
    assert abs(fine - exact) < 1e-9 < abs(coarse - exact) < 1e-4


def test_unknown_elements_are_named():
    with pytest.raises(UserError, match=r"^H2UXe has Xe, U, but the model knows only H, C, O$"):
        make().energy(ase.Atoms("HUXeH", 3.0 * np.eye(4, 3)))
    with pytest.raises(UserError, match=r"structure 1 \(Fe\) has Fe"):
        make().energy([ase.Atoms("H"), ase.Atoms("Fe")])


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (ase.Atoms(), "no atoms"),
        (ase.Atoms("HH", [[0, 0, 0], [0, 0, 0]]), "overlapping atoms: . and . are 0.000 Å apart"),
        (ase.Atoms("HH", [[0, 0, 0], [0, 0, np.inf]]), "positions that are not finite"),
        (ase.Atoms("H", pbc=True), "zero or parallel"),
        (ase.Atoms("H", cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True), "zero or parallel"),
    ],
)
def test_structures_that_make_no_sense_are_refused(atoms, message):
    with pytest.raises(UserError, match=message):
        make().energy(atoms)
    with pytest.raises(UserError, match=message):
        make().energy([atoms])


def test_a_missing_vector_of_a_direction_that_is_not_periodic_is_fine():
    layer = ase.Atoms("C", cell=[2.4, 2.4, 0], pbc=(True, True, False))
    assert make().energy(layer) == pytest.approx(pair_energy(layer), abs=1e-9)


def test_stress_needs_a_periodic_cell(crystal):
    with pytest.raises(UserError, match="no periodic cell"):
        make().stress(molecule(3))
    with pytest.raises(UserError, match=r"structure 1 .*no periodic cell"):
        make().stress([crystal, molecule(3)])


def test_answers_that_are_not_finite_are_errors():
    with pytest.raises(UserError, match="not finite: the structure is far"):
        make(scale=float("nan")).energy(molecule(3))


def test_reference_energies_must_cover_the_structure():
    incomplete = Predictor(Potential(ToyModel()), {1: -13.6})
    with pytest.raises(UserError, match="no reference energy for C"):
        incomplete.energy(ase.Atoms("C"))
    assert Predictor(Potential(ToyModel())).energy(ase.Atoms("C")) == 0


def test_tags_reach_the_model_one_by_one_and_in_batches():
    predictor = make(model=ToyModel(ToyConfig(num_tags=3)))
    plain, tagged = molecule(6), molecule(6)
    plain.set_tags(0)
    tagged.set_tags([0, 1, 2, 2, 1, 0])
    half = 3.0  # of every pair each atom has its half, times 1 + its tag
    pair = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.3]], tags=[1, 2])
    expected = make().predict_one(pair).interaction_energy * (2 + half) / 2
    assert predictor.predict_one(pair).interaction_energy == pytest.approx(expected, abs=1e-12)
    results = predictor.predict([plain, tagged, pair])
    singles = [predictor.predict_one(atoms) for atoms in (plain, tagged, pair)]
    assert [r.energy for r in results] == pytest.approx([s.energy for s in singles], abs=1e-10)
    assert results[0].energy == pytest.approx(make().energy(plain), abs=1e-10) != results[1].energy


def test_a_model_of_tagged_atoms_refuses_others():
    predictor = make(model=ToyModel(ToyConfig(num_tags=3)))
    with pytest.raises(UserError, match=r"needs tags .* from 0 to 2 .*, but \w+ has none; set them"):
        predictor.energy(molecule(3))
    layers = molecule(3)
    layers.set_tags([1, 2, 3])
    with pytest.raises(UserError, match=r"structure 0 \(\w+\) has 1 to 3; set them"):
        predictor.energy([layers])


def test_an_anchored_potential_knows_the_elements_that_it_is_anchored_for():
    predictor = make(anchored=True, elements=(1, 8))
    assert predictor.elements == (1, 8)
    assert predictor.energy(ase.Atoms("O")) == REFERENCE_ENERGIES[8]
    with pytest.raises(UserError, match="C has C, but the model knows only H, O"):
        predictor.energy(ase.Atoms("C"))


class Explaining(ToyModel, AttendingModel):
    def descriptors(self, graph):
        return graph.positions * 2

    def attention(self, graph):
        return [graph.edge_vectors()[:, :1]]


def test_descriptors_and_attention_have_a_row_per_atom_and_edge():
    atoms = molecule(5)
    predictor = make(model=Explaining(ToyConfig()))
    assert np.allclose(predictor.descriptors(atoms), 2 * atoms.positions)
    attention = predictor.attention(atoms)
    vectors = atoms.positions[attention["senders"]] - atoms.positions[attention["receivers"]]
    assert np.allclose(attention["weights"][0][:, 0], vectors[:, 0])
    with pytest.raises(UserError, match="ToyModel models do not expose attention weights"):
        make().attention(atoms)


def test_import_is_light():
    code = "import sys, json, equiform.deploy.predictor; print(json.dumps([m for m in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"ase.io", "matplotlib", "typer", "rich", "tensorboardX", "vesin"} & set(json.loads(output))


def test_one_structure_is_predicted_as_one_and_its_atoms_share_the_energy(crystal):
    predictor = make(shift=0.5)
    one = predictor.predict(crystal)
    assert one.energy == predictor.predict([crystal])[0].energy == predictor.energy(crystal)
    energies = predictor.energies(crystal)
    assert energies.shape == (3,) and energies.sum() == pytest.approx(one.energy, abs=1e-10)
