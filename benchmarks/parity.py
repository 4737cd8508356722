"""Compare Equiform with the stored outputs of the official code: maximum relative error by case and stage, float64.

    python -m benchmarks.parity [CASE ...] [--product aligned|plain] [--no-gradients]

The case `slmc` compares spins on a lattice with stored values of our own derivation, as no code is public.
The references are not part of the product; they are searched for in `shared/parity` next to or above the clone, or in
$EQUIFORM_PARITY.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import gatr_parity, slmc_parity
from benchmarks.official import FULL, SMALL, graph_of, model_of, relative_error, stage_errors
from benchmarks.parity_rays import CASES as RAYS, compare_rays
from equiform.graph import to_device
from equiform.persist.official.names import official_state
from equiform.tasks.energy import Potential

LIMIT = 1e-9


def find_references() -> Path | None:
    """The folder of the references, if there is one."""
    given = os.environ.get("EQUIFORM_PARITY")
    root = Path(__file__).resolve().parents[1]
    places = [Path(given)] if given else [root / "shared" / "parity", root.parent / "shared" / "parity"]
    return next((place for place in places if place.is_dir()), None)


def compare(folder: Path, inputs_name: str, product: str, *, gradients: bool) -> dict[str, float]:
    """Errors of one case."""
    suffix = "" if folder.name in FULL else f"_{inputs_name}"
    inputs = np.load(folder / f"inputs{suffix}.npz")
    expected = np.load(folder / f"outputs_f64{suffix}.npz")
    potential = Potential(model_of(folder, product, np.float64, key=jax.random.key(0)))
    graph = to_device(graph_of(inputs), np.float64)
    stages, result = eqx.filter_jit(lambda p, g: (p.model.stages(g), p(g)))(potential, graph)
    errors = stage_errors(stages, result, {name: expected[name] for name in expected.files})
    if gradients:
        errors["parameter gradients"] = gradient_error(potential, graph, np.load(folder / "param_grads_f64_main.npz"))
    return errors


def gradient_error(potential: Potential, graph: Any, stored: Any) -> float:
    """Maximum error of the parameter gradients of Σ weight · output, each relative to its maximum element."""

    def loss(potential: Potential) -> jax.Array:
        result = potential(graph)
        outputs = {"energy": result["energy"][:, None], "forces": result["forces"], "aux": result.get("aux")}
        weights = {name: stored[f"loss_weight.{name}"] for name in outputs if f"loss_weight.{name}" in stored.files}
        return sum((weight * outputs[name]).sum() for name, weight in weights.items())  # type: ignore[return-value]

    gradients = official_state(eqx.filter_jit(eqx.filter_grad(loss))(potential).model)
    largest = max(np.abs(stored[f"grad.{name}"]).max() for name in gradients)
    # Gradients that are zero up to rounding are compared with the largest one.
    return max(
        relative_error(value, stored[f"grad.{name}"])
        if np.abs(stored[f"grad.{name}"]).max() > 1e-12 * largest
        else float(np.abs(value - stored[f"grad.{name}"]).max() / largest)
        for name, value in gradients.items()
    )


def compare_spins(folder: Path, console: Console) -> float:
    """Print the errors of spins on a lattice; the largest of those that must be exact."""
    start = time.perf_counter()
    exact, loose = slmc_parity.compare(folder)
    table = Table(title=f"slmc · {time.perf_counter() - start:.0f} s")
    table.add_column("array")
    table.add_column("max relative error", justify="right")
    for name, error in exact.items():
        table.add_row(name, f"{error:.1e}", style=None if error <= LIMIT else "red")
    for name, error in loose.items():
        table.add_row(f"{name}, not limited", f"{error:.1e}")
    console.print(table)
    return max(exact.values())


def compare_gatr(folder: Path, console: Console) -> float:
    """Print the table of GATr's cases; the largest error in units of its limit, times `LIMIT`."""
    start, errors = time.perf_counter(), gatr_parity.all_errors(folder)
    table = Table(title=f"gatr · {time.perf_counter() - start:.0f} s")
    for heading in ("case", "max relative error", "limit"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, (error, limit) in errors.items():
        table.add_row(name, f"{error:.1e}", f"{limit:.0e}", style=None if error <= limit else "red")
    console.print(table)
    return LIMIT * max(error / limit for error, limit in errors.values())


TABLES = {"slmc": compare_spins, "gatr": compare_gatr}
"""Systems without an official checkpoint: each prints its table and returns its largest error, relative to `LIMIT`."""


def main(arguments: list[str] | None = None) -> int:
    """Print the table; the exit status says whether all errors are within 1e-9."""
    parser = argparse.ArgumentParser(description="compare with the official code's stored outputs")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join((*SMALL, *FULL, *TABLES, *RAYS))}; by default all")
    parser.add_argument("--product", choices=("aligned", "plain"), default="aligned")
    parser.add_argument("--no-gradients", action="store_true", help="skip the parameter gradients (faster)")
    options = parser.parse_args(arguments)
    root = find_references()
    if root is None:
        print(
            "the official reference outputs (shared/parity) are missing; set EQUIFORM_PARITY to their folder", file=sys.stderr
        )
        return 1
    jax.config.update("jax_enable_x64", True)
    console, worst = Console(), 0.0
    for case in options.cases or (*SMALL, *FULL, *TABLES, *RAYS):
        folder = root / case
        jax.clear_caches()  # compiled programs take memory mappings, of which Linux allows a process 65,530
        if case in TABLES:
            worst = max(worst, TABLES[case](folder, console))
            continue
        if case in RAYS:
            start = time.perf_counter()
            errors = compare_rays(root, case)
            console.print(_table(f"{case} · {time.perf_counter() - start:.0f} s", errors))
            worst = max(worst, *errors.values())
            continue
        for name in ("main", "edge") if (folder / "inputs_edge.npz").exists() else ("main",):
            start = time.perf_counter()
            gradients = name == "main" and case not in FULL and not options.no_gradients
            errors = compare(folder, name, options.product, gradients=gradients)
            console.print(_table(f"{case} · {name} · {options.product} · {time.perf_counter() - start:.0f} s", errors))
            worst = max(worst, *errors.values())
    console.print(f"largest error: {worst:.1e} (limit {LIMIT:.0e})")
    return int(not worst <= LIMIT)


def _table(title: str, errors: dict[str, float]) -> Table:
    table = Table(title=title)
    table.add_column("stage")
    table.add_column("max relative error", justify="right")
    for stage, error in errors.items():
        table.add_row(stage, f"{error:.1e}", style=None if error <= LIMIT else "red")
    return table


if __name__ == "__main__":
    sys.exit(main())
