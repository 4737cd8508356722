"""Edge-dependent maps between features of different degrees, every input channel to every output channel.

The most general equivariant kernel from degree k to degree l (the convolution of Tensor Field Networks), for an edge vector r,
is

    W^{lk}(r) = Σ_J φ_J(|r|) Σ_m Y_Jm(r̂) Q_Jm,   J = |l − k| … l + k,   Q the Clebsch–Gordan coefficients,

with a matrix φ_J (channels in × out) per edge. With the edge as polar axis it is an SO(2) (eSCN) convolution, any map that
commutes with rotations about the axis: for each order m ≤ min(l, k) a complex number per pair of channels, real for m = 0.
Their real and imaginary parts are as many as the degrees J, and a fixed square matrix, `kernel_table`, converts one to the
other; Y and Q are never formed. All degrees of one order are then mapped in one product.

Edges are the last axis, because channels are few. Orders are stored separately: one array per m with rows −m and +m (m = 0: one
row).

Source: Thomas et al., 2018 (kernels); Weiler et al., NeurIPS 2018 (their completeness); Passaro & Zitnick, ICML 2023 (edge
frame).
"""

from collections.abc import Sequence
from functools import cache
from math import pi, sqrt

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.so3.irreps import Irrep
from equiform.algebra.so3.products import Path
from equiform.algebra.so3.rotations import Directions


def kernel_degrees(l_in: int, l_out: int, *, true_parity: bool) -> list[int]:
    """The degrees J of a kernel; with true parities (−1)^l only even l + k + J, the parity selection rule."""
    return [J for J in range(abs(l_in - l_out), l_in + l_out + 1) if not (true_parity and (l_in + l_out + J) % 2)]


def num_turns(m: int, *, true_parity: bool) -> int:
    """Number of real coefficients of an order: the real part, and the imaginary part if there is one."""
    return 1 if m == 0 or true_parity else 2


@cache
def kernel_table(
    degrees_in: tuple[int, ...], degrees_out: tuple[int, ...], *, true_parity: bool
) -> Float[np.ndarray, "kernels numbers"]:
    """Contribution of each φ_J to each real coefficient of the map in the edge frame.

    Rows are ordered by (source, target, J), columns by (order m, real before imaginary, source, target), sources and targets of
    degree at least m. Y has norm 1 over the sphere, Q over all its indices.

    Args:
        degrees_in: Degrees of the sources, ascending.
        degrees_out: Degrees of the targets, ascending; repeats are allowed.
        true_parity: See `kernel_degrees`.
    """
    columns = {
        (m, turn, source, target): None
        for m in range(min(max(degrees_in), max(degrees_out)) + 1)
        for turn in range(num_turns(m, true_parity=true_parity))
        for source, k in enumerate(degrees_in)
        for target, l in enumerate(degrees_out)
        if min(k, l) >= m
    }
    place = {name: index for index, name in enumerate(columns)}
    rows = []
    for source, k in enumerate(degrees_in):
        for target, l in enumerate(degrees_out):
            for J in kernel_degrees(k, l, true_parity=true_parity):
                path, row = Path(0, k, J, Irrep(l, 1), 1, 0, 0), np.zeros(len(place))
                for m in range(1 if path.odd else 0, min(k, l) + 1):
                    row[place[m, int(path.odd), source, target]] = path.coefficient(m) / sqrt(4 * pi * (2 * l + 1))
                rows.append(row)
    return np.array(rows)


def frame_rotation(directions: Directions, l: int) -> Float[Array, "rows components edges"]:
    """The rotation of degree l into the edge frame, its rows ordered 0, −1, +1, −2, +2, …"""
    return jnp.moveaxis(jnp.concatenate(directions.rotations[l], axis=1), 0, -1)


def into_frame(
    blocks: Sequence[Float[Array, "_ channels edges"]], rotations: Sequence[Float[Array, "_ _ edges"]]
) -> list[Float[Array, "_ _ channels edges"]]:
    """Components in the edge frame: per order m, those of all sources of degree at least m.

    Args:
        blocks: Features of the sources by ascending degree, all with the same number of channels.
        rotations: The rotation of each source.
    """
    rotated = [(rotation[:, :, None] * block[None]).sum(axis=1) for block, rotation in zip(blocks, rotations)]
    top = (rotated[-1].shape[0] - 1) // 2
    rows = [slice(max(2 * m - 1, 0), 2 * m + 1) for m in range(top + 1)]
    return [jnp.stack([block[rows[m]] for block in rotated if block.shape[0] > 2 * m], axis=1) for m in range(top + 1)]


def out_of_frame(
    x: Sequence[Float[Array, "_ _ channels edges"]],
    counts: Sequence[int],
    rotations: Sequence[Float[Array, "_ _ edges"]],
) -> list[Float[Array, "_ _ edges"]]:
    """The inverse of `into_frame`, with the targets of each degree concatenated into one block.

    Args:
        x: Per order, the components of all targets of at least that degree; orders that no source has are omitted.
        counts: Number of targets of each degree, ascending.
        rotations: The rotation of each of these degrees.
    """
    blocks, start = [], 0
    for count, rotation in zip(counts, rotations):
        l = (rotation.shape[0] - 1) // 2
        parts = []
        for m in range(min(l + 1, len(x))):
            skipped = sum(counts) - x[m].shape[1]  # targets of degree below m
            part = x[m][:, start - skipped : start - skipped + count]
            parts.append(part.reshape(part.shape[0], -1, part.shape[-1]))
        rows = jnp.concatenate(parts)
        blocks.append((rotation[: len(rows), :, None] * rows[:, None]).sum(axis=0))
        start += count
    return blocks


def frame_product(
    x: Float[Array, "rows sources channels_in edges"],
    weights: Float[Array, "sources targets turns channels_in channels_out edges"],
) -> Float[Array, "rows targets channels_out edges"]:
    """SO(2) convolution of order m: y₋ = a x₋ − b x₊, y₊ = a x₊ + b x₋, (a, b) = weights, summed over sources and channels."""
    product = weights[None, :, :, 0] * x[:, :, None, :, None]
    if weights.shape[2] == 2:
        turned = jnp.stack([-x[1], x[0]])
        product = product + weights[None, :, :, 1] * turned[:, :, None, :, None]
    return product.sum(axis=(1, 3))
