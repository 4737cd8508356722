"""The conformance suite for models that give vectors per particle, beside that for energies and forces.

A model says what it is equivariant under in `config.symmetry`, some of "permutations", "translations", "rotations" and
"reflections"; without that it is all of them (no reflections where `config.true_parity` is false). What is claimed is checked
to hold, and what is not claimed is checked to fail: a plain transformer does not pass for an equivariant one.

    from equiform.testing.particles import PARTICLE_CHECKS, check_particles
    for name in PARTICLE_CHECKS:
        check_particles(name, potential)
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.graph import Capacity, Graph, batch, fully_connected_edges, make_graph, to_device
from equiform.tasks.energy import Potential
from equiform.testing.conformance import losses_of_adam, random_rotation

ParticleCheck = Callable[[Potential], None]
PARTICLE_CHECKS: dict[str, ParticleCheck] = {}
ALL = ("permutations", "translations", "rotations", "reflections")


def check_particles(name: str, potential: Potential) -> None:
    """Run one check by name.

    Raises:
        AssertionError: The model does not conform.
        RuntimeError: float64 is off, so no tolerance would mean anything.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError('the checks need float64: jax.config.update("jax_enable_x64", True) before building the model')
    PARTICLE_CHECKS[name](potential)


def symmetry_of(config: Any) -> tuple[str, ...]:
    """What a model claims to be equivariant under."""
    claimed = getattr(config, "symmetry", None)
    if claimed is not None:
        return tuple(claimed)
    return ALL if getattr(config, "true_parity", True) else ALL[:3]


def particles(seed: int = 0, bodies: int = 5) -> Graph:
    """Random charged particles with velocities, each in sight of all others; a host graph."""
    rng = np.random.default_rng(seed)
    fields = {"velocity": rng.normal(size=(bodies, 3)), "charge": rng.choice([-1.0, 1.0], bodies)}
    return make_graph(rng.normal(size=(bodies, 3)), None, *fully_connected_edges(bodies), node_fields=fields)


def turned(graph: Graph, matrix: np.ndarray) -> Graph:
    """Positions and velocities multiplied by a matrix."""
    fields = graph.node_fields | {"velocity": graph.node_fields["velocity"] @ matrix.T}
    return graph.replace(positions=graph.positions @ matrix.T, node_fields=fields)


def _listed(function: ParticleCheck) -> ParticleCheck:
    PARTICLE_CHECKS[function.__name__] = function
    return function


@_listed
def symmetry_is_as_declared(potential: Potential) -> None:
    """Claimed symmetries hold to 1e-10 (float32: 1e-6); every other one is broken by more than 1e-4 of the vectors."""
    graph, claimed = particles(), symmetry_of(potential.model.config)
    shifted = graph.replace(positions=graph.positions + np.array([3.0, -2.0, 1.0]))
    before, single = _evaluate(potential, graph), _single(potential)
    cases = {
        "rotations": [(turned(graph, random_rotation(seed)), random_rotation(seed)) for seed in range(3)],
        "reflections": [(turned(graph, -np.eye(3)), -np.eye(3))],
        "translations": [(shifted, np.eye(3))],
    }
    for name, moved in cases.items():
        errors = [_relative(_evaluate(potential, other), before, matrix) for other, matrix in moved]
        if name in claimed:
            assert max(errors) <= 1e-10, f"{name} are claimed, but Δ is {max(errors):.1e} in float64"
        else:
            assert max(errors) > 1e-4, f"{name} are not claimed, but Δ is only {max(errors):.1e}: claim them"
    if "rotations" in claimed:
        other, matrix = cases["rotations"][0]
        error = _relative(_evaluate(single, other), _evaluate(single, graph), matrix)
        assert error <= 1e-6, f"rotations are claimed, but Δ is {error:.1e} in float32"


@_listed
def vectors_follow_the_order_of_particles(potential: Potential) -> None:
    """The order of the particles does not matter."""
    graph = particles(1)
    order = np.random.default_rng(1).permutation(len(graph.species))
    fields = {name: value[order] for name, value in graph.node_fields.items()}
    before = _evaluate(potential, graph)
    after = _evaluate(potential, graph.replace(positions=graph.positions[order], node_fields=fields))
    for name, value in before.items():
        _close(after[name], value[order], 1e-10, f"{name} under permutation")


