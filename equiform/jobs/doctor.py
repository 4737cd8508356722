"""Installation check: versions, devices, and tests for known silent failures.

Some JAX releases silently compute wrong numbers (the CPU compiler of 0.10.2 on a batched 3×3 product
followed by a reduction, from 16,385 rows in float64 and 32,769 in float32 on; single operations on some
GPUs in 0.11). A potential trained with one of them is wrong too, so the checks run exactly these cases.

Source: https://github.com/jax-ml/jax/issues/39103, https://github.com/jax-ml/jax/issues/40633
"""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from equiform.runtime.versions import package_versions

if TYPE_CHECKING:
    from equiform.graph import Graph
    from equiform.tasks.energy import Potential

REDUCTION_SIZES = {"float64": 16_385, "float32": 32_769}
"""Number of rows from which the compiler of JAX 0.10.2 gives wrong results."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was checked.
        passed: Whether the check passed.
        detail: The measured and the allowed error, or what went wrong.
    """

    name: str
    passed: bool
    detail: str


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the numerical results."""
    found = {"python": f"{platform.python_version()} ({sys.executable})"}
    found |= {package: version or "not installed" for package, version in package_versions().items()}
    return found


def machine() -> dict[str, str]:
    """The CPU, the devices that JAX sees, and the folder of the compilation cache."""
    import os

    import jax

    from equiform.runtime.cache import default_folder

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ", ".join(f"{device.device_kind} ({device.platform}:{device.id})" for device in jax.devices())
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": str(usable),
        "devices": devices,
        "compilation cache": str(default_folder()),
    }


def check_reduction(compile_function: Callable[[Callable], Callable] | None = None) -> list[Check]:
    """A batched 3×3 product followed by a reduction: compiled and eager, against NumPy.

    Args:
        compile_function: Checked in place of `jax.jit`.
    """
    import jax
    import jax.numpy as jnp

    compile_function = compile_function or jax.jit
    checks = []
    for name, rows in REDUCTION_SIZES.items():
        with jax.enable_x64(name == "float64"):
            index = jnp.arange(rows, dtype=name)
            points = jnp.stack([index, jnp.zeros_like(index), jnp.zeros_like(index)], axis=1)
            matrix = jnp.eye(3, dtype=name)

            def squares(points: Any, matrix: Any = matrix) -> Any:
                # Highest precision: a GPU's reduced-precision products are a setting, not an error.
                return jax.vmap(lambda row: jnp.sum(jnp.matmul(matrix, row, precision="highest") ** 2))(points)

            truth = np.arange(rows, dtype=np.float64) ** 2
            results = {"compiled": compile_function(squares)(points), "eager": squares(points)}
        allowed = 1e-12 if name == "float64" else 1e-6
        for kind, values in results.items():
            error = _relative(np.asarray(values, np.float64), truth)
            checks.append(_within(f"3×3 product and sum, {rows:,} rows, {name}, {kind}", error, allowed))
    return checks


def check_operations() -> Check:
    """Single operations, outside any compiled program."""
    import jax
    import jax.numpy as jnp

    measured = [
        float(jnp.sqrt(jnp.asarray(512.0, jnp.float32))),
        *np.asarray(jnp.ones(4, jnp.float32) + jnp.asarray(1, jnp.float32)).tolist(),
        float(jnp.isfinite(jax.random.normal(jax.random.key(0), (5,), jnp.float32)).all()),
    ]
    truth = np.array([np.sqrt(512.0), 2, 2, 2, 2, 1])
    return _within("single operations (square root, sum, random numbers)", _relative(np.array(measured), truth), 1e-6)


def check_potential(potential: "Potential", graph: "Graph") -> list[Check]:
    """Rotation, forces against finite differences, and compiled against eager, all in float64.

    Args:
        potential: The potential; its arrays are cast to float64.
        graph: A host graph of one structure.
    """
    import jax
    import jax.numpy as jnp

    from equiform.algebra.so3.rotations import random_rotation
    from equiform.graph import to_device

    with jax.enable_x64(True):

        def widen(leaf: Any) -> Any:
            wide = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
            return jnp.asarray(leaf, jnp.float64) if wide else leaf

        potential = jax.tree.map(widen, potential)

        def evaluate(positions: Any) -> tuple[Any, Any]:
            result = potential(to_device(graph, jnp.float64).replace(positions=positions))
            return result["energy"].sum(), result["forces"]

        compiled = jax.jit(evaluate)
        positions = np.asarray(graph.positions, np.float64)
        energy, forces = map(np.asarray, compiled(jnp.asarray(positions)))
        rotation = random_rotation(0)
        rotated_energy, rotated_forces = map(np.asarray, compiled(jnp.asarray(positions @ rotation.T)))
        direction = np.random.default_rng(1).normal(size=positions.shape)
        step = 1e-4
        above, below = (float(compiled(jnp.asarray(positions + s * direction))[0]) for s in (step, -step))
        slope = -(above - below) / (2 * step)
        # The energy only: the eager gradient would take longer than everything else.
        eager_energy = float(potential(to_device(graph, jnp.float64), forces=False)["energy"].sum())

    size = max(float(np.abs(forces).max()), 1e-12)
    scale = max(abs(float(energy)), size)
    exact = float((forces * direction).sum())
    rotation_error = max(abs(float(rotated_energy - energy)) / scale, np.abs(rotated_forces - forces @ rotation.T).max() / size)
    return [
        _within("Equiformer: energy invariant, forces equivariant under rotation", float(rotation_error), 1e-9),
        _within("Equiformer: forces are the negative gradient of the energy", abs(slope - exact) / max(abs(exact), size), 1e-6),
        _within("Equiformer: compiled equals eager", abs(eager_energy - float(energy)) / scale, 1e-9),
    ]


def check_model() -> list[Check]:
    """`check_potential` for a small Equiformer with random weights, on ethanol."""
    from ase.build import molecule

    from equiform.jobs.train import new_model
    from equiform.models.presets import preset
    from equiform.neighbors import graph_from_atoms
    from equiform.tasks.energy import Potential

    # As small as possible while exercising every part: it is compiled in float64, and also run eagerly.
    small: dict[str, Any] = {"irreps": "8x0e+4x1e+4x2e", "irreps_head": "4x0e+2x1e+2x2e", "irreps_mlp": "8x0e+4x1e+4x2e"}
    config = preset("tiny", elements=(1, 6, 8), num_layers=1, irreps_feature="8x0e", num_basis=8, **small)
    potential = Potential(new_model(config, 0))
    return check_potential(potential, graph_from_atoms(molecule("CH3CH2OH"), config.cutoff))


def diagnose(progress: Callable[[str], None] = lambda name: None) -> list[Check]:
    """Run every check; one that cannot run counts as failed."""
    checks: list[Check] = []
    stages: dict[str, Callable[[], Any]] = {
        "operations": check_operations,
        "compiler": check_reduction,
        "model": check_model,
    }
    for name, stage in stages.items():
        progress(name)
        try:
            found = stage()
        except Exception as error:  # the doctor reports every failure
            found = Check(name, False, f"could not run: {type(error).__name__}: {str(error).splitlines()[0]}")
        checks += found if isinstance(found, list) else [found]
    return checks


def _within(name: str, error: float, allowed: float) -> Check:
    return Check(name, bool(error <= allowed), f"relative error {error:.1e} (allowed {allowed:.0e})")


def _relative(values: np.ndarray, truth: np.ndarray) -> float:
    """Maximum relative error, NaN counted as infinite."""
    error = np.abs(values - truth) / np.maximum(np.abs(truth), 1.0)
    return float(np.where(np.isnan(error), np.inf, error).max())
