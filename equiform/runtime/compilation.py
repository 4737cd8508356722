"""How programs of models are compiled."""

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax


def compiler_options() -> Any:
    """Options for programs of models: on a processor LLVM's first level.

    It compiles faster, and to faster programs: at higher levels LLVM rewrites the loops of fused operations for the worse.
    """
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`eqx.filter_jit` with `compiler_options`, asked for at the first call only.

    Before it, a process may still join others, and its devices are not known.
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
    """For tracing a large program: a quarter of the time Python looks for cycles among its many new objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
