"""The timed programs: an evaluation and a training step of a preset with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.benchmark.inputs import Inputs
from equiform.benchmark.measure import compiling, measure
from equiform.benchmark.rows import Row, make_row
from equiform.graph import Graph, to_device
from equiform.models import build_model
from equiform.models.presets import OWN, preset
from equiform.persist.parameters import num_parameters, with_dtype
from equiform.tasks.energy import Potential
from equiform.training.config import EnergyLoss, ForcesLoss, TrainingConfig
from equiform.training.step import TrainingStep


class Settings(NamedTuple):
    """Settings of a measurement.

    Attributes:
        repeats: Timed calls.
        inputs: Folder with the published inputs; None: searched in and beside the clone.
        say: Progress callback `(line)`.
        cached: Whether to also time a start with the compiled program in the cache.
    """

    repeats: int = 5
    inputs: Path | None = None
    say: Callable[[str], None] = lambda line: None
    cached: bool = True


def new_potential(name: str, elements: tuple[int, ...], **changes: Any) -> Potential:
    """A preset with random weights in single precision; our own presets are anchored at isolated atoms, as in normal use."""
    config = preset(name, elements=elements if name in OWN else None, **changes)
    potential = Potential(build_model(config, key=jax.random.key(0)), elements=elements, anchored=name in OWN)
    return with_dtype(potential, np.dtype(np.float32))


def inference(case: str, potential: Potential, inputs: Inputs, settings: Settings, **requested: bool) -> Row:
    """Time an evaluation; `requested` may set forces and stress."""
    stress, forces = requested.get("stress", False), requested.get("forces", False)
    program = "energy" + (" + forces" if forces else "") + (" + stress" if stress else "")
    settings.say(f"{case}: {program}")
    evaluate, arrays = evaluation(potential, forces=forces, stress=stress)
    arguments = (arrays, to_device(inputs.graph))
    timing = measure(compiling(evaluate), arguments, repeats=settings.repeats, cached=settings.cached)
    return _row(case, program, timing, potential, inputs)


def training(case: str, potential: Potential, inputs: Inputs, settings: Settings, *, forces: bool) -> Row:
    """Time a full training step: loss, gradient, clipping, AdamW, EMA, dropout as configured."""
    program = "energy + forces step" if forces else "energy step"
    settings.say(f"{case}: {program}")
    step = training_step(potential, forces=forces)
    arguments = (step.initial_state(), to_device(with_labels(inputs.graph)), _numbers(step))
    timing = measure(
        step.compiled,
        arguments,
        repeats=settings.repeats,
        again=lambda result, old: (result[0], *old[1:]),
        cached=settings.cached,
    )
    return _row(case, program, timing, potential, inputs)


def evaluation(potential: Potential, *, forces: bool, stress: bool) -> tuple[Any, Any]:
    """The jitted function `evaluate(arrays, graph)`, and the arrays of the potential."""
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)

    def evaluate(arrays: Any, graph: Graph) -> dict[str, Any]:
        result = eqx.combine(arrays, static)(graph, forces=forces, stress=stress)
        return {name: result[name] for name in ("energy", "forces", "stress") if name in result}

    return jax.jit(evaluate), arrays


def training_step(potential: Potential, *, forces: bool) -> TrainingStep:
    """The training step of a potential with the default settings."""
    terms = {"energy": EnergyLoss()} | ({"forces": ForcesLoss()} if forces else {})
    return TrainingStep(potential, TrainingConfig(), terms, say=lambda line: None)


def with_labels(graph: Graph) -> Graph:
    """Add zero labels; their values do not affect the speed."""
    fields = {"energy": np.zeros(graph.graph_mask.shape[0])}
    return graph.replace(graph_fields=fields, node_fields={**graph.node_fields, "forces": np.zeros(graph.positions.shape)})


def lowered_evaluation(potential: Potential, graph: Graph, *, forces: bool, stress: bool) -> jax.stages.Lowered:
    """An evaluation as it goes to the compiler."""
    evaluate, arrays = evaluation(potential, forces=forces, stress=stress)
    return evaluate.lower(arrays, to_device(graph))


def lowered_step(potential: Potential, graph: Graph, *, forces: bool) -> jax.stages.Lowered:
    """A training step as it goes to the compiler."""
    step = training_step(potential, forces=forces)
    return step.lowered(jax.eval_shape(step.initial_state), to_device(with_labels(graph)), _numbers(step))


def _numbers(step: TrainingStep) -> Any:
    return jnp.asarray([1e-4, *(term.weight for term in step.terms.values())], jnp.float32)


def _row(case: str, program: str, timing: Any, potential: Potential, inputs: Inputs, note: str = "") -> Row:
    graph, model = inputs.graph, potential.model
    sizes = (int(graph.num_atoms), int(graph.num_edges))
    return make_row(case, program, timing, model.config, sizes, num_parameters(model), inputs.source, note)
