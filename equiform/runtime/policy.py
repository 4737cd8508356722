"""The execution policy: how a program that computes the same numbers anywhere is adapted to the machine.

Models declare how many intermediate values an edge needs in a layer; the number of edges per chunk is then chosen here, by the
platform and its memory. On a CPU the values of a chunk stay in cache; elsewhere they take a bounded fraction of the memory, so
that a structure of any size leaves room for what is stored per edge and layer.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax

CACHE_NUMBERS = 2_000_000
"""Values per chunk that stay in a CPU's caches: 8 MB in float32, where the models' steps were fastest."""
MEMORY_SHARE = 1 / 32
"""Fraction of an accelerator's memory for the intermediate values of a chunk."""
UNKNOWN_MEMORY = 8 * 2**30
"""Bytes assumed for a device that does not report its memory."""
NUMBER_BYTES = 4


@dataclass(frozen=True)
class ExecutionPolicy:
    """Chunk sizes of a program.

    Attributes:
        chunk_numbers: Intermediate values per chunk.
        fewest_edges: Minimum edges per chunk; smaller chunks do not pay off.
    """

    chunk_numbers: int
    fewest_edges: int

    def edges_per_chunk(self, numbers_per_edge: int) -> int:
        """Number of edges per chunk.

        Args:
            numbers_per_edge: Intermediate values per edge in the model's largest layer.
        """
        return max(self.chunk_numbers // numbers_per_edge, self.fewest_edges)

    @property
    def logits_at_once(self) -> int:
        """Logits of dense attention held at once; each exists about four times over."""
        return self.chunk_numbers // 4


def policy_for(platform: str, memory: int | None) -> ExecutionPolicy:
    """The policy of a kind of device.

    Args:
        platform: "cpu", "gpu" or "tpu", as JAX calls it.
        memory: Bytes available to programs; None: unknown.
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
    """Edges per chunk; 0: not chunked.

    Args:
        numbers_per_edge: Intermediate values per edge in the model's largest layer.
        requested: The value in the configuration; None: chosen for the device.
    """
    return current_policy().edges_per_chunk(numbers_per_edge) if requested is None else requested


def attention_logits(requested: int | None = None) -> int:
    """Logits of dense attention held at once.

    Args:
        requested: The value that was asked for; None: chosen for the device.
    """
    return current_policy().logits_at_once if requested is None else requested


@cache
def _policy_of(device: Any) -> ExecutionPolicy:
    memory = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
    return policy_for(device.platform, memory)
