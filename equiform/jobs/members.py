"""Committees trained side by side: `training.members`."""

from collections.abc import Callable

import jax

from equiform.data.pipeline.dataset import Dataset
from equiform.errors import UserError
from equiform.graph import Capacity
from equiform.models.committee import check_architecture
from equiform.persist.parameters import split, with_dtype
from equiform.recipes.schema import Recipe, model_config
from equiform.tasks.api import Task
from equiform.tasks.energy import Potential
from equiform.tasks.members import members_of, num_members
from equiform.training.config import TrainingConfig
from equiform.training.evaluate import Evaluation, Program, evaluate_with_values, labelled


def check(recipe: Recipe) -> None:
    """Raise if a committee cannot be trained with these settings.

    Raises:
        UserError: Names the setting.
    """
    settings = recipe.training
    if settings.members == 1:
        return
    what = f"training.members={settings.members}"
    if recipe.finetune is not None:
        raise UserError(
            f"{what}: all members would start from the weights of from={recipe.finetune.model} and hardly differ; fine-tune "
            "several models one by one, and join them with equiform committee"
        )
    if settings.freeze:
        raise UserError(f"{what}: the members are trained from nothing, so no part can be frozen; leave training.freeze out")
    if (settings.devices or 1) > 1 or jax.process_count() > 1:
        raise UserError(f"{what}: the members share one device; leave training.devices (--devices, --processes) out")
    try:
        check_architecture(model_config(recipe.model, elements=(1,), preset_if_auto=None).name)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None


def check_task(task: Task) -> None:
    """Raise if a committee would predict something else than energies.

    Raises:
        UserError: Names the quantity.
    """
    if num_members(task) > 1 and not isinstance(task, Potential):
        raise UserError(f"training.members is for energies and forces, and these data have {task.quantity}; leave it out")


def evaluated(
    task: Task,
    name: str,
    dataset: Dataset,
    settings: TrainingConfig,
    batch_size: int,
    least: Capacity | None,
    say: Callable[[str], None],
) -> dict[str, Evaluation]:
    """Errors of each member on a data set, without the values behind them; empty for a single model.

    Args:
        task: The task with the committee.
        name: Of the data set.
        dataset: Labelled structures.
        settings: Of the training.
        batch_size: Average number of structures per batch.
        least: Capacity that batches are padded to where that is cheap.
        say: Called with each message.
    """
    if num_members(task) == 1:
        return {}
    say(f"evaluating each of the {num_members(task)} members on {name}")
    found, program = {}, None
    for number, member in enumerate(members_of(task), start=1):
        if program is None:
            program = Program(split(with_dtype(member, settings.dtype))[1], labelled(dataset, [t.name for t in task.targets]))
        one = evaluate_with_values(member, dataset, batch_size=batch_size, dtype=settings.dtype, program=program, least=least)
        found[f"{name}, member {number}"] = one._replace(values={})
    return found
