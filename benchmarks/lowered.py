"""Operations of the programs of Equiformers before compilation: what a GPU would launch, counted without one.

    python -m benchmarks.lowered [PROGRAM ...] [--markdown] [--scatters]

Programs are traced in the form that they have on a GPU, not chunked over edges. Nothing is compiled or run, except what makes
the inputs: a few seconds a program.
"""

import argparse
from collections.abc import Callable

import jax
from rich.console import Console
from rich.table import Table

from equiform.benchmark.inputs import molecules_of, silicon
from equiform.benchmark.lowered import Counts, count_operations
from equiform.benchmark.programs import lowered_evaluation, lowered_step, new_potential
from equiform.graph import batch

COLUMNS: dict[str, Callable[[Counts], int]] = {
    "all": lambda counts: counts.total,
    "products": lambda counts: counts.operations["dot_general"],
    "reductions": lambda counts: counts.operations["reduce"],
    "gathers": lambda counts: counts.operations["gather"],
    "scatters": lambda counts: counts.operations["scatter"],
    "in any order": lambda counts: counts.unordered,
    "crowded": lambda counts: counts.crowded,
    "pads": lambda counts: counts.operations["pad"],
    "concatenations": lambda counts: counts.operations["concatenate"],
    "slices": lambda counts: counts.operations["slice"],
    "slices of stacks": lambda counts: counts.loop_copies,
}
ELEMENTS = (1, 6, 7, 8)


def step(preset: str) -> jax.stages.Lowered:
    """A training step on energies and forces of eight aspirins."""
    return lowered_step(new_potential(preset, ELEMENTS, edge_chunk=0), batch(molecules_of("aspirin", None)[0]), forces=True)


def forces(preset: str) -> jax.stages.Lowered:
    """Energy and forces of one aspirin."""
    graph = molecules_of("aspirin", None)[0][0]
    return lowered_evaluation(new_potential(preset, ELEMENTS, edge_chunk=0), graph, forces=True, stress=False)


def stress(preset: str) -> jax.stages.Lowered:
    """Energy, forces and stress of a crystal."""
    return lowered_evaluation(new_potential(preset, (14,), edge_chunk=0), silicon(64).graph, forces=True, stress=True)


PROGRAMS = {
    "tiny-step": lambda: step("tiny"),
    "small-step": lambda: step("small"),
    "md17-l2-step": lambda: step("md17-l2"),
    "tiny-forces": lambda: forces("tiny"),
    "md17-l2-forces": lambda: forces("md17-l2"),
    "small-stress": lambda: stress("small"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--scatters", action="store_true", help="list every form of scatter too")
    options = parser.parse_args()
    if unknown := sorted({*options.programs} - {*PROGRAMS}):
        parser.error(f"there is no program {unknown[0]}; there are {', '.join(PROGRAMS)}")
    found = {name: count_operations(PROGRAMS[name]()) for name in options.programs or PROGRAMS}
    rows = {name: [f"{number(counts):,}" for number in COLUMNS.values()] for name, counts in found.items()}
    if options.markdown:
        print("| program | " + " | ".join(COLUMNS) + " |\n| --- |" + " ---: |" * len(COLUMNS))
        print("\n".join(f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items()))
    else:
        table = Table("program", *COLUMNS)
        for name, row in rows.items():
            table.add_row(name, *row)
        Console(width=160).print(table)
    if options.scatters:
        for name, counts in found.items():
            for scatter, count in sorted(counts.scatters.items()):
                order = "ordered" if scatter.ordered else "in any order"
                rows_of = f"{scatter.updates} rows of {scatter.width} into {scatter.addresses} addresses"
                print(f"{name}: {count} × {rows_of}, {order}{', crowded' if scatter.crowded else ''}")


if __name__ == "__main__":
    main()
