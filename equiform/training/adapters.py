"""Low-rank adapters: fine-tuning that changes each linear map by a product of two thin matrices.

    W' = W + A B,   A: rows × rank, drawn from N(0, 1 / rows);   B: rank × columns, zero at the start

W is the old model's and stays as it is. Only A, B and what `Adaptation` calls whole parameters are trained. A and B mix the
channels of one irrep, or of one equivariant map of multivectors, as W does, so a model stays as equivariant as it was.
The step computes W' once and then the ordinary model with it; so a model file with W' is an ordinary model, and nothing is
lost by merging.

Source: Hu et al., ICLR 2022 (arXiv:2106.09685), equation 3. Differs: no factor α / rank, which the learning rate contains; a
matrix that is not larger than its adapter is trained whole; the readout and the tables of elements are trained whole.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from equiform.errors import UserError
from equiform.nn import init
from equiform.persist.parameters import named
from equiform.persist.transfer import element_tables
from equiform.tasks.api import Task
from equiform.training.linear_maps import LinearMap, linear_maps


class LowRank(eqx.Module):
    """The change A B of a stack of matrices.

    Attributes:
        left: A.
        right: B.
        maps_last: The weights have their stack of equivariant maps on the last axis.
    """

    left: Float[Array, "*stack rows rank"]
    right: Float[Array, "*stack rank columns"]
    maps_last: bool = eqx.field(static=True, default=False)

    def change(self) -> Float[Array, "..."]:
        """A B, in the shape of the weights."""
        product = jnp.matmul(self.left, self.right, precision=jax.lax.Precision.HIGHEST)
        return jnp.moveaxis(product, -3, -1) if self.maps_last else product


class Adaptation:
    """How the parameters of a model are made of trained and of frozen ones.

    Trained are the adapters of all linear maps (`linear_maps`), and whole: maps that are not larger than their adapter, the
    readout where the model declares it (`Model.parts`), and the tables with a row for each element. All others (biases, norms,
    attention vectors, kernels of the SE(3)-Transformer) are frozen.

    Args:
        task: The task with the old model.
        params: Its parameters.
        rank: Number of columns of A.

    Raises:
        UserError: No linear map is large enough for adapters of that rank.
    """

    def __init__(self, task: Task, params: Any, rank: int):
        self.rank = rank
        self._structure = jax.tree.structure(params)
        self._shapes = {name: leaf.shape for name, leaf in named(params).items()}
        found = {f"model.{name}": matrix for name, matrix in linear_maps(task.model).items()}
        whole = [f"model.{name}" for name in element_tables(task.model)]
        readout = [f"model.{entry.partition('[')[0]}" for entry in task.model.parts.get("readout", ())]
        whole += [name for name in self._shapes if any(name == part or name.startswith(f"{part}.") for part in readout)]
        outside = {name: matrix for name, matrix in found.items() if name not in whole}
        self._adapted = {name: matrix for name, matrix in outside.items() if rank <= _highest_rank(matrix)}
        if not self._adapted:
            raise UserError(_too_large(task, rank, outside))
        self._whole = {*whole, *(outside.keys() - self._adapted.keys())}

    def initial(self, params: Any, seed: int) -> dict[str, Any]:
        """The trained parameters at the start, by the names of the parameters that they change: no change of any."""
        leaves, trained = named(params), {}
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), self.rank), len(self._adapted))
        for key, (name, matrix) in zip(keys, sorted(self._adapted.items())):
            dtype = leaves[name].dtype
            left = init.normal((*matrix.stack, matrix.rows, self.rank), matrix.rows**-0.5, key=key).astype(dtype)
            right = jnp.asarray(np.zeros((*matrix.stack, self.rank, matrix.columns)), dtype)
            trained[name] = LowRank(left, right, matrix.maps_last)
        return trained | {name: leaves[name] for name in self._whole}

    def frozen(self, params: Any) -> dict[str, Array]:
        """The parameters that do not change, by name: W of the adapters among them."""
        return {name: leaf for name, leaf in named(params).items() if name not in self._whole}

    def merged(self, trained: dict[str, Any], frozen: dict[str, Array]) -> Any:
        """The parameters of the ordinary model."""
        leaves = []
        for name in self._shapes:
            entry = trained.get(name, 0)
            change = entry.change() if isinstance(entry, LowRank) else entry
            leaves.append(change if name in self._whole else frozen[name] + change if name in trained else frozen[name])
        return jax.tree.unflatten(self._structure, leaves)

    def spread(self, values: Any, trained: dict[str, Any]) -> dict[str, Any]:
        """Values for each trained array, given one for each parameter: both factors of an adapter get that of its W."""
        each = named(values)
        return {name: jax.tree.map(lambda _, name=name: each[name], entry) for name, entry in trained.items()}

    def in_words(self) -> str:
        """The numbers of trained and of all parameters, human-readable."""
        sizes = {name: int(np.prod(shape)) for name, shape in self._shapes.items()}
        adapters = sum(
            int(np.prod(matrix.stack)) * self.rank * (matrix.rows + matrix.columns) for matrix in self._adapted.values()
        )
        whole = sum(sizes[name] for name in self._whole)
        return (
            f"adapters of rank {self.rank} on {len(self._adapted)} weights of linear maps: {adapters:,} numbers, and {whole:,} "
            f"parameters that are trained whole; the model has {sum(sizes.values()):,}"
        )


def _highest_rank(matrix: LinearMap) -> int:
    """The highest rank of an adapter with fewer numbers than the matrix: rank (rows + columns) < rows · columns."""
    return (matrix.rows * matrix.columns - 1) // (matrix.rows + matrix.columns)


def _too_large(task: Task, rank: int, matrices: dict[str, LinearMap]) -> str:
    what = f"training.adapters={rank}"
    if not matrices:
        return f"{what}: {type(task.model).__name__} has no linear maps for adapters; leave the setting out"
    largest = max(matrices.values(), key=_highest_rank)
    return (
        f"{what}: adapters of that rank have as many numbers as the linear maps of this {type(task.model).__name__} (the "
        f"largest is {largest.rows} × {largest.columns}); choose a rank of at most {_highest_rank(largest)}, or leave the "
        "setting out to train all parameters"
    )
