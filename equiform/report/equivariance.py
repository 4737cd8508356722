"""Equivariance error of a model that predicts vectors per particle, as in N-body tables: Δ_EQ.

    Δ_EQ = ‖L Φ(x) − Φ(L x)‖ / ‖L Φ(x)‖,   L a random rotation about the origin

Positions and fields rotate together, each field by its declared representation.

Source: Fuchs et al., NeurIPS 2020 (definition and the column of the table).
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from equiform.algebra.so3.rotations import random_rotation
from equiform.data.pipeline.rotate import rotated
from equiform.fields import DECLARED, Axis, Field
from equiform.graph import AnyArray, Graph
from equiform.tasks.api import Task

if TYPE_CHECKING:
    from equiform.data.pipeline.dataset import Dataset

_VECTOR = ("atoms", "polar")
SAMPLES = 100
"""Number of structures of a test set on which the error of a trained model is measured."""

Predict = Callable[[Graph], Float[AnyArray, "atoms 3"]]


def equivariance_error(
    predict: Predict,
    graph: Graph,
    *,
    declared: Mapping[tuple[Axis, str], Field] = DECLARED,
    num_rotations: int = 8,
    mirrored: bool = False,
    shift: float = 0.0,
    seed: int = 0,
) -> float:
    """The mean of Δ_EQ over random rotations, padding excluded.

    Args:
        predict: Φ, vectors per node of a batch that do not depend on the origin (a displacement, a change of velocity).
        graph: x, a host graph with any number of structures.
        declared: Declarations of the graph's fields.
        num_rotations: Number of rotations.
        mirrored: Combine every other rotation with an inversion (O(3) instead of SO(3)).
        shift: Also translate everything by a random vector with this standard deviation per axis.
        seed: Seed of the rotations and shifts.

    Raises:
        ValueError: All vectors are zero, so the relative error is undefined.
    """
    rng = np.random.default_rng(seed)
    before, real = np.asarray(predict(graph), np.float64), np.asarray(graph.atom_mask)
    if not np.abs(before[real]).max(initial=0) > 0:
        raise ValueError("all vectors are zero: the relative error is undefined")
    errors = []
    for number in range(num_rotations):
        rotation = random_rotation(seed + number) * (-1 if mirrored and number % 2 else 1)
        moved = rotated(graph, np.broadcast_to(rotation, (len(graph.graph_mask), 3, 3)), declared)
        moved = moved.replace(positions=moved.positions + shift * rng.normal(size=(1, 3)))
        expected = (before @ rotation.T)[real]
        found = np.asarray(predict(moved), np.float64)[real]
        errors.append(np.linalg.norm(expected - found) / np.linalg.norm(expected))
    return float(np.mean(errors))


def equivariance_errors(task: Task, dataset: "Dataset", names: Collection[str], *, dtype: str = "float32") -> dict[str, float]:
    """Δ_EQ of each per-node vector of a trained model, on the first `SAMPLES` structures of a data set.

    Args:
        task: The trained model.
        dataset: Host graphs.
        names: Targets; those that are not vectors per node, or are zero everywhere, are skipped.
        dtype: Precision of weights and arithmetic.
    """
    import equinox as eqx
    import jax

    from equiform.graph import batch, to_device
    from equiform.persist.parameters import with_dtype

    with jax.enable_x64(dtype == "float64"):
        cast, graph = with_dtype(task, dtype), batch(dataset.gathered(range(min(SAMPLES, len(dataset))), None))
        outputs = eqx.filter_jit(lambda task, graph: task.predict(graph, names))

        def predict(graph: Graph, name: str) -> AnyArray:
            return outputs(cast, to_device(graph, np.dtype(dtype)))[name]

        vectors = {target.name for target in task.targets if (target.field.axis, target.field.representation) == _VECTOR}
        unmoved = outputs(cast, to_device(graph, np.dtype(dtype)))
        nonzero = [name for name in names if name in vectors and np.abs(np.asarray(unmoved[name])).max() > 0]
        known = dataset.declared
        return {name: equivariance_error(lambda g, name=name: predict(g, name), graph, declared=known) for name in nonzero}
