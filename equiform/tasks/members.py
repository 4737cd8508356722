"""The members of a committee as tasks of their own."""

from typing import Any

import equinox as eqx
import jax

from equiform.models.committee import Committee
from equiform.tasks.api import Task


def num_members(task: Task) -> int:
    """Number of members of the task's model; 1 if it is not a committee."""
    return task.model.config.members if isinstance(task.model, Committee) else 1


def as_member(task: Task) -> Task:
    """The task with the committee's stacked members in place of the committee; to be used under `vmap` over their weights."""
    model: Any = task.model
    return eqx.tree_at(lambda whole: whole.model, task, model.members)


def members_of(task: Task) -> list[Task]:
    """The tasks of all members, in their order."""
    arrays, static = eqx.partition(as_member(task), eqx.is_array)
    return [
        eqx.combine(jax.tree.map(lambda leaf, index=index: leaf[index], arrays), static) for index in range(num_members(task))
    ]
