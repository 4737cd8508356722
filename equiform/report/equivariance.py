"""How far a model of vectors per particle is from equivariance: the error of N-body tables, Δ_EQ.

    Δ_EQ = ‖L Φ(x) − Φ(L x)‖ / ‖L Φ(x)‖,   L a random rotation about the origin

Positions and fields rotate together, each field as it is declared: positions alone would be another problem.

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
"""Structures of a test set that the error of a trained model is measured on."""

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
    """The mean of Δ_EQ over random rotations, padding left out.

    Args:
        predict: Φ, vectors per node of a batch that do not depend on the origin (a displacement, a change of velocity).
        graph: x, a host graph; of any number of structures.
        declared: Declarations of the graph's fields.
        num_rotations: How many.
        mirrored: Turn every other one over as well (O(3) instead of SO(3)).
        shift: Also move everything by a random vector with this standard deviation per axis.
        seed: Of the rotations and shifts.

    Raises:
        ValueError: All vectors are zero, so that no error is relative to them.
    """
    rng = np.random.default_rng(seed)
    before, real = np.asarray(predict(graph), np.float64), np.asarray(graph.atom_mask)
    if not np.abs(before[real]).max(initial=0) > 0:
        raise ValueError("all vectors are zero: there is nothing to compare errors with")
    errors = []
    for number in range(num_rotations):
        turn = random_rotation(seed + number) * (-1 if mirrored and number % 2 else 1)
        moved = rotated(graph, np.broadcast_to(turn, (len(graph.graph_mask), 3, 3)), declared)
        moved = moved.replace(positions=moved.positions + shift * rng.normal(size=(1, 3)))
        expected = (before @ turn.T)[real]
        found = np.asarray(predict(moved), np.float64)[real]
        errors.append(np.linalg.norm(expected - found) / np.linalg.norm(expected))
    return float(np.mean(errors))


def equivariance_errors(task: Task, dataset: "Dataset", names: Collection[str], *, dtype: str = "float32") -> dict[str, float]:
    """Δ_EQ of each vector that a trained model gives the nodes of a data set, on its first `SAMPLES` structures.

    Args:
        task: The trained model.
        dataset: Host graphs.
        names: Targets; those that are no vectors per node, or zero everywhere, are left out.
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
        wanted = [name for name in names if name in vectors and np.abs(np.asarray(unmoved[name])).max() > 0]
        known = dataset.declared
        return {name: equivariance_error(lambda g, name=name: predict(g, name), graph, declared=known) for name in wanted}
