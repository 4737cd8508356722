"""The compiled loop: precise sums, velocity Verlet, and no force from a stale list."""

import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.graph import fully_connected_edges
from equiform.neighbors import neighbor_list
from equiform.simulate.md.integrator import (
    OVERFLOW,
    RUNNING,
    STALE,
    Candidates,
    LoopSettings,
    System,
    TwoFloat,
    advance,
    initial_state,
    split,
)
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig, ToyModel


def test_two_floats_keep_what_one_loses_under_jit():
    with jax.enable_x64(False):

        @jax.jit
        def add_many(total: TwoFloat) -> TwoFloat:
            return jax.lax.fori_loop(0, 10_000, lambda _, t: t.plus(jnp.full(3, 1e-7, jnp.float32)), total)

        total = add_many(split(np.full(3, 8.0), np.float32))
        exact = 8 + 10_000 * np.float64(np.float32(1e-7))
        assert np.allclose(np.float64(total.high) + np.float64(total.low), exact, rtol=0, atol=1e-10)
        # One float would not have moved at all: the spacing of float32 at 8 is 1e-6.
        assert np.float32(8) + np.float32(1e-7) == np.float32(8)


def test_splitting_a_float64_keeps_48_bits():
    values = np.random.default_rng(0).normal(size=(50, 3)) * 30
    high, low = split(values, np.float32)
    assert np.abs(np.float64(high) + np.float64(low) - values).max() < 30 * 4 * 2.0**-48


def _pieces(cluster, *, ensemble="nve", active=None, reach=4.0, limit=np.inf, cutoff=4.0):
    positions, masses = cluster.positions, cluster.get_masses()
    if np.isinf(limit):
        senders, receivers = fully_connected_edges(len(cluster))
    else:
        senders, receivers, _ = neighbor_list(positions, None, False, reach)
    velocities = np.random.default_rng(1).normal(size=(7, 3)) * np.sqrt(ase.units.kB * 600 / masses)[:, None]
    system = System(
        species=jnp.asarray(cluster.numbers, jnp.int32),
        masses=jnp.asarray(masses),
        inverse_masses=jnp.asarray(1 / masses),
        cell=jnp.zeros((1, 3, 3)),
        time_step=jnp.asarray(0.5 * ase.units.fs),
        thermal_energy=jnp.asarray(ase.units.kB * 300),
        friction=jnp.asarray(0.01 / ase.units.fs),
        max_force=jnp.asarray(100.0),
        max_kinetic_energy=jnp.asarray(100.0),
        key=jax.random.key(0),
    )
    candidates = Candidates(
        senders=jnp.asarray(senders),
        receivers=jnp.asarray(receivers),
        shifts=jnp.zeros((len(senders), 3), jnp.int32),
        mask=jnp.ones(len(senders), bool),
        reference=split(positions, np.float64),
        max_displacement=jnp.asarray(limit),
    )
    settings = LoopSettings(ensemble, cutoff, active or len(senders), 256, 16, 10)
    potential = Potential(ToyModel(ToyConfig(cutoff=cutoff)))
    return potential, system, candidates, initial_state(positions, velocities, np.float64), settings


def _stop(step):
    return jnp.asarray(step, jnp.int32)


def test_nve_is_the_velocity_verlet_of_ase(cluster, predictor):
    from ase.md.verlet import VelocityVerlet

    from equiform.deploy.ase import EquiformCalculator

    potential, system, candidates, state, settings = _pieces(cluster)
    end, status, records = advance(potential, system, candidates, state, _stop(100), settings)
    assert int(status) == RUNNING
    assert int(end.step) == 101

    cluster.set_velocities(np.asarray(state.velocities.high))
    cluster.calc = EquiformCalculator(predictor())
    VelocityVerlet(cluster, 0.5 * ase.units.fs).run(100)
    assert np.allclose(end.last.positions.high, cluster.positions, rtol=0, atol=1e-9)
    assert np.allclose(end.last.velocities, cluster.get_velocities(), rtol=0, atol=1e-9)
    assert np.allclose(records.positions[10], cluster.positions, rtol=0, atol=1e-9)
    assert float(records.kinetic_energy[100]) == pytest.approx(cluster.get_kinetic_energy(), abs=1e-9)


