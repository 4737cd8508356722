"""What must be unchanged for a run to be resumed."""

import hashlib
from typing import Any

import jax
import numpy as np

from equiform.data.pipeline.batching import NO_LIMITS, Batching
from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.persist.parameters import named, split
from equiform.tasks.api import Task
from equiform.training.config import TrainingConfig

FREE_TO_CHANGE = ("checkpoint_minutes", "checkpoint_every", "devices")
"""Settings that a resumed run may change: they affect only the rounding of sums over devices."""


def fingerprint(
    task: Task, config: TrainingConfig, train: Dataset, validation: Dataset | None, batching: Batching = NO_LIMITS
) -> dict[str, Any]:
    """What must be unchanged for a run to be resumed: settings, model, data, batches."""
    settings = config.model_dump(mode="json", exclude=set(FREE_TO_CHANGE))
    adapted = {} if config.adapters is None else {"adapted": _hash_of_weights(task)}
    return {
        **adapted,
        "training": settings,
        "task": {"kind": task.kind, **task.settings()},
        "model": task.model.config.model_dump(mode="json"),
        "data": {"train": _hash_of(train), "validation": _hash_of(validation), "batching": batching._asdict()},
    }


def check_resumable(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise if something differs; a setting of training or model that the run's version did not have yet counts as its default.

    Raises:
        UserError: Names everything that differs, with both values; or the adapters are of another model.
    """
    from equiform.models import MODELS, parse_config, upgraded

    if before.get("adapted") != now.get("adapted") and before["model"] == now["model"]:
        raise UserError(
            f"the run cannot be resumed: its adapters are of another model (the model to start from had the weights "
            f"{before.get('adapted')}, and has {now.get('adapted')}); put back the run's own folder start, or start a new run"
        )
    defaults = TrainingConfig().model_dump(mode="json", exclude=set(FREE_TO_CHANGE))

    def complete(tree: dict[str, Any]) -> dict[str, Any]:
        data = {"batching": NO_LIMITS._asdict(), **tree["data"]}
        model = tree["model"]
        if model.get("name") in MODELS:
            model = parse_config(upgraded(model)).model_dump(mode="json")
        return _flat({**tree, "training": {**defaults, **tree["training"]}, "model": model, "data": data})

    old, new = complete(before), complete(now)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        changes = "; ".join(f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in changed[:5])
        raise UserError(f"the run cannot be resumed, it would not be the same run: {changes}. Start a new run instead")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _hash_of_weights(task: Task) -> str:
    digest = hashlib.sha256()
    for name, leaf in named(split(task)[0]).items():
        digest.update(name.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _hash_of(dataset: Dataset | None, samples: int = 1000) -> str | None:
    """Hash of the sizes of all structures and of the full content of up to `samples` of them."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    digest.update(np.asarray(dataset.num_atoms, np.int64).tobytes())
    digest.update(np.asarray(dataset.num_edges, np.int64).tobytes())
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(samples, len(dataset))).astype(int)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(dataset[int(index)]):
            digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]
