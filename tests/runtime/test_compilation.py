"""Options of the compiler: there when a program is compiled, and not before."""

import gc
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from equiform.runtime import compilation


def test_devices_are_not_asked_for_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    options = compilation.compiler_options()
    monkeypatch.setattr(compilation, "compiler_options", lambda: (asked.append(1), options)[1])

    @compilation.jit
    def double(x: jax.Array, times: int) -> jax.Array:
        return x * times

    assert not asked
    assert double(jnp.asarray(3.0), 2) == 6 and double(jnp.asarray(4.0), times=2) == 8
    assert asked == [1]


def test_a_processor_is_asked_for_the_first_level() -> None:
    unknown: Any = {"xla_backend_optimisation_level": 1}
    expected: Any = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    assert compilation.compiler_options() == expected
    # The compiler knows the option: it refuses names that it does not know.
    program = jax.jit(jnp.sin).lower(jnp.asarray(1.0))
    program.compile(compiler_options=expected)
    with pytest.raises(Exception, match="No such compile option"):
        program.compile(compiler_options=unknown)


def test_garbage_is_collected_again_after_a_trace_that_failed() -> None:
    collecting: list[bool] = []

    @compilation.without_garbage_collection()
    def fail() -> None:
        collecting.append(gc.isenabled())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert collecting == [False] and gc.isenabled()
