"""Processor time and memory of a step of the lattice samplers against the lattice's size.

    python -m benchmarks.slmc_scaling [--edges 4 6 8 10] [--repeats 3]

Processor time of one chain on one thread, compilation left out, so that other work on the machine matters little; memory is
what XLA plans for temporary arrays.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from equiform.models.spin_linear import SpinLinear, SpinLinearConfig
from equiform.models.spin_transformer import SpinTransformer, SpinTransformerConfig
from equiform.papers.double_exchange_tables import markdown
from equiform.simulate.monte_carlo.double_exchange import DoubleExchange, DoubleExchangeConfig
from equiform.simulate.monte_carlo.metropolis import metropolis
from equiform.simulate.monte_carlo.sampler import Sampler, random_spins, start_of
from equiform.simulate.monte_carlo.self_learning import SelfLearning, whole_lattice

TEMPERATURE = 0.05
SHELLS = (1, 2, 4, 5)
"""Of 4 × 4 lattices and all larger ones."""


def samplers(config: DoubleExchangeConfig) -> dict[str, Sampler]:
    """Sweeps of local flips, and proposals of one effective sweep."""
    model, lattice = DoubleExchange.of(config), config.lattice
    found: dict[str, Sampler] = {
        "local, diagonalisation": metropolis(model, TEMPERATURE, "diagonalization"),
        "local, determinant": metropolis(model, TEMPERATURE),
    }
    everything = whole_lattice(lattice.num_sites)
    found["linear"] = SelfLearning(SpinLinear(SpinLinearConfig(shells=SHELLS)).on(lattice), 1, everything)
    for layers in (1, 3):
        transformer = SpinTransformer(SpinTransformerConfig(num_layers=layers, shells=SHELLS), key=jax.random.key(0))
        found[f"transformer, L = {layers}"] = SelfLearning(transformer.on(lattice), 1, everything)
    return found


def measure(config: DoubleExchangeConfig, sampler: Sampler, repeats: int) -> tuple[float, float]:
    """Milliseconds of processor time and MiB of temporary memory of a step."""
    model, temperature = DoubleExchange.of(config), jnp.asarray(TEMPERATURE)
    state = start_of(model, temperature, random_spins(jax.random.key(1), config.lattice.num_sites))
    arrays, rest = eqx.partition((model, sampler), eqx.is_array)

    def step(arrays: Any, state: Any, key: Any) -> Any:
        model, sampler = eqx.combine(arrays, rest)
        return sampler.step(model, temperature, state, key)

    program = jax.jit(step).lower(arrays, state, jax.random.key(2)).compile()
    times = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        jax.block_until_ready(program(arrays, state, jax.random.key(2)))
        times.append(time.process_time() - begin)
    planned = program.memory_analysis()
    return 1e3 * min(times[1:]), (planned.temp_size_in_bytes if planned else float("nan")) / 2**20


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="cost of a step against the lattice's size")
    parser.add_argument("--edges", type=int, nargs="+", default=[4, 6, 8, 10])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    rows: dict[str, list[str]] = {}
    for edge in options.edges:
        config = DoubleExchangeConfig(size=(edge, edge))
        for name, sampler in samplers(config).items():
            milliseconds, mebibytes = measure(config, sampler, options.repeats)
            rows.setdefault(name, [name]).append(f"{milliseconds:.1f} ms, {mebibytes:.1f} MiB")
    print(markdown(["step", *(f"{edge} × {edge}" for edge in options.edges)], list(rows.values())))


if __name__ == "__main__":
    main()
