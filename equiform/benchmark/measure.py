"""Timing one compiled program: first call, first call with a warm cache, steady state, memory, compilations."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np

from equiform.benchmark.machine import Roofs, measure_roofs
from equiform.runtime.compilation import compiler_options

MOST_SECONDS = 20.0
"""Time limit for the repeats, even if fewer than requested."""


class Timing(NamedTuple):
    """Measurements of a program.

    Attributes:
        first_s: From the call to the result, with nothing compiled before, s.
        cached_s: The same with the compiled program in the persistent cache, s.
        seconds: Duration of each later call, s.
        memory: Peak according to the compiler: arguments, temporaries and outputs, bytes.
        compilations: Programs compiled in the first and all later calls.
        roofs: The machine's rates, measured just before and after.
    """

    first_s: float
    cached_s: float | None
    seconds: tuple[float, ...]
    memory: int | None
    compilations: int
    roofs: Roofs

    @property
    def steady_s(self) -> float:
        """Median of the later calls, s."""
        return float(np.median(self.seconds))


def measure(
    compile: Callable[..., Any],
    arguments: tuple,
    *,
    repeats: int,
    again: Callable[[Any, tuple], tuple] | None = None,
    cached: bool = True,
) -> Timing:
    """Time a program.

    Args:
        compile: Compiles the program for some arguments (`compiling`).
        arguments: Its arguments; donated arrays are copied beforehand.
        repeats: Number of timed later calls.
        again: Maps a result and the arguments to the arguments of the next call, for functions with donated arguments.
        cached: Whether to time a start with the compiled program in the persistent cache.
    """
    with fresh_cache():
        counted = Compilations()
        saved = jax.tree.map(_copied, arguments) if again and cached else arguments
        with counted:
            start = time.perf_counter()
            program = compile(*arguments)
            result = jax.block_until_ready(program(*arguments))
            first = time.perf_counter() - start
        before = measure_roofs()
        with counted:
            seconds = []
            began = time.perf_counter()
            while len(seconds) < repeats and (len(seconds) < 1 or time.perf_counter() - began < MOST_SECONDS):
                arguments = again(result, arguments) if again else arguments
                start = time.perf_counter()
                result = jax.block_until_ready(program(*arguments))
                seconds.append(time.perf_counter() - start)
        after = measure_roofs()
        memory = memory_of(program)
        cached_s = None
        if cached:
            del result, program
            jax.clear_caches()
            start = time.perf_counter()
            jax.block_until_ready(compile(*saved)(*saved))
            cached_s = time.perf_counter() - start
    roofs = Roofs(*(0.5 * (a + b) for a, b in zip(before, after)))
    return Timing(first, cached_s, tuple(seconds), memory, counted.count, roofs)


def compiling(function: Any) -> Callable[..., Any]:
    """A function that compiles a jitted function for given arguments, as the library compiles models."""
    return lambda *arguments: function.lower(*arguments).compile(compiler_options=compiler_options())


def memory_of(program: Any) -> int | None:
    """Bytes of arguments, temporaries and outputs of a compiled program; None if the compiler does not report them."""
    analysis = program.memory_analysis()
    if analysis is None:
        return None
    sizes = (analysis.argument_size_in_bytes, analysis.temp_size_in_bytes, analysis.output_size_in_bytes)
    return int(sum(sizes) - analysis.alias_size_in_bytes)


@contextlib.contextmanager
def fresh_cache() -> Iterator[None]:
    """Temporarily use an empty persistent compilation cache, with nothing compiled in memory."""
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")
    saved = {name: getattr(config, name) for name in names}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, value in zip(names, (folder, 0.0, True)):
            config.update(name, value)
        compilation_cache.reset_cache()
        jax.clear_caches()
        try:
            yield
        finally:
            for name, value in saved.items():
                config.update(name, value)
            compilation_cache.reset_cache()


class Compilations:
    """Counts XLA compilations inside `with` blocks, including programs loaded from the persistent cache."""

    EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self.count = 0

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        self.count += event == self.EVENT

    def __enter__(self) -> "Compilations":
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)


def _copied(leaf: Any) -> Any:
    return jax.numpy.copy(leaf) if isinstance(leaf, jax.Array) else leaf
