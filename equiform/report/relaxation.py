"""Prediction of the end of a relaxation: a model's displacement readout on held-out relaxations, against two baselines.

The baselines: nothing moves; everything moves along its force. The step length of the second is fitted on the training
relaxations; a further row uses the optimal step for the evaluated frames themselves, which no method could know.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from equiform.data.pipeline.dataset import Dataset
from equiform.data.sets import oc20
from equiform.data.sets.catalogue import open_store
from equiform.data.sets.config import SetConfig
from equiform.data.sets.prepare import system_split
from equiform.data.store.files import Store
from equiform.data.store.graphs import Noise, StoredGraphs
from equiform.data.store.neighborhood import oc20_neighborhood
from equiform.errors import UserError
from equiform.graph import Graph
from equiform.persist.modelfile import LoadedModel

READOUT = "displacement"


class Rule(NamedTuple):
    """Errors of a predicted displacement, over the atoms with tag > 0.

    Attributes:
        name: Name of the prediction.
        mae: Mean absolute error of a component, Å.
        cosine: Mean over frames of the cosine between predicted and true displacement of all atoms; NaN without displacement.
    """

    name: str
    mae: float
    cosine: float


class Comparison(NamedTuple):
    """The model and the baselines on a set of frames.

    Attributes:
        frames: Description of the frames.
        count: Number of frames.
        rules: The model and the baselines.
    """

    frames: str
    count: int
    rules: list[Rule]


def compare_relaxations(
    loaded: LoadedModel, *, folder: str | None = None, dtype: str = "float32"
) -> tuple[str, list[Comparison]]:
    """The model of an OC20 run split by system, on its training and its held-out systems.

    Compared are the first frames, all frames that still move, and, if the model was trained with noise, all held-out frames
    displaced as in training.

    Args:
        loaded: The model, with the data section of its run.
        folder: Folder of the relaxations; None: the one used in training.
        dtype: Precision.

    Returns:
        A description of the split, and the comparisons.

    Raises:
        UserError: The model was not trained on such data, or has no such readout.
    """
    from equiform.training.evaluate import evaluate_with_values

    task, trained = loaded.task, dict(loaded.metadata.get("data") or {})
    traits = task.model.traits
    if READOUT not in [field.name for field in traits.vectors]:
        raise UserError(f"this model has no {READOUT} readout; train one with a recipe such as oc20-is2rs")
    if trained.get("set") != "oc20-is2re" or trained.get("split") != "systems":
        raise UserError("this model was not trained on relaxations split by system (data.set=oc20-is2re, data.split=systems)")
    settings = SetConfig(**{**trained, **({"folder": folder} if folder is not None else {})})
    store = open_store("oc20-is2re", oc20.SAMPLE, settings.folder)
    split = system_split(store, settings.seed)
    neighborhood = oc20_neighborhood(traits.edge_cutoff)
    graphs = partial(
        StoredGraphs,
        store,
        edges=store.edges(neighborhood),
        node_labels={"tags": "tags"},
        node_values={READOUT: lambda row: oc20.displacement(store, row)},
        noise=Noise(lambda row, rng: oc20.draw_positions(store, row, rng, probability=1.0), neighborhood),
    )

    def predicted(parts: Sequence[Graph]) -> Any:
        dataset = Dataset(parts, traits.cutoff)
        return evaluate_with_values(task, dataset, targets=[READOUT], batch_size=8, dtype=dtype).values[READOUT]

    found, steps = [], {}
    for part, rows_of_part in (("training", split.train), ("held-out", split.test)):
        for name, rows in _start_or_moving(store, rows_of_part).items():
            forces = np.concatenate([_free(store, row, store.rows("forces", row)) for row in rows.tolist()])
            values = predicted(graphs(rows))
            if part == "training":
                steps[name] = _best_step(forces, _in_order(values)[1])
            found.append(Comparison(f"{name} of {part} systems", len(rows), _rules(values, (forces, steps[name]))))
    if settings.noise:
        rows = np.sort(split.test)
        noised = graphs(rows).gathered(range(len(rows)), (settings.seed, 0))
        found.append(Comparison("displaced frames of held-out systems", len(rows), _rules(predicted(noised))))
    return split.about, found


def _start_or_moving(store: Store, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The frames that are compared, in the order of the store; the last frame of a relaxation has zero displacement."""
    rows = np.sort(rows)
    moving = [row for row in rows.tolist() if np.nanmax(np.abs(oc20.displacement(store, row))) > 0.01]
    return {
        "first frames": rows[np.asarray(store["frame"])[rows] == 0],
        "frames with more than 0.01 Å to go": np.asarray(moving, np.int64),
    }


def _best_step(forces: np.ndarray, true: np.ndarray) -> float:
    """The step with the lowest mean absolute error: the median of true / force, weighted by |force|."""
    weights, ratios = np.abs(forces).ravel(), (true / np.where(forces == 0, np.inf, forces)).ravel()
    order = np.argsort(ratios)
    below = np.cumsum(weights[order])
    return float(ratios[order][np.searchsorted(below, below[-1] / 2)])


def _free(store: Any, row: int, vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors)[store.rows("tags", row) > 0]


def _in_order(values: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.argsort(values.structure, kind="stable")
    return values.predicted[order], values.reference[order], values.structure[order]


def _rules(values: Any, along: tuple[np.ndarray, float] | None = None) -> list[Rule]:
    """Errors of the model and the baselines; `along`: forces and the step fitted in training, if there are forces."""
    predicted, true, frame = _in_order(values)
    candidates = {"model": (predicted, predicted), "nothing moves": (np.zeros_like(true), np.zeros_like(true))}
    if along is not None:
        forces, step = along
        best = _best_step(forces, true)
        candidates[f"along the force, {step:.3g} Å²/eV (best in training)"] = (step * forces, forces)
        candidates[f"along the force, {best:.3g} Å²/eV (best here)"] = (best * forces, forces)
    rules = []
    for name, (guess, direction) in candidates.items():
        cosines = [_cosine(direction[frame == k], true[frame == k]) for k in np.unique(frame)]
        rules.append(Rule(name, float(np.abs(guess - true).mean()), float(np.mean(cosines))))
    return rules


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / length if length else float("nan")
