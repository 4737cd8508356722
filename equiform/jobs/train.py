"""The main job: from a recipe to a run folder with a trained model, its errors, plots and a report."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from equiform.data.config import DataConfig
from equiform.data.pipeline.batching import MOST_GROUPS, Batching
from equiform.data.pipeline.dataset import Dataset
from equiform.data.pipeline.prepared import PreparedData
from equiform.errors import UserError
from equiform.jobs import finetune, members
from equiform.persist.parameters import num_parameters
from equiform.recipes.schema import ModelChoice, Recipe, data_on_disk, load_recipe, model_config
from equiform.report.run_report import Outcome
from equiform.tasks.api import Task
from equiform.training import verdict
from equiform.training.budget import COMPILE_SECONDS, STEP_COSTS, compute_cores, estimate, plan
from equiform.training.config import LossConfig
from equiform.training.duration import DEFAULT_EPOCHS
from equiform.training.recommended import recommended
from equiform.training.scale import loss_terms_of
from equiform.training.text_log import TextLog

DEFAULT_MINUTES = 60.0
"""Time limit of a run without a given length, minutes."""

PRESET_COST = dict(zip(("tiny", "small", "medium", "large"), (cost for _, cost in STEP_COSTS)))
"""Approximate cost per edge and training step with forces, in core-microseconds; float32, small molecules."""
PRESET_EPOCHS = 60
"""Number of epochs after which a larger preset is ahead of a smaller one that had the same time."""
PRESET_ATOMS = {"tiny": 0, "small": 1_000, "medium": 30_000, "large": 300_000}
"""Fewest atoms with forces for which the preset's size pays off; measured for small (200 ethanols), guessed for the others."""

STRESS_WEIGHT = 50.0
"""Stress weight: stresses in eV/Å³ are about this much smaller than forces in eV/Å, at the default weight of the forces."""

UNLIMITED_EDGES = 2**31 - 1
"""Edges of a batch without a limit."""

Say = Callable[[str], None]


class _Printing(NamedTuple):
    """What the training loop prints, and where all of it is logged."""

    progress: bool
    verbose: bool
    log: TextLog


def train(
    recipe: Recipe,
    folder: Path,
    *,
    say: Say,
    warn: Say,
    progress: bool = True,
    verbose: bool = False,
    extra_report: Callable[[Outcome], Mapping[str, Any]] | None = None,
) -> Outcome | None:
    """Prepare the data, choose the sizes, train, evaluate, plot, report.

    Of several processes (`training.parallel.start`) only the first prints, writes and reports; the others return None.

    Args:
        recipe: The recipe.
        folder: The run folder; new or empty.
        say: Called with each message.
        warn: Called with each warning about the data.
        progress: Whether the training loop prints its messages and a progress bar on standard error.
        verbose: Whether it prints every entry of the metrics log too.
        extra_report: Called with the outcome; returns fields to add to the report.

    Raises:
        UserError: Anything the user can fix.
    """
    import jax

    from equiform.data.prepare import prepare
    from equiform.deploy.structures import check_tags
    from equiform.training import parallel
    from equiform.training.run_folder import RunFolder

    if not parallel.is_first():
        say = warn = _silent
    log = TextLog()
    say, warn = _logged(say, log), _logged(warn, log, "warning: ")
    if recipe.training.adapters is not None and recipe.finetune is None:
        raise UserError(
            f"training.adapters={recipe.training.adapters}: adapters change a trained model, and none is given; "
            "give from=MODEL, or leave the setting out"
        )
    members.check(recipe)
    RunFolder.check_free(folder)  # before time is spent on the data
    base = finetune.base_model(recipe.finetune) if recipe.finetune is not None else None
    if base is not None:
        recipe = finetune.settings_of(recipe, base, say)
    provisional = model_config(recipe.model, elements=(1,), preset_if_auto=None)
    data = prepare(data_on_disk(recipe.data), provisional.traits.cutoff)
    _tell(data, say, warn)
    free = "batch_size" not in recipe.training.model_fields_set
    start = None
    if base is not None:
        recipe, start = finetune.started(recipe, base, data, say)
        data = prepare(data_on_disk(recipe.data), provisional.traits.cutoff)  # with these reference energies
    recipe = _with_stress(_with_length(recipe, say), data, say)
    preset = _preset(recipe, data, say)
    recipe = _with_recommended(recipe, preset, data, say)
    config = _sized(recipe, preset, data)
    if (num_tags := config.traits.num_tags) and isinstance(recipe.data, DataConfig):
        for name, dataset in {"training": data.train, "validation": data.validation, **data.tests}.items():
            for graph in dataset:
                check_tags(graph.node_fields.get("tags"), num_tags, f"a {name} structure")
    recipe = recipe.model_copy(update={"model": ModelChoice(**config.model_dump(mode="json"))})
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"folder": None})})
    data, tuning = _tuning(recipe, data, start)
    task, count = _initial_task(recipe, data, start)
    recipe = _with_batches(recipe, task, data, say, free=free)
    with parallel.own_folder(folder) as place:
        run = RunFolder.create(
            place,
            recipe=recipe.to_yaml(),
            reference_energies=data.reference_energies,
            metadata={"data": recipe.data.model_dump(mode="json")} | (finetune.about(recipe, start) if start else {}),
        )
        if parallel.is_first():
            log.open(run.path)
            if start is not None:
                finetune.save_start(run.path, start)
        say(f"run folder: {run.path}")
        several = f"{jax.process_count()} processes, " if jax.process_count() > 1 else ""
        say(f"device: {several}{jax.devices()[0].device_kind} ({jax.devices()[0].platform})")
        how = _Printing(progress, verbose, log)
        return _fit_and_report(recipe, data, run, task, count, say, how, resume=False, extra_report=extra_report, tuning=tuning)


