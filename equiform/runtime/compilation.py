"""Compilation of model programs."""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax


def compiler_options() -> Any:
    """Compiler options for model programs: on CPUs, LLVM optimisation level 1.

    It compiles faster, and to faster programs: at higher levels LLVM pessimises the loops of fused operations.
    """
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit` with `compiler_options`, which are evaluated at the first call.

    Before that, `jax.distributed` may not be initialised yet, and the devices are unknown.
    """

    @functools.cache
    def compiled() -> Callable[..., Any]:
        options: Any = {"compiler_options": compiler_options()}
        return eqx.filter_jit(function, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For tracing a large program, where Python's garbage collector takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
