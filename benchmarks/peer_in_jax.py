"""The two programs of a JAX peer, for the workers of benchmarks/peers.py, with the same loss and optimiser for all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from peer_protocol import CLIP_NORM, FORCE_WEIGHT, LEARNING_RATE


def keep_programs(cache: Path | None) -> None:
    """Use a folder as compilation cache; call it before anything is compiled.

    A program is partitioned for the number of threads at compile time, which JAX's own cache key does not include.
    """
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache / f"jax-{threads()}-threads"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def jax_programs(
    predict: Callable[[Any, Any], tuple[jax.Array, jax.Array | None]], parameters: Any, graph: Any
) -> dict[str, Callable[[], float]]:
    """Inference and training step, one compiled program each.

    Args:
        predict: Energies of the molecules and forces (or None) from parameters and graph.
        parameters: A tree of arrays.
        graph: The batch, on the device.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), optax.adamw(LEARNING_RATE))

    def loss(parameters: Any, graph: Any) -> jax.Array:
        energy, forces = predict(parameters, graph)
        value = jnp.abs(energy).mean()
        return value if forces is None else value + FORCE_WEIGHT * jnp.linalg.norm(forces, axis=1).mean()

    def update(parameters: Any, state: Any, graph: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, graph)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    evaluate, train = jax.jit(predict), jax.jit(update, donate_argnums=(0, 1))
    training = [jax.tree.map(jnp.copy, parameters)]
    training.append(optimizer.init(training[0]))

    def inference() -> float:
        energy, forces = jax.block_until_ready(evaluate(parameters, graph))
        return float(energy.mean()) if forces is None else float(energy.mean()) + float(jnp.abs(forces).mean())

    def step() -> float:
        training[0], training[1], value = jax.block_until_ready(train(*training, graph))
        return float(value)

    return {"inference": inference, "step": step}


def size(parameters: Any) -> int:
    """Number of elements in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def threads() -> int:
    """Number of CPU cores that XLA uses: all in its affinity mask."""
    return len(os.sched_getaffinity(0))