def resume(
    folder: Path, overrides: list[str], *, say: Say, warn: Say, progress: bool = True, verbose: bool = False
) -> Outcome | None:
    """Resume an interrupted run exactly where it stopped.

    Raises:
        UserError: There is no run in that folder, or it would not be the same run.
    """
    from equiform.data.prepare import prepare
    from equiform.training import parallel
    from equiform.training.run_folder import RunFolder

    if not parallel.is_first():
        say = warn = _silent
    with parallel.own_folder(folder, resume=True) as place:
        run = RunFolder.open(place)
        run.check_resumable()
        log = TextLog()
        if parallel.is_first():
            log.open(run.path)
        say, warn = _logged(say, log), _logged(warn, log, "warning: ")
        recipe, _ = load_recipe(run.path / "recipe.yaml", overrides)
        config = model_config(recipe.model, elements=(1,), preset_if_auto=None)
        data = prepare(data_on_disk(recipe.data), config.traits.cutoff)
        _tell(data, say, warn)
        start = finetune.load_start(run.path, run.metadata) if recipe.finetune is not None else None
        data, tuning = _tuning(recipe, data, start)
        task, count = _initial_task(recipe, data, start)
        how = _Printing(progress, verbose, log)
        return _fit_and_report(recipe, data, run, task, count, say, how, resume=True, tuning=tuning)


def auto_preset(num_edges: int, num_atoms: int, minutes: float, epochs: int | None) -> str:
    """The largest of our presets that the amount of data justifies and that this machine can train in the available time.

    Enough data: `PRESET_ATOMS` atoms in the training structures. Enough time: `PRESET_EPOCHS` epochs at the
    measured `PRESET_COST` per edge and training step, divided among the cores. "tiny" if none fits.

    Args:
        num_edges: Number of edges in all training structures.
        num_atoms: Number of atoms in all training structures.
        minutes: Time for training.
        epochs: Number of epochs, if given.
    """
    seconds = 60 * minutes * compute_cores()
    work = 1e-6 * num_edges * (epochs or PRESET_EPOCHS)
    fitting = [n for n in PRESET_COST if PRESET_COST[n] * work <= seconds and PRESET_ATOMS[n] <= num_atoms]
    return fitting[-1] if fitting else next(iter(PRESET_COST))


