"""JAX MD: energies, forces and stress of the predictor in small and skewed cells, and an NVE run."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule

from equiform.deploy.jaxmd import neighbor_list
from equiform.errors import UserError
from tests.deploy.conftest import box

if find_spec("jax_md") is None:
    pytest.skip("the extra jaxmd is not installed", allow_module_level=True)


@pytest.fixture(autouse=True)
def _jax_defaults():
    """JAX MD mixes types and ranks, as JAX allows by default."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # JAX MD's own
def test_energy_forces_and_stress_of_a_small_skewed_cell_are_the_predictors(predictor):
    from jax_md import quantity

    atoms, model = box(), predictor()
    lattice = atoms.cell.array.T
    neighbor_fn, energy_fn = neighbor_list(model, atoms.numbers, lattice)
    fractional = jnp.asarray(atoms.get_scaled_positions())
    neighbors = neighbor_fn.allocate(fractional)
    expected = model.predict_one(atoms)
    assert float(energy_fn(fractional, neighbor=neighbors)) == pytest.approx(expected.interaction_energy, abs=1e-10)
    # JAX MD's derivative with respect to fractional coordinates is the one with respect to positions.
    forces = -jax.grad(energy_fn)(fractional, neighbor=neighbors)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-10)
    stress = quantity.stress(energy_fn, fractional, jnp.asarray(lattice), neighbor=neighbors)
    np.testing.assert_allclose(-stress, expected.stress, rtol=0, atol=1e-10)  # JAX MD's is positive under compression


@pytest.mark.filterwarnings("ignore")
def test_a_molecule_has_no_box(predictor):
    atoms, model = molecule("H2O"), predictor()
    neighbor_fn, energy_fn = neighbor_list(model, atoms.numbers, None)
    positions = jnp.asarray(atoms.positions)
    energy = energy_fn(positions, neighbor=neighbor_fn.allocate(positions))
    assert float(energy) == pytest.approx(model.predict_one(atoms).interaction_energy, abs=1e-10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fractional", [True, False])
def test_atoms_may_be_wrapped_after_the_list_was_made(predictor, fractional):
    # JAX MD's shift functions do that in each step, before the list is updated.
    atoms, model = box(), predictor()
    neighbor_fn, energy_fn = neighbor_list(model, atoms.numbers, atoms.cell.array.T, fractional_coordinates=fractional)
    points = atoms.get_scaled_positions(wrap=False)
    images = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 2], [0, 0, 0], [-1, 1, 0]])
    before, after = (jnp.asarray(one if fractional else one @ atoms.cell.array) for one in (points, points + images))
    neighbors = neighbor_fn.allocate(before)
    one, other = (jax.value_and_grad(energy_fn)(where, neighbor=neighbors) for where in (before, after))
    assert float(other[0]) == pytest.approx(float(one[0]), abs=1e-10)
    np.testing.assert_allclose(other[1], one[1], rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nve_over_1000_steps_keeps_the_energy(crystal, predictor):
    from jax_md import simulate, space

    model = predictor(cutoff=2.2)
    lattice = jnp.asarray(crystal.cell.array.T)
    neighbor_fn, energy_fn = neighbor_list(model, crystal.numbers, lattice, skin=0.3)
    _, shift = space.periodic_general(lattice, fractional_coordinates=True)
    points = jnp.asarray(crystal.get_scaled_positions())
    neighbors = neighbor_fn.allocate(points)
    init, apply = simulate.nve(energy_fn, shift, dt=2e-3)  # in units of Å √(u/eV), 0.02 fs: of the integrator little is left
    state = init(jax.random.key(0), points, kT=0.005, mass=12.0, neighbor=neighbors)

    def total(state, neighbors):
        from jax_md import quantity

        kinetic = quantity.kinetic_energy(momentum=state.momentum, mass=state.mass)
        return energy_fn(state.position, neighbor=neighbors) + kinetic

    @jax.jit
    def steps(state, neighbors):
        def one(carry, _):
            state, neighbors = carry
            neighbors = neighbors.update(state.position)
            state = apply(state, neighbor=neighbors)
            return (state, neighbors), total(state, neighbors)

        return jax.lax.scan(one, (state, neighbors), None, length=1000)

    (_, neighbors), energies = steps(state, neighbors)
    assert not bool(neighbors.did_buffer_overflow)
    assert float(jnp.ptp(energies)) / len(crystal) < 1e-7


def test_structures_that_a_model_cannot_take_are_refused(predictor):
    with pytest.raises(UserError, match="the structure has Xe, but the model knows only H, C, O"):
        neighbor_list(predictor(), [1, 54], np.eye(3) * 9)
    with pytest.raises(UserError, match="the box spans no volume"):
        neighbor_list(predictor(), [1, 6], np.diag([9.0, 9.0, 0.0]))
    with jax.enable_x64(False), pytest.raises(UserError, match="the model is in float64, but JAX is not"):
        neighbor_list(predictor(), [1, 6], np.eye(3) * 9)
