"""The conformance suite that every model must pass, for use in anybody's tests.

Each check takes a `Task` (a `Potential`, `Property` or `Motion`) and raises `AssertionError` with the measured error when a
claim does not hold. Which checks apply follows from the model's declared traits: what is claimed is checked to hold, and a
symmetry that is not claimed is checked to fail. They run in float64: enable it first, and build the model afterwards.

    from equiform.testing import check, checks_for
    for name in checks_for(task):
        check(name, task)
"""

import jax

from equiform.tasks.api import Task
from equiform.testing import energies, numerics, traits
from equiform.testing.samples import Check

CHECKS: dict[str, Check] = {check.name: check for check in (*traits.CHECKS, *energies.CHECKS, *numerics.CHECKS)}
"""Every check by name."""


def checks_for(task: Task) -> list[str]:
    """Names of the checks that apply to a task with these traits."""
    return [name for name, check in CHECKS.items() if check.applies(task)]


def check(name: str, task: Task) -> None:
    """Run one check by name.

    Raises:
        AssertionError: The task does not conform.
        RuntimeError: float64 is off, so no tolerance would mean anything.
        ValueError: The check does not apply to a task with these traits.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError('the checks need float64: jax.config.update("jax_enable_x64", True) before building the model')
    if not CHECKS[name].applies(task):
        raise ValueError(f"{name} does not apply: the model's traits do not claim it")
    CHECKS[name].function(task)