def new_model(config: Any, seed: int) -> Any:
    """A freshly initialised model, reproducible from the seed."""
    import jax

    from equiform.models import build_model

    return build_model(config, key=jax.random.key(seed))


def _tell(data: Any, say: Say, warn: Say) -> None:
    for line in data.report.lines():
        say(line)
    for line in data.report.warnings:
        warn(line)


def _with_length(recipe: Recipe, say: Say) -> Recipe:
    """Give a run without a length the default one, written into the recipe so that the run can be repeated."""
    settings = recipe.training
    if settings.epochs or settings.max_steps or settings.max_minutes or settings.max_minutes_in_all:
        return recipe
    say(
        f"length: {DEFAULT_EPOCHS} epochs, but at most {DEFAULT_MINUTES:.0f} minutes "
        "(change with training.epochs=… and training.max_minutes=…)"
    )
    update = {"epochs": DEFAULT_EPOCHS, "max_minutes": DEFAULT_MINUTES}
    return recipe.model_copy(update={"training": settings.model_copy(update=update)})


def _with_stress(recipe: Recipe, data: Any, say: Say) -> Recipe:
    """Train on stress labels unless the recipe says otherwise."""
    losses = recipe.training.losses
    if "stress" in losses.model_fields_set or not data.train.has_stress:
        return recipe
    say(f"loss: includes the stress, with weight {STRESS_WEIGHT:g} (training.losses.stress=null switches it off)")
    losses = losses.model_copy(update={"stress": LossConfig(weight=STRESS_WEIGHT)})
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"losses": losses})})


def _preset(recipe: Recipe, data: Any, say: Say) -> str | None:
    """The model's preset, chosen by the data and the time for "auto"; None if the recipe names an architecture."""
    choice, edges, atoms = recipe.model, int(data.train.num_edges.sum()), int(data.train.num_atoms.sum())
    if choice.name is not None:
        return None
    if (choice.preset or "auto") != "auto":
        return choice.preset
    training, limits = recipe.training, []
    if training.max_minutes:
        limits.append(training.max_minutes)
    if training.max_minutes_in_all:
        limits.append(training.max_minutes_in_all - COMPILE_SECONDS / 60)
    minutes = max(min(limits, default=DEFAULT_MINUTES), 0)
    # Twice the width takes about four times as long.
    share = minutes / (choice.width or 1) ** 2 / training.members
    name = auto_preset(edges, atoms, share, training.epochs)
    say(
        f"model: preset {name!r}, chosen for {atoms:,} atoms in the training data and {minutes:g} minutes of training on "
        "this machine (change with model.preset=…)"
    )
    return name


def _with_recommended(recipe: Recipe, preset: str | None, data: Any, say: Say) -> Recipe:
    """Settings of the optimizer that suit a force field of this size, where the recipe does not give them."""
    if not data.train.has_label("forces") or not (update := recommended(recipe.training, preset)):
        return recipe
    settings = ", ".join(f"training.{name}={value}" for name, value in update.items())
    say(f"settings: {settings}, recommended for {preset!r} and forces")
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=update)})


def _sized(recipe: Recipe, preset: str | None, data: Any) -> Any:
    """The model's configuration: elements and normalisations from the data where they are not given."""
    from equiform.models import MODELS
    from equiform.models.presets import ALL_PRESETS, OWN

    choice, edges, atoms = recipe.model, int(data.train.num_edges.sum()), int(data.train.num_atoms.sum())
    fields = choice.fields
    known = MODELS[choice.name or "equiformer"][0].model_fields
    if "average_degree" in known and (preset is None or preset in OWN):
        fields = {"average_degree": max(edges / max(atoms, 1), 1.0), **fields}
    own_elements = tuple(ALL_PRESETS[preset].get("elements", ())) if preset else ()
    elements = own_elements if set(data.elements) <= set(own_elements) else tuple(data.elements)
    sized = ModelChoice(preset=preset, name=choice.name, width=choice.width, **fields)
    return model_config(sized, elements=elements, preset_if_auto=preset)


