"""phonopy: silicon's acoustic modes at Γ, and force constants equal to the exact second derivative."""

import ase
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk

from equiform.deploy.ase import calculator
from equiform.deploy.predictor import Predictor
from equiform.graph import to_device
from equiform.models import build_model, parse_config
from equiform.tasks.energy import Potential


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # phonopy's own
def test_force_constants_are_the_second_derivative_and_acoustic_modes_vanish():
    phonopy = pytest.importorskip("phonopy", reason="the extra phonopy is not installed")
    from phonopy.structure.atoms import PhonopyAtoms

    config = parse_config({"name": "egnn", "elements": (14,), "channels": 4, "num_layers": 2, "cutoff": 3.0})
    predictor = Predictor(Potential(build_model(config, key=jax.random.key(0))), dtype="float64")
    crystal = bulk("Si", "diamond", a=5.43)  # a minimum by symmetry, whatever the model
    cell = PhonopyAtoms(["Si", "Si"], cell=crystal.cell.array, scaled_positions=crystal.get_scaled_positions())
    phonons = phonopy.Phonopy(cell, supercell_matrix=np.diag([2, 2, 2]))
    phonons.generate_displacements(distance=0.003, is_plusminus=True)
    forces = []
    for displaced in phonons.supercells_with_displacements:
        atoms = ase.Atoms(displaced.symbols, cell=displaced.cell, scaled_positions=displaced.scaled_positions, pbc=True)
        atoms.calc = calculator(predictor)
        forces.append(atoms.get_forces())
    phonons.forces = forces
    phonons.produce_force_constants()
    found = np.array(phonons.force_constants)

    large = ase.Atoms(
        phonons.supercell.symbols, cell=phonons.supercell.cell, scaled_positions=phonons.supercell.scaled_positions, pbc=True
    )
    graph = to_device(predictor.graph(large), jnp.float64)

    def energy(positions):
        return predictor.potential(graph.replace(positions=positions), forces=False)["energy"][0]

    exact = np.asarray(jax.jit(jax.hessian(energy))(graph.positions)).transpose(0, 2, 1, 3)
    if found.shape != exact.shape:  # compact: rows of the primitive cell's atoms only
        exact = exact[phonons.primitive.p2s_map]
    scale = np.abs(exact).max()
    assert scale > 1e-3
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4 * scale)  # third order in the displacement
    np.testing.assert_allclose(exact, exact.transpose(1, 0, 3, 2) if exact.shape[0] == exact.shape[1] else exact, atol=1e-10)
    frequencies = np.sort(np.abs(phonons.get_frequencies([0, 0, 0])))
    assert frequencies[2] < 0.05 < frequencies[3]  # THz
