"""Time and memory of GATr's attention, 1,000 to 16,000 tokens, in pieces and all at once.

python -m benchmarks.gatr_attention                                   one attention layer of the artery model, a table
python -m benchmarks.gatr_attention --tokens 1024 4096 --repeats 5    these sizes
python -m benchmarks.gatr_attention --model                           the whole artery network, blocks rematerialised

Memory is what the compiled program reserves beside its inputs and outputs, as the compiler reports it; a case that would
reserve more than --limit is compiled and not run.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.algebra.clifford.geometry import projective
from equiform.models.gatr import GATr
from equiform.models.gatr_presets import gatr_preset
from equiform.nn.dense_attention import Execution
from equiform.nn.multivector_attention import multivector_attention

TOKENS = (1024, 2048, 4096, 8192, 16384)
_HEADS, _CHANNELS, _SCALARS = 4, 4, 16  # of the artery model
_EVERYTHING = 2**62


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=4.0, help="GiB that a case may reserve")
    parser.add_argument("--model", action="store_true", help="the whole network in place of one layer")
    options = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, float32, median of {options.repeats}\n")
    print("| tokens | what | queries | seconds | memory, MiB |\n|---:|---|---|---:|---:|")
    for tokens in options.tokens:
        for what, function, inputs in _network(tokens) if options.model else _layer(tokens):
            for name, execution in (
                ("in pieces", Execution(rematerialise=options.model)),
                ("at once", _at_once(options.model)),
            ):
                seconds, memory = _measure(function, execution, inputs, options.repeats, options.limit)
                time_column = "not run" if seconds is None else f"{seconds:.3f}"
                print(f"| {tokens:,} | {what} | {name} | {time_column} | {memory / 2**20:,.0f} |", flush=True)


Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


def _at_once(rematerialise: bool) -> Execution:
    return Execution(max_logits=_EVERYTHING, rematerialise=rematerialise)


def _layer(tokens: int) -> list[Case]:
    """Forward, and forward with backward, of attention with keys and values shared by all heads."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=(1, tokens, *shape)), jnp.float32)

    queries = draw(_HEADS, _CHANNELS, 16), draw(_HEADS, _SCALARS)
    keys, values = [(draw(1, _CHANNELS, 16), draw(1, _SCALARS)) for _ in range(2)]
    weights = jnp.zeros((_HEADS, _CHANNELS))

    def forward(execution: Execution, queries: Any, keys: Any, values: Any) -> Any:
        return multivector_attention(projective(), queries, keys, values, log_weights=weights, execution=execution)

    def both(execution: Execution, *inputs: Any) -> Any:
        return jax.grad(lambda inputs: sum((x**2).sum() for x in forward(execution, *inputs)))(inputs)

    return [("layer, forward", forward, (queries, keys, values)), ("layer, both", both, (queries, keys, values))]


def _network(tokens: int) -> list[Case]:
    """A gradient of the artery model."""
    rng = np.random.default_rng(0)
    arrays, static = eqx.partition(GATr(gatr_preset("gatr-arteries"), key=jax.random.key(0)), eqx.is_array)
    x = jnp.asarray(rng.normal(size=(1, tokens, 3, 16)), jnp.float32)
    s = jnp.asarray(rng.normal(size=(1, tokens, 1)), jnp.float32)

    def both(execution: Execution, arrays: Any, x: Any, s: Any) -> Any:
        def loss(arrays: Any) -> Any:
            return (eqx.combine(arrays, static)(x, s, execution=execution)[0] ** 2).mean()

        return jax.grad(loss)(arrays)

    return [("artery network, both", both, (arrays, x, s))]


def _measure(
    function: Callable[..., Any], execution: Execution, inputs: Any, repeats: int, limit: float
) -> tuple[float | None, int]:
    """Median seconds, None if it is too large to run, and reserved bytes."""
    compiled = jax.jit(function, static_argnums=0).lower(execution, *inputs).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    if memory > limit * 2**30:
        return None, memory
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), memory


if __name__ == "__main__":
    main()