def _with_batches(recipe: Recipe, task: Task, data: Any, say: Say, *, free: bool) -> Recipe:
    """Write batches that suit the time and the memory into the recipe, unless they are given, and say what to expect."""
    from equiform.training import parallel

    section, settings = recipe.data, recipe.training
    expected = estimate(task, settings, loss_terms_of(settings, task))
    ours = isinstance(section, DataConfig)
    edges = section.batch_edges if ours or section.batch_edges else UNLIMITED_EDGES  # published batches stay as published
    planned = plan(expected, settings, data.train, edges, section.batch_capacities, free=free)
    for line in planned.lines:
        say(line)
    # Several processes may remember different speeds, but must make the same batches.
    groups = int(parallel.agreed(float(planned.batching.groups)))
    edges = None if edges == UNLIMITED_EDGES else int(parallel.agreed(float(planned.batching.edges or 0)))
    update = {"batch_edges": edges, "batch_capacities": groups}
    return recipe.model_copy(update={"data": section.model_copy(update=update)})


class _Tuning(NamedTuple):
    """What fine-tuning adds to the report: the model before it, and old data."""

    task: Task
    old: Dataset | None


def _tuning(recipe: Recipe, data: PreparedData, start: "finetune.Start | None") -> tuple[PreparedData, _Tuning | None]:
    """The data, with replayed structures if the run has any."""
    if start is None:
        return data, None
    data, old = finetune.with_old_data(recipe, data, start)
    return data, _Tuning(start.task, old)


def _initial_task(recipe: Recipe, data: Any, start: "finetune.Start | None") -> tuple[Task, int]:
    """The task with the model to start from, or a freshly initialised one, and its number of parameters."""
    from equiform.models.committee import committee
    from equiform.training.scale import initial_task

    if start is not None:
        task = finetune.initial_task(recipe, start)
        return task, num_parameters(task)
    config = model_config(recipe.model, elements=tuple(data.elements), preset_if_auto=None)
    first, number = recipe.training.seed, recipe.training.members
    models = [new_model(config, seed) for seed in range(first, first + number)]
    model = models[0] if number == 1 else committee(models)
    # The elements of the preset for which energies can be predicted.
    elements = tuple(sorted(set(config.elements) & {*data.elements, *data.reference_energies}))
    task = initial_task(model, recipe.training, data.train, elements)
    members.check_task(task)
    return task, num_parameters(model)


