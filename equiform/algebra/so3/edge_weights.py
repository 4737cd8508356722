"""Weights of SO(2) (eSCN) convolutions: the matrices that act in the edge frame, from the weights of paths and linear maps.

They do not depend on edges, so a model makes them once per call, for all its layers together, and its loop over layers, with
all the derivatives of a step, contains products with them and nothing else. No array is gathered or sliced here: the transpose
of a split is one concatenation.

Source: Passaro & Zitnick, ICML 2023 (edge frame); Liao & Smidt, ICLR 2023 (the product).
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.algebra.so3.irreps import Chunk, Irrep, Irreps
from equiform.algebra.so3.products import Path, Paths


class RadialLinear(eqx.Module):
    """The linear map behind a product whose path weights differ from edge to edge.

    Attributes:
        matrices: Per output irrep and |m|: the rows that `reaching` paths feed, times their coefficients; None without any.
        irreps: Output irreps.
    """

    matrices: tuple[tuple[Float[Array, "_ _"] | None, ...], ...]
    irreps: Irreps = eqx.field(static=True)


class SharedLinear(eqx.Module):
    """A product whose path weights all edges share, folded together with the linear map behind it.

    Attributes:
        matrices: Per |m|: from all inputs of at least that degree, once for each of `turns`, to all such outputs; None without
            inputs.
        irreps: Output irreps.
    """

    matrices: tuple[Float[Array, "_ _"] | None, ...]
    irreps: Irreps = eqx.field(static=True)


def radial_linear(paths: Paths, matrices: Mapping[str, Float[Array, "_ _"]]) -> RadialLinear:
    """The matrices of a linear map (product channels, output channels) per output irrep; irreps without one are omitted."""
    result, chunks = [], []
    for _, irrep in paths.irreps_out:
        if str(irrep) in matrices:
            matrix = matrices[str(irrep)]
            pieces = _by_group(paths, irrep, matrix)
            result.append(tuple(_rows(matrix, pieces, m) for m in range(irrep.l + 1)))
            chunks.append(Chunk(matrix.shape[1], irrep))
    return RadialLinear(tuple(result), Irreps(tuple(chunks)))


def shared_linear(weights: Float[Array, " weights"], paths: Paths, matrices: Mapping[str, Float[Array, "_ _"]]) -> SharedLinear:
    """The matrices of a product with these weights and the linear map behind it.

    Per |m| they have the structure (x₋, x₊) ↦ (A x₋ − B x₊, A x₊ + B x₋) of a map that commutes with rotations about the edge.
    """
    irreps = Irreps(tuple(Chunk(matrices[str(ir)].shape[1], ir) for _, ir in paths.irreps_out if str(ir) in matrices))
    folded = {}
    groups = [list(group) for _, group in groupby(sorted(paths.created, key=lambda path: path.weight), key=_group)]
    own = jax.lax.split(weights, [len(group) * group[0].mul for group in groups])
    weights_of = {_group(group[0]): piece for group, piece in zip(groups, own)}
    for _, irrep in irreps:
        for group, piece in _by_group(paths, irrep, matrices[str(irrep)]):
            folded[_group(group[0])] = _folded(group, piece, weights_of[_group(group[0])])
    return SharedLinear(tuple(_of_order(m, folded, paths, irreps) for m in range(irreps.l_max + 1)), irreps)


def reaching(paths: Paths, irrep: Irrep, m: int) -> list[Path]:
    """The paths that give components ±m of an output irrep, in the order of its channels."""
    return [path for path in paths.to(irrep) if _orders(path)[0] <= m <= _orders(path)[1]]


def turns(paths: Paths, irreps: Irreps, m: int) -> list[bool]:
    """Whether outputs ±m take ±m of the inputs (False: paths of even parity) and ∓m (True: odd ones)."""
    odd = {path.odd for _, irrep in irreps if irrep.l >= m for path in paths.to(irrep)}
    return sorted(odd if m else {False})


def _group(path: Path) -> tuple[int, Irrep, bool]:
    """Paths that differ in the degree of the harmonic only: their channels are contiguous, and so are their weights."""
    return path.source, path.irrep, path.odd


def _by_group(paths: Paths, irrep: Irrep, matrix: Array) -> list[tuple[list[Path], Array]]:
    groups = [list(group) for _, group in groupby(paths.to(irrep), key=_group)]
    return list(zip(groups, jax.lax.split(matrix, [len(group) * group[0].mul for group in groups])))


def _orders(path: Path) -> tuple[int, int]:
    """Lowest and highest |m| that a path gives."""
    return int(path.odd), min(path.l1, path.irrep.l)


def _rows(matrix: Array, pieces: list[tuple[list[Path], Array]], m: int) -> Array | None:
    mine = [(group, piece) for group, piece in pieces if _orders(group[0])[0] <= m <= _orders(group[0])[1]]
    if not mine:
        return None
    coefficients = np.concatenate([np.full(path.mul, path.coefficient(m)) for group, _ in mine for path in group])
    rows = matrix if len(mine) == len(pieces) else jnp.concatenate([piece for _, piece in mine])
    return rows * jnp.asarray(coefficients, matrix.dtype)[:, None]


def _folded(group: list[Path], matrix: Array, weights: Array) -> dict[int, Float[Array, "channels _"]]:
    """The matrix of a group of paths for each |m|."""
    first, last = _orders(group[0])
    coefficients = np.array([[path.coefficient(m) for path in group] for m in range(first, last + 1)])
    if not len(coefficients):
        return {}
    scaled = (matrix * weights[:, None]).reshape(1, len(group), group[0].mul, -1)
    every = (jnp.asarray(coefficients, matrix.dtype)[:, :, None, None] * scaled).sum(axis=1)
    parts = jax.lax.split(every, [1] * len(every))
    return {m: part[0] for m, part in zip(range(first, last + 1), parts)}


def _of_order(m: int, folded: dict[tuple[int, Irrep, bool], dict[int, Array]], paths: Paths, irreps: Irreps) -> Array | None:
    sources = [source for source, (_, irrep) in enumerate(paths.irreps_in) if irrep.l >= m]
    if not sources:
        return None
    dtype = next(iter(next(iter(folded.values())).values())).dtype

    def columns(odd: bool) -> Iterator[Array]:
        for mul, irrep in irreps:
            if irrep.l >= m:
                blocks = [folded.get((source, irrep, odd), {}).get(m) for source in sources]
                sizes = [paths.irreps_in[source].mul for source in sources]
                zeros = [jnp.zeros((size, mul), dtype) if block is None else block for size, block in zip(sizes, blocks)]
                yield jnp.concatenate(zeros)

    return jnp.concatenate([jnp.concatenate(list(columns(odd)), axis=1) for odd in turns(paths, irreps, m)])