def test_the_way_back_leads_to_the_start(cluster):
    potential, system, candidates, state, settings = _pieces(cluster)
    there = advance(potential, system, candidates, state, _stop(200), settings)[0].last
    back = initial_state(np.asarray(there.positions.high), -np.asarray(there.velocities), np.float64)
    home = advance(potential, system, candidates, back, _stop(200), settings)[0].last
    assert np.allclose(home.positions.high, cluster.positions, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_chunks_of_any_size_give_the_same_numbers(cluster, ensemble):
    potential, system, candidates, state, settings = _pieces(cluster, ensemble=ensemble)
    whole = advance(potential, system, candidates, state, _stop(60), settings)[0]
    for stop in (0, 1, 17, 60):
        state = advance(potential, system, candidates, state, _stop(stop), settings)[0]
    same = jax.tree.map(lambda a, b: bool((a == b).all()), whole, state)
    assert all(jax.tree.leaves(same))


def test_the_loop_ends_before_a_force_would_come_from_a_stale_list(cluster):
    limit = 0.05
    potential, system, candidates, state, settings = _pieces(cluster, limit=limit)
    end, status, _ = advance(potential, system, candidates, state, _stop(200), settings)
    assert int(status) == STALE
    moved = np.linalg.norm(np.asarray(end.positions.high) - cluster.positions, axis=1).max()
    evaluated = np.linalg.norm(np.asarray(end.last.positions.high) - cluster.positions, axis=1).max()
    assert evaluated <= limit < moved
    assert int(end.last.step) == int(end.step) - 1


def test_gathered_edges_give_the_trajectory_of_masked_ones(cluster):
    # A cutoff within the cluster, which contracts: edges appear, until there are too many.
    masked = _pieces(cluster, cutoff=1.5)
    gathered = _pieces(cluster, cutoff=1.5, active=40)
    counted = (np.linalg.norm(cluster.positions[:, None] - cluster.positions, axis=-1) < 1.5).sum() - 7
    assert counted < 40 < 42
    second, status, _ = advance(*gathered[:4], _stop(100), gathered[4])
    assert int(status) == OVERFLOW
    assert int(second.last.step) > 5
    first, status, _ = advance(*masked[:4], second.last.step, masked[4])
    assert int(status) == RUNNING
    assert np.allclose(first.last.positions.high, second.last.positions.high, rtol=0, atol=1e-10)
    assert np.allclose(first.last.forces, second.last.forces, rtol=0, atol=1e-10)


def test_too_many_edges_end_the_loop_instead_of_being_dropped(cluster):
    potential, system, candidates, state, settings = _pieces(cluster, active=30)
    end, status, _ = advance(potential, system, candidates, state, _stop(100), settings)
    assert int(status) == OVERFLOW
    assert int(end.step) == 0


def test_a_model_that_ignores_distances_sees_no_edge_beyond_the_cutoff(cluster):
    class CountEdges(ToyModel):
        def __call__(self, graph, *, key=None):
            count = jax.ops.segment_sum(graph.edge_mask.astype(float), graph.receivers, 7)
            return {"energy": count + 0 * graph.positions.sum(1)}

    cutoff = 1.5
    _, system, candidates, state, settings = _pieces(cluster, cutoff=cutoff)
    model = CountEdges(ToyConfig(cutoff=cutoff))
    records = advance(Potential(model), system, candidates, state, _stop(0), settings)[2]
    near = np.linalg.norm(cluster.positions[:, None] - cluster.positions, axis=-1) < cutoff
    assert float(records.potential_energy[0]) == near.sum() - 7 < 42