@_listed
def vectors_ignore_padding_and_company(potential: Potential) -> None:
    """Padding particles and edges, and other structures in the batch, leave every vector as it is."""
    graphs = [particles(0), particles(2, 3), particles(3)]
    together = batch(graphs, Capacity(17, 60, 5))
    edges = sum(len(graph.senders) for graph in graphs)
    senders, receivers = together.senders.copy(), together.receivers.copy()
    receivers[edges:], senders[edges:] = 12, np.arange(60 - edges) % 12  # real particles
    # The edges of padding: masked, at real particles.
    found = _evaluate(potential, together.replace(senders=senders, receivers=receivers))
    start = 0
    for graph in graphs:
        rows = slice(start, start + len(graph.species))
        for name, value in _evaluate(potential, graph).items():
            _close(found[name][rows], value, 1e-10, f"{name} in a padded batch")
        start = rows.stop


@_listed
def coinciding_particles_are_finite(potential: Potential) -> None:
    """Particles at the same place and at rest give finite vectors and finite derivatives of the parameters."""
    graph = particles(0, 3)
    still = {"velocity": np.zeros((3, 3)), "charge": np.ones(3)}
    graph = to_device(graph.replace(positions=np.zeros((3, 3)), node_fields=still), np.float64)
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)

    def total(arrays: Any) -> tuple[jax.Array, Any]:
        outputs = eqx.combine(arrays, static).outputs(graph)
        return jnp.stack([((value - 1) ** 2).sum() for value in outputs.values()]).sum(), outputs

    slopes, outputs = jax.jit(jax.grad(total, has_aux=True))(arrays)
    for leaf in jax.tree.leaves((slopes, outputs)):
        assert np.isfinite(leaf).all(), "vectors or derivatives of coinciding particles are not finite"


@_listed
def vectors_in_single_precision_are_close(potential: Potential) -> None:
    """float32 agrees with float64 to 1e-4 of the vectors."""
    graph = particles(4)
    error = _relative(_evaluate(_single(potential), graph), _evaluate(potential, graph), np.eye(3))
    assert error <= 1e-4, f"float32 differs by {error:.1e}"


@_listed
def saved_vectors_are_exact(potential: Potential) -> None:
    """A model file gives back the same numbers, bit for bit."""
    from equiform.persist.modelfile import load_model, save_model

    graph = particles(5)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", potential, {})
        again = load_model(Path(folder) / "model").potential
    for name, value in _evaluate(potential, graph).items():
        _close(_evaluate(again, graph)[name], value, 0.0, f"{name} after loading")


@_listed
def particle_loss_falls(potential: Potential) -> None:
    """Thirty steps with Adam on a target that rotates with the velocities reduce the squared error by a fifth."""
    graph = to_device(batch([particles(seed) for seed in range(4)]), np.float64)
    target = 0.7 * graph.node_fields["velocity"]
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)

    def loss(arrays: Any) -> jax.Array:
        outputs = eqx.combine(arrays, static).outputs(graph)
        return jnp.stack([((value - target) ** 2).mean() for value in outputs.values()]).sum()

    values = losses_of_adam(loss, arrays, rate=1e-2, steps=30)
    assert min(values) < 0.8 * values[0], f"the loss went from {values[0]:.3g} to {min(values):.3g} only"


@eqx.filter_jit
def _outputs(potential: Potential, graph: Graph) -> dict[str, jax.Array]:
    return potential.outputs(graph)


def _evaluate(potential: Potential, graph: Graph) -> dict[str, np.ndarray]:
    """Vectors of a host graph, in the precision of the parameters; what is no vector is left out."""
    dtype = next(leaf.dtype for leaf in jax.tree.leaves(potential) if eqx.is_inexact_array(leaf))
    found = _outputs(potential, to_device(graph, dtype))
    return {name: np.asarray(value) for name, value in found.items() if value.ndim == 2 and value.shape[1] == 3}


def _single(potential: Potential) -> Potential:
    return jax.tree.map(lambda leaf: leaf.astype(np.float32) if eqx.is_inexact_array(leaf) else leaf, potential)


def _relative(after: dict[str, np.ndarray], before: dict[str, np.ndarray], matrix: np.ndarray) -> float:
    """The largest ‖Φ(Lx) − LΦ(x)‖ / ‖LΦ(x)‖ of all vectors."""
    expected = {name: value @ matrix.T for name, value in before.items()}
    return max(float(np.linalg.norm(after[name] - value) / np.linalg.norm(value)) for name, value in expected.items())


def _close(got: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    error = np.abs(got - expected).max()
    assert error <= tolerance, f"{what}: differs by {error:.2e}, allowed {tolerance:.0e}"
