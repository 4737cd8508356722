"""The roofline of this machine: measured rates of single-precision matrix products and of memory traffic."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MATRIX_SIZE = 2048
ARRAY_BYTES = 256 << 20
"""Larger than the caches of today's processors and GPUs."""
LEAST_SECONDS = 0.15
"""Minimum duration of one timing."""


class Roofs(NamedTuple):
    """Rates that no program on this machine can exceed.

    Attributes:
        matrix: Floating-point operations per second (a multiply–add is two) of a 2048 × 2048 × 2048 single-precision matrix
            product at JAX's default precision, on all cores that JAX uses.
        memory: Bytes read and written per second by y ← x + y in place, for arrays larger than the caches, pages mapped.
    """

    matrix: float
    memory: float


def measure_roofs(size: int = MATRIX_SIZE, num_bytes: int = ARRAY_BYTES, repeats: int = 3) -> Roofs:
    """Measure both rates, each as the best of several repeats."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)) / size, jnp.float32)

    def product(state: tuple) -> tuple:
        return (_product(*state), state[1])

    seconds = _best(product, (a, a), repeats)
    x = jnp.zeros(num_bytes // 4, jnp.float32)

    def add(state: tuple) -> tuple:
        return (_add(*state), state[1])

    return Roofs(2 * size**3 / seconds, 3 * x.nbytes / _best(add, (jnp.ones_like(x), x), repeats))


def describe() -> dict[str, str]:
    """The processor, the devices, and the versions that affect the speed."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{_processor()}, {usable} cores",
        "devices": ", ".join(f"{device.device_kind} ({device.platform})" for device in jax.devices()),
        "system": f"{platform.system()}, {platform.machine()}",
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


@jax.jit
def _product(a: Any, b: Any) -> Any:
    return a @ b


def _in_place_sum(y: Any, x: Any) -> Any:
    return x + y


_add = jax.jit(_in_place_sum, donate_argnums=0)


def _best(function: Callable[[tuple], tuple], state: tuple, repeats: int) -> float:
    """Seconds per call, the best of several timings; each call takes the result of the previous one."""
    state = jax.block_until_ready(function(state))
    calls, best = 1, np.inf
    for _ in range(repeats):
        while True:
            start = time.perf_counter()
            for _ in range(calls):
                state = function(state)
            jax.block_until_ready(state)
            seconds = time.perf_counter() - start
            if seconds >= LEAST_SECONDS:
                break
            calls *= 2
        best = min(best, seconds / calls)
    return float(best)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
