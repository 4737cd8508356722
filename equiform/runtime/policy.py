"""The execution policy: what a machine wants of a program that computes the same numbers anywhere.

Models declare how many intermediate numbers an edge needs in a layer; how many edges are then computed at a time is decided
here, by the platform and its memory. On a processor the numbers of a chunk stay in its caches; elsewhere they take a bounded
share of the memory, so that a structure of any size leaves room for what is stored per edge and layer.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax

CACHE_NUMBERS = 2_000_000
"""Numbers whose chunk stays in a processor's caches: 8 MB in float32, where the models' steps were fastest."""
MEMORY_SHARE = 1 / 32
"""Of an accelerator's memory, for the intermediate numbers of a chunk."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes, for a device that does not say how much it has."""
NUMBER_BYTES = 4


@dataclass(frozen=True)
class ExecutionPolicy:
    """How large the pieces of a program are.

    Attributes:
        chunk_numbers: Intermediate numbers of the edges that are computed at a time.
        fewest_edges: Edges of a chunk at least, or it does not pay.
    """

    chunk_numbers: int
    fewest_edges: int

    def edges_per_chunk(self, numbers_per_edge: int) -> int:
        """How many edges are computed at a time.

        Args:
            numbers_per_edge: Intermediate numbers of an edge in the model's largest layer.
        """
        return max(self.chunk_numbers // numbers_per_edge, self.fewest_edges)


def policy_for(platform: str, memory: int | None) -> ExecutionPolicy:
    """The policy of a kind of device.

    Args:
        platform: "cpu", "gpu" or "tpu", as JAX calls it.
        memory: Bytes that programs may use; None: not known.
    """
    if platform == "cpu":
        return ExecutionPolicy(CACHE_NUMBERS, fewest_edges=64)
    # Fewer edges than this do not fill a large accelerator.
    numbers = int((memory or UNKNOWN_MEMORY) * MEMORY_SHARE) // NUMBER_BYTES
    return ExecutionPolicy(numbers, fewest_edges=8192)


def current_policy() -> ExecutionPolicy:
    """The policy of the device that programs run on."""
    return _policy_of(jax.local_devices()[0])


def edge_chunk(numbers_per_edge: int, requested: int | None = None) -> int:
    """Edges computed at a time, 0 for all.

    Args:
        numbers_per_edge: Intermediate numbers of an edge in the model's largest layer.
        requested: What the configuration says; None: what suits the device.
    """
    return current_policy().edges_per_chunk(numbers_per_edge) if requested is None else requested


@cache
def _policy_of(device: Any) -> ExecutionPolicy:
    memory = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    return policy_for(device.platform, memory)
