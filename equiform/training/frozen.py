"""Parameters that fine-tuning leaves as they are: named parts of a model, whole or block by block.

A part is `embedding`, `blocks` or `readout` where the model declares them (`Model.parts`), or the beginning of the names of
its parameters (`energy_hidden`); `blocks[:4]` and `blocks[2]` are some of the blocks.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from equiform.errors import UserError
from equiform.models.api import Model
from equiform.persist.parameters import named
from equiform.tasks.api import Task

_PART = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(\[(?P<blocks>-?\d*(:-?\d*)?)\])?")


class _Selected(NamedTuple):
    """Parameters whose names begin with `prefix`; of stacked ones, those rows."""

    prefix: str
    rows: slice | list[int] = slice(None)


def free_mask(task: Task, params: Any, frozen: Sequence[str]) -> Any:
    """Which numbers are trained: for each parameter an array of booleans that broadcasts to it.

    Args:
        task: The task with the model.
        params: Its parameters.
        frozen: Names of frozen parts.

    Raises:
        UserError: A part that the model does not have, or nothing is left to train.
    """
    leaves = {name.removeprefix("model."): leaf for name, leaf in named(params).items()}
    masks = {name: np.ones((), bool) for name in leaves}
    for part in frozen:
        found = False
        for prefix, rows in _selected(task.model, part):
            for name, leaf in leaves.items():
                if name != prefix and not name.startswith(f"{prefix}."):
                    continue
                found = True
                mask = np.broadcast_to(masks[name], (leaf.shape[0],) + (1,) * (leaf.ndim - 1) if leaf.ndim else ()).copy()
                mask[rows if leaf.ndim else ()] = False
                masks[name] = mask
        if not found:
            raise UserError(f"training.freeze: {_unknown(task.model, part, leaves)}")
    if not any(mask.any() for mask in masks.values()):
        raise UserError(f"training.freeze={','.join(frozen)} freezes all parameters: nothing is left to train")
    return jax.tree.unflatten(jax.tree.structure(params), list(masks.values()))


def only_free(mask: Any, new: Any, old: Any) -> Any:
    """The new values of what is trained, the old ones of the rest."""
    return jax.tree.map(lambda free, a, b: jnp.where(jnp.broadcast_to(free, a.shape), a, b), mask, new, old)


def num_free(mask: Any, params: Any) -> int:
    """Number of trained parameters."""
    sizes = jax.tree.map(lambda free, leaf: int(np.broadcast_to(free, leaf.shape).sum()), mask, params)
    return sum(jax.tree.leaves(sizes))


def _selected(model: Model, part: str) -> list[_Selected]:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise UserError(f"training.freeze: {part!r} is not a part of a model, such as embedding, blocks[:4] or readout")
    name, blocks = match["name"], match["blocks"]
    if name not in model.parts:
        return [_Selected(name, _rows(blocks, None))]
    declared = model.parts[name]
    if blocks is None:
        return [_Selected(entry.partition("[")[0]) for entry in declared]
    number = model.config.model_dump().get("num_layers")
    if name != "blocks" or number is None:
        raise UserError(f"training.freeze: {name} cannot be divided, only blocks can; freeze all of {name}")
    chosen = _chosen(blocks, number)
    selected = []
    for entry in declared:
        attribute, _, which = entry.partition("[")
        if which == "-1]":
            selected += [_Selected(attribute)] if number - 1 in chosen else []
        else:
            last = number - (2 if which == ":-1]" else 1)
            selected.append(_Selected(attribute, [block for block in chosen if block <= last]))
    return selected


def _chosen(blocks: str, number: int) -> list[int]:
    rows = _rows(blocks, number)
    return list(range(number)[rows]) if isinstance(rows, slice) else rows


def _rows(blocks: str | None, number: int | None) -> slice | list[int]:
    """Rows of `2`, `:4` or `1:3`; all of them without an index."""
    if blocks is None:
        return slice(None)
    if ":" in blocks:
        start, stop = (int(text) if text else None for text in blocks.split(":"))
        return slice(start, stop)
    index = int(blocks) if blocks not in ("", "-") else 0
    if number is not None and not -number <= index < number:
        raise UserError(f"training.freeze: there is no block {index}; the model has {number}, counted from 0")
    return [index + number if number is not None and index < 0 else index]


def _unknown(model: Model, part: str, leaves: dict[str, Any]) -> str:
    known = list(dict.fromkeys([*model.parts, *(name.partition(".")[0] for name in leaves)]))
    return f"this {type(model).__name__} has no part {part!r}; its parts: {', '.join(known)}"
