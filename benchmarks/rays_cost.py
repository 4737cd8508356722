"""Time and memory of a training step of the ray transformer against the number of rays.

    python -m benchmarks.rays_cost [--rays 16 32 64]

Sizes are those of `equiform recipe run rays-occupancy --scaled`. Times are processor times, so other programs on the machine
do not count; memory is the compiler's figure for temporary arrays.
"""

import argparse
import time

import equinox as eqx
import jax
from rich.console import Console
from rich.table import Table

from equiform.data.sets.rays_scenes import make_sample
from equiform.papers.rays_occupancy import RAYS, OccupancyStudy, batches, example, new_task
from equiform.persist.parameters import split

REPEATS = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, nargs="+", default=[16, 32, 64])
    options = parser.parse_args()
    examples, table = [example(make_sample("train", number)) for number in range(4)], Table()
    for column in ("rays", "processor time of a step, ms", "temporary memory, MB", "processor time of compiling, s"):
        table.add_column(column, justify="right")
    for rays in options.rays:
        study = OccupancyStudy().scaled().model_copy(update={"rays": rays})
        params, static = split(new_task(RAYS, study))
        batch = batches(examples, study, augmented=False)(0)
        start = time.process_time()
        program = jax.jit(jax.value_and_grad(lambda p, b, s=static: eqx.combine(p, s).loss(b))).lower(params, batch).compile()
        compiling, start = time.process_time() - start, time.process_time()
        for _ in range(REPEATS):
            jax.block_until_ready(program(params, batch))
        spent = (time.process_time() - start) / REPEATS
        memory = program.memory_analysis().temp_size_in_bytes / 1e6
        table.add_row(str(rays), f"{1e3 * spent:.0f}", f"{memory:.0f}", f"{compiling:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
