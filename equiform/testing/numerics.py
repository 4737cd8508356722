"""Checks of the arithmetic: padding, batches, compilation, precision, model files, learning, coinciding nodes."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.graph import Capacity, batch, to_device
from equiform.tasks.api import Task
from equiform.testing.samples import Check, always, close, evaluate, fields_of, is_potential, sample, single


def padding_changes_nothing(task: Task) -> None:
    """Padding atoms and edges, the edges pointing at real atoms, change no result."""
    graph = sample(task)
    before, size = evaluate(task, graph), graph.capacity
    padded = batch([graph], Capacity(size.atoms + 5, size.edges + 9, 2))
    senders, receivers = padded.senders.copy(), padded.receivers.copy()
    receivers[size.edges :] = size.atoms - 1
    senders[size.edges :] = np.arange(9) % (size.atoms - 1)
    after = evaluate(task, padded.replace(senders=senders, receivers=receivers))
    for name, field in fields_of(task, before).items():
        rows = size.atoms if field.axis == "atoms" else 1
        close(after[name][:rows], before[name], 1e-12, f"{name} with padding")
    if "forces" in after:
        close(after["forces"][size.atoms :], 0.0, 0.0, "forces on padding atoms")


def batches_are_independent(task: Task) -> None:
    """A structure has the same outputs alone and in a batch."""
    graphs = [sample(task, n, seed) for n, seed in ((7, 0), (4, 1), (1, 2))]
    together, start = evaluate(task, batch(graphs)), 0
    for index, graph in enumerate(graphs):
        alone, atoms = evaluate(task, graph), slice(start, start + len(graph.species))
        for name, field in fields_of(task, alone).items():
            rows = atoms if field.axis == "atoms" else slice(index, index + 1)
            close(together[name][rows], alone[name], 1e-10, f"{name} in a batch")
        start = atoms.stop


def compiled_equals_eager(task: Task) -> None:
    """`jit` does not change the result."""
    graph = to_device(sample(task, 4), np.float64)
    eager = task.model(graph)
    for name, value in eqx.filter_jit(task.model)(graph).items():
        close(value, eager[name], 1e-11, f"{name}, compiled against eager")


def single_precision_is_close(task: Task) -> None:
    """float32 agrees with float64 to 2e-5 relative in energies, and 1e-3 of the largest force or other vector."""
    graph, scale = sample(task), abs(float(task.settings().get("scale", 1.0)))
    double, rough = evaluate(task, graph), evaluate(single(task), graph)
    for name, field in fields_of(task, double).items():
        size = np.abs(double[name]).max()
        tolerance = 2e-5 * (size + scale) if field.representation == "invariant" else 1e-3 * size + 1e-6
        close(rough[name], double[name], tolerance, f"float32 {name}")


def saving_and_loading_is_exact(task: Task) -> None:
    """A model file restores the same numbers, bit for bit."""
    from equiform.persist.modelfile import load_model, save_model

    graph = sample(task, 4)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", task, {})
        again = load_model(Path(folder) / "model").task
    found = evaluate(again, graph)
    for name, value in evaluate(task, graph).items():
        close(found[name], value, 0.0, f"{name} after loading")


def loss_falls(task: Task) -> None:
    """Adam on one structure reduces the squared error: of an energy by half in 12 steps, of vectors by a fifth in 30."""
    graph = to_device(sample(task, 4), np.float64)
    arrays, static = eqx.partition(task, eqx.is_inexact_array)
    name, scale = task.quantity, float(task.settings().get("scale", 1.0))
    before = eqx.filter_jit(lambda task, graph: task.predict(graph, (name,))[name])(task, graph)
    scalar = task.target(name).field.representation == "invariant"
    # A target that the model can reach under its symmetries: a shifted energy, or shortened vectors.
    target = before + 0.5 * scale if scalar else 0.5 * before

    def loss(arrays: Any) -> jax.Array:
        found = eqx.combine(arrays, static).predict(graph, (name,))[name]
        return (((found - target) / scale) ** 2).mean()

    rate, steps, fraction = (3e-3, 12, 0.5) if scalar else (1e-2, 30, 0.8)
    values = losses_of_adam(loss, arrays, rate=rate, steps=steps)
    assert min(values) < fraction * values[0], f"the loss went from {values[0]:.3g} to {min(values):.3g} only"


def coinciding_nodes_are_finite(task: Task) -> None:
    """Particles at the same place and at rest give finite vectors and finite derivatives of the parameters."""
    graph = sample(task, 3)
    still = {name: np.zeros_like(value) for name, value in graph.node_fields.items()}
    graph = to_device(graph.replace(positions=np.zeros((3, 3)), node_fields=still), np.float64)
    arrays, static = eqx.partition(task, eqx.is_inexact_array)

    def total(arrays: Any) -> tuple[jax.Array, Any]:
        outputs = eqx.combine(arrays, static).predict(graph, ())
        return jnp.stack([((value - 1) ** 2).sum() for value in outputs.values()]).sum(), outputs

    slopes, outputs = jax.jit(jax.grad(total, has_aux=True))(arrays)
    for leaf in jax.tree.leaves((slopes, outputs)):
        assert np.isfinite(leaf).all(), "outputs or derivatives of coinciding particles are not finite"


def losses_of_adam(loss: Callable[[Any], jax.Array], arrays: Any, *, rate: float, steps: int) -> list[float]:
    """The loss before each step of gradient descent with Adam, from given parameters."""
    import optax

    optimizer = optax.adam(rate)

    @jax.jit
    def step(arrays: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(arrays)
        with jax.numpy_dtype_promotion("standard"):  # Optax relies on implicit promotion of its integer count.
            updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(arrays, updates), state, value

    state, values = optimizer.init(arrays), []
    for _ in range(steps):
        arrays, state, value = step(arrays, state)
        values.append(float(value))
    return values


CHECKS = (
    Check(padding_changes_nothing, always),
    Check(batches_are_independent, always),
    Check(compiled_equals_eager, always),
    Check(single_precision_is_close, always),
    Check(saving_and_loading_is_exact, always),
    Check(loss_falls, always),
    Check(coinciding_nodes_are_finite, lambda task: not is_potential(task)),
)
