"""The benchmark cases: name → rows of the table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from equiform.benchmark.inputs import Inputs, molecules_of, silicon, slabs
from equiform.benchmark.measure import compiling, measure
from equiform.benchmark.rows import Row, make_row
from equiform.errors import UserError
from equiform.graph import Graph, batch, to_device
from equiform.models import build_model
from equiform.models.presets import OWN, preset
from equiform.persist.parameters import with_dtype
from equiform.recipes.errors import suggest
from equiform.tasks.energy import Potential
from equiform.training.config import EnergyLoss, ForcesLoss, TrainingConfig
from equiform.training.step import TrainingStep


class Settings(NamedTuple):
    """How to measure.

    Attributes:
        repeats: Timed calls.
        inputs: Folder with the published inputs; None looks beside the clone.
        say: Told what is being done.
        cached: Whether to time a start with the compiled program in the cache too.
    """

    repeats: int = 5
    inputs: Path | None = None
    say: Callable[[str], None] = lambda line: None
    cached: bool = True


class Case(NamedTuple):
    """A benchmark.

    Attributes:
        about: What it measures, in a line.
        run: Gives its rows one by one.
        quick: Whether it is among those that run by default.
    """

    about: str
    run: Callable[[Settings], Iterator[Row]]
    quick: bool


def new_potential(name: str, elements: tuple[int, ...], **changes: Any) -> Potential:
    """A preset with random weights in single precision, normalised as in use: our own sizes anchored at isolated atoms."""
    config = preset(name, elements=elements if name in OWN else None, **changes)
    potential = Potential(build_model(config, key=jax.random.key(0)), elements=elements, anchored=name in OWN)
    return with_dtype(potential, np.dtype(np.float32))


def inference(case: str, potential: Potential, inputs: Inputs, settings: Settings, **wanted: bool) -> Row:
    """Time an evaluation; `wanted` says forces and stress."""
    stress, forces = wanted.get("stress", False), wanted.get("forces", False)
    program = "energy" + (" + forces" if forces else "") + (" + stress" if stress else "")
    settings.say(f"{case}: {program}")
    arrays, static = eqx.partition(potential, eqx.is_inexact_array)

    def evaluate(arrays: Any, graph: Graph) -> dict[str, Any]:
        result = eqx.combine(arrays, static)(graph, forces=forces, stress=stress)
        return {name: result[name] for name in ("energy", "forces", "stress") if name in result}

    arguments = (arrays, to_device(inputs.graph))
    timing = measure(compiling(jax.jit(evaluate)), arguments, repeats=settings.repeats, cached=settings.cached)
    return _row(case, program, timing, potential, inputs)


def training(case: str, potential: Potential, inputs: Inputs, settings: Settings, *, forces: bool) -> Row:
    """Time a whole training step: loss, gradient, clipping, AdamW, running mean of the weights, dropout as configured."""
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


def training_step(potential: Potential, *, forces: bool) -> TrainingStep:
    """The training step of a potential with the default settings."""
    terms = {"energy": EnergyLoss()} | ({"forces": ForcesLoss()} if forces else {})
    return TrainingStep(potential, TrainingConfig(), terms, say=lambda line: None)


def with_labels(graph: Graph) -> Graph:
    """Labels of zero; their values do not decide the speed."""
    fields = {"energy": np.zeros(graph.graph_mask.shape[0])}
    return graph.replace(graph_fields=fields, node_fields={**graph.node_fields, "forces": np.zeros(graph.positions.shape)})


def _numbers(step: TrainingStep) -> Any:
    return jnp.asarray([1e-4, *(term.weight for term in step.terms.values())], jnp.float32)


def _row(case: str, program: str, timing: Any, potential: Potential, inputs: Inputs, note: str = "") -> Row:
    graph, model = inputs.graph, potential.model
    sizes = (int(graph.num_atoms), int(graph.num_edges))
    return make_row(case, program, timing, model.config, sizes, num_parameters(model), inputs.source, note)


def num_parameters(model: Any) -> int:
    """Numbers in a model's weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


def _qm9(settings: Settings) -> Iterator[Row]:
    molecules, source = molecules_of("qm9", settings.inputs)
    inputs = Inputs(batch(molecules), source)
    potential = new_potential("qm9-l2-nonlinear", (1, 6, 7, 8, 9))
    yield inference("qm9", potential, inputs, settings)
    yield training("qm9", potential, inputs, settings, forces=False)


def _md17(name: str) -> Callable[[Settings], Iterator[Row]]:
    def run(settings: Settings) -> Iterator[Row]:
        molecules, source = molecules_of("aspirin", settings.inputs)
        inputs, potential = Inputs(batch(molecules), source), new_potential(name, (1, 6, 7, 8))
        yield inference(name, potential, inputs, settings, forces=True)
        yield training(name, potential, inputs, settings, forces=True)

    return run


def _crystal(num_atoms: int) -> Callable[[Settings], Iterator[Row]]:
    def run(settings: Settings) -> Iterator[Row]:
        potential = new_potential("small", (14,))
        yield inference(f"crystal-{num_atoms}", potential, silicon(num_atoms), settings, forces=True, stress=True)

    return run


def _slab(settings: Settings) -> Iterator[Row]:
    potential = new_potential("oc20-nonlinear", (6, 8, 13, 47, 78, 79, 82))
    yield inference("oc20", potential, slabs(4), settings)


def _md(settings: Settings) -> Iterator[Row]:
    from equiform.benchmark.streams import dynamics

    molecules, source = molecules_of("aspirin", settings.inputs)
    for name in ("tiny", "md17-l2"):
        yield dynamics(name, Inputs(molecules[0], f"first of {source}"), settings)


def _epoch(settings: Settings) -> Iterator[Row]:
    from equiform.benchmark.streams import epoch

    yield epoch(settings)


CASES: dict[str, Case] = {
    "qm9": Case("32 molecules of QM9 in the published model: energy, training step on energies", _qm9, True),
    "md17-l2": Case("8 aspirins in the published model, L = 2: energy + forces, training step on both", _md17("md17-l2"), True),
    "md17-l3": Case("the same for L = 3", _md17("md17-l3"), False),
    "md": Case("molecular dynamics of one molecule of 21 atoms, presets tiny and md17-l2", _md, True),
    "crystal-1000": Case("1,000 atoms of silicon, preset small: energy, forces, stress", _crystal(1000), True),
    "crystal-10000": Case("the same with 10,000 atoms", _crystal(10_000), False),
    "qm9-epoch": Case("training on QM9 with real packing and loading: molecules per second, padding", _epoch, True),
    "oc20": Case("4 slabs of 77 atoms in the published model of OC20: energy", _slab, False),
}


def choose(names: list[str]) -> list[str]:
    """Names of cases: those given, the quick ones if none is, all of them for `all`.

    Raises:
        UserError: There is no such case.
    """
    if not names:
        return [name for name, case in CASES.items() if case.quick]
    if names == ["all"]:
        return list(CASES)
    for name in names:
        if name not in CASES:
            raise UserError(f"there is no case {name!r}{suggest(name, CASES)}; there are: {', '.join(CASES)}, all")
    return list(dict.fromkeys(names))
