"""The conformance suite that every model must pass, usable in any test suite.

Each check takes a `Task` (a `Potential`, `Property` or `Motion`) and raises `AssertionError` with the measured error when a
claim does not hold. The model's declared traits select the checks: what is claimed is checked to hold, and a symmetry that is
not claimed is checked to fail. They run in float64: enable it first, and build the model afterwards.

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
        RuntimeError: float64 is disabled, so the tolerances would be meaningless.
        ValueError: The check does not apply to a task with these traits.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise RuntimeError('the checks need float64: jax.config.update("jax_enable_x64", True) before building the model')
    if not CHECKS[name].applies(task):
        raise ValueError(f"{name} does not apply: the model's traits do not claim it")
    CHECKS[name].function(task)
