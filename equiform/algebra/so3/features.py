"""Features: one array per irrep, together with the irreps.

Layout: one block per chunk, of shape (..., 2l + 1, channels). Channels come last, so that a linear map is one
two-dimensional matrix product per block. `to_mul_ir` converts to e3nn's flat layout (channel slow, component fast).
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from equiform.algebra.so3.irreps import SCALAR, Chunk, Irrep, Irreps


class Features(eqx.Module):
    """Blocks (..., 2l + 1, channels), one per chunk of `irreps`."""

    blocks: tuple[Array, ...]
    irreps: Irreps = eqx.field(static=True)

    def __init__(self, blocks: Sequence[Array], irreps: Irreps | str):
        """Check that blocks and irreps match.

        Raises:
            ValueError: They do not.
        """
        self.blocks, self.irreps = tuple(blocks), Irreps.parse(irreps)
        if len(self.blocks) != len(self.irreps):
            raise ValueError(f"{len(self.blocks)} blocks were given for the irreps {self.irreps}")
        for block, (mul, irrep) in zip(self.blocks, self.irreps):
            # Tree transformations may put non-arrays here.
            if hasattr(block, "shape") and tuple(block.shape[-2:]) != (irrep.dim, mul):
                raise ValueError(f"a block for {mul}x{irrep} must end in {(irrep.dim, mul)}, not {block.shape}")

    def __getitem__(self, index: Array) -> "Features":
        """Select along the leading axis."""
        return self.map(lambda block: block[index])

    def __add__(self, other: "Features") -> "Features":
        if self.irreps != other.irreps:
            raise ValueError(f"cannot add features of irreps {self.irreps} and {other.irreps}")
        return Features([a + b for a, b in zip(self.blocks, other.blocks)], self.irreps)

    def map(self, function: Callable[[Array], Array]) -> "Features":
        """Apply a function that preserves the last two axes to every block."""
        return Features([function(block) for block in self.blocks], self.irreps)

    def gated(self, scalars: Array, gates: Sequence[Array]) -> "Features":
        """Replace the scalars, and multiply every other chunk by its gates, channel by channel."""
        rest, blocks, chunks = iter(gates), [], []
        for block, (mul, irrep) in zip(self.blocks, self.irreps):
            blocks.append(scalars[..., None, :] if irrep == SCALAR else block * next(rest)[..., None, :])
            chunks.append(Chunk(scalars.shape[-1] if irrep == SCALAR else mul, irrep))
        return Features(blocks, Irreps(tuple(chunks)))

    def get(self, irrep: Irrep) -> Array | None:
        """The block of an irrep, None if there is none."""
        for block, chunk in zip(self.blocks, self.irreps):
            if chunk.irrep == irrep:
                return block
        return None

    @property
    def scalars(self) -> Float[Array, "... channels"]:
        """The 0e channels."""
        block = self.get(SCALAR)
        if block is None:
            raise ValueError(f"the irreps {self.irreps} have no 0e channels")
        return block[..., 0, :]

    def to_mul_ir(self) -> Float[Array, "... lm"]:
        """e3nn's flat layout: chunks concatenated, in each the channel slow and the component fast."""
        flat = [jnp.swapaxes(block, -1, -2).reshape(*block.shape[:-2], -1) for block in self.blocks]
        return jnp.concatenate(flat, axis=-1)

    @classmethod
    def from_mul_ir(cls, array: Float[Array, "... lm"], irreps: Irreps | str) -> "Features":
        """The inverse of `to_mul_ir`.

        Raises:
            ValueError: The last axis does not have the dimension of the irreps.
        """
        irreps = Irreps.parse(irreps)
        if array.shape[-1] != irreps.dim:
            raise ValueError(f"irreps {irreps} have dimension {irreps.dim}, the array has {array.shape[-1]}")
        blocks, start = [], 0
        for mul, irrep in irreps:
            part = array[..., start : start + mul * irrep.dim]
            blocks.append(jnp.swapaxes(part.reshape(*array.shape[:-1], mul, irrep.dim), -1, -2))
            start += mul * irrep.dim
        return cls(blocks, irreps)