def _fit_and_report(
    recipe: Recipe,
    data: Any,
    run: Any,
    task: Task,
    count: int,
    say: Say,
    how: _Printing,
    *,
    resume: bool,
    extra_report: Callable[[Outcome], Mapping[str, Any]] | None = None,
    tuning: _Tuning | None = None,
) -> Outcome | None:
    from equiform.report import run_report
    from equiform.report.equivariance import equivariance_errors
    from equiform.tasks.motion import Motion
    from equiform.training import parallel
    from equiform.training.evaluate import evaluate_with_values, shared_capacity
    from equiform.training.fit import fit

    settings, traits = recipe.training, task.model.traits
    cutoff = "no cutoff" if traits.cutoff is None else f"cutoff {traits.cutoff:g} Å"
    say(f"{type(task.model).__name__} with {count:,} parameters, {cutoff}")
    sets = {"validation": data.validation, **data.tests}
    sets |= {finetune.OLD_DATA: tuning.old} if tuning else {}
    sets = {name: dataset for name, dataset in sets.items() if dataset is not None and len(dataset)}
    size = settings.evaluation_batch_size or settings.batch_size
    least = shared_capacity(sets.values(), size)
    batching = Batching(recipe.data.batch_edges, recipe.data.batch_capacities or MOST_GROUPS)
    result = fit(
        task,
        data.train,
        data.validation,
        settings,
        run,
        progress=parallel.is_first() and how.progress,
        verbose=how.verbose,
        log=how.log if parallel.is_first() else None,
        resume=resume,
        batching=batching,
        least=least,
        wandb=recipe.run.wandb if parallel.is_first() else None,
    )
    if not parallel.is_first():
        return None
    result = _with_energies(result, data, settings, run, say)
    started, evaluations = time.perf_counter(), {}
    for name, dataset in (sets or {"training": data.train}).items():
        say(f"evaluating the model on {name} ({len(dataset)} structures)")
        evaluations[name] = evaluate_with_values(
            result.task, dataset, batch_size=size, dtype=settings.dtype, program=result.program, least=least
        )
        if isinstance(task, Motion):  # Do the vectors rotate with the particles?
            equivariance = equivariance_errors(result.task, dataset, evaluations[name].errors, dtype=settings.dtype)
            for quantity, error in equivariance.items():
                evaluations[name].errors[quantity]["equivariance_error"] = error
            for quantity, values in evaluations[name].values.items():
                evaluations[name].errors[quantity]["median_mse"] = values.median_mse()
    if tuning is not None:
        if recipe.finetune is not None and recipe.finetune.keep_head and tuning.old is not None:
            say("evaluating the old readout on the old data")
            evaluations[f"{finetune.OLD_DATA}, old head"] = evaluate_with_values(
                finetune.old_head(run.path), tuning.old, batch_size=size, dtype=settings.dtype, least=least
            )
        for name, dataset in sets.items():
            say(f"evaluating the model before fine-tuning on {name}")
            evaluations[f"{name}, before"] = evaluate_with_values(
                tuning.task, dataset, batch_size=size, dtype=settings.dtype, program=result.program, least=least
            )
    judged = next(iter(evaluations.values()))
    first, dataset = next(iter((sets or {"training": data.train}).items()))
    evaluations |= members.evaluated(result.task, first, dataset, settings, size, least, say)
    cautions = verdict.cautions(result.epochs, judged.errors, verdict.rules_of(judged.values))
    times = result.times
    facts = {
        "parameters": f"{count:,}",
        "steps": f"{result.steps:,}",
        "step of the model": f"{result.best_step:,}",
        "epochs until then": f"{result.epochs:.4g}",
        "training": f"{times.training / 60:.2f} minutes",
        "compilation": f"{times.compilation / 60:.2f} minutes",
        "evaluation": f"{(time.perf_counter() - started) / 60:.2f} minutes",
    }
    facts |= {f"{name} structures": f"{len(dataset):,}" for name, dataset in {"training": data.train, **sets}.items()}
    outcome = run_report.write(run, recipe.to_yaml(), data, evaluations, facts, cautions, extra_report)
    if cautions:
        how.log(f"warning: {verdict.in_one_line(cautions)}")
    return outcome


def _logged(print_line: Say, log: Say, prefix: str = "") -> Say:
    """Print lines and write them to the text log."""

    def both(text: str = "") -> None:
        log(prefix + text)
        print_line(text)

    return both


def _with_energies(result: Any, data: Any, settings: Any, run: Any, say: Say) -> Any:
    """After training on forces only: a constant per element from the labelled energies, written into the best model."""
    from equiform.training.energy_map import fit_energy_map, is_mappable

    forces_only = settings.losses.energy is None and settings.losses.forces is not None
    if not (forces_only and is_mappable(result.task) and data.train.has_label("energy")):
        return result
    found, task = fit_energy_map(result.task, data.train, batch_size=settings.batch_size, dtype=settings.dtype)
    say(
        f"energies: a constant per element, fitted to the training energies of {found.compositions} compositions "
        f"({1e3 * found.residual:.3g} meV/atom rms); slope of labelled over predicted energies within a composition: "
        f"{found.alpha:.3f} (1 where energies and forces agree)"
    )
    run.save_model(run.best, task, {"step": result.best_step, "energy_map": {"alpha": found.alpha}})
    return result._replace(task=task, program=None)


def _silent(_: str) -> None:
    """Only the first process prints."""
