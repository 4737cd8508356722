"""Before anything is compiled: how long compilation and a step will take, and batches that suit the time and the memory.

The estimate comes from the number of parameters and edges and from what this machine has shown (`runtime.speeds`). A run of a
few minutes needs some hundred steps and little compilation, so its batches are small and share a capacity; a run of hours can
afford a capacity for each group of sizes.
"""

import math
import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from equiform.data.pipeline.batching import MOST_GROUPS, Batching, capacities, plan_epoch, waste
from equiform.data.pipeline.dataset import Dataset
from equiform.persist.parameters import num_parameters
from equiform.runtime import speeds
from equiform.runtime.speeds import Pace
from equiform.tasks.api import Task
from equiform.training.config import LossConfig, TrainingConfig
from equiform.training.duration import DEFAULT_EPOCHS

STEP_COSTS = ((85_937, 75.0), (468_785, 200.0), (1_961_921, 600.0), (5_493_057, 2000.0))
"""Number of parameters → cost per edge of a training step with forces in core-microseconds: our four presets, float32.

One core of a fast processor (AMD, Zen 5) takes 41 and 115 for the first two on ethanol; older ones, and several cores on small
batches, take more.
"""
GPU_CORES = 100.0
"""Number of CPU cores that a GPU counts as."""
MOST_CORES = 16
"""More CPU cores than this do not speed up a step."""
COMPILE_SECONDS = 30.0
"""Compilation of the smallest preset's training step on an idle CPU; a GPU takes twice as long."""
ENERGY_ONLY = 0.4
"""Cost of a step without forces or stress, of one with them."""

LONGEST_STEP = 2.0
"""Seconds: batches of one's own data are not made larger than this, however much time there is."""
FEWEST_STEPS = 300
"""Number of steps that even a short run ought to have; batches shrink for it."""
FEWEST_EDGES = 1000.0
"""Batches are not made smaller than this for the time's sake: a step on fewer edges is mostly overhead."""
MEMORY_SHARE = 0.3
EDGE_BYTES = 60_000.0
"""Memory of a training step per edge, bytes, for 3.5 million parameters; it grows with their square root (the width)."""


class Estimate(NamedTuple):
    """What is expected of a program on this machine.

    Attributes:
        program: Its name, under which the machine's speed is remembered.
        default: Its pace on a machine that nothing is known of.
        pace: Its pace here.
        parameters: The model's number of parameters.
    """

    program: str
    default: Pace
    pace: Pace
    parameters: int

    def remember(self, **measured: float) -> None:
        """Keep measured fields of `Pace` for later runs."""
        speeds.remember(self.program, self.default, measured)


class Plan(NamedTuple):
    """How a run is to be batched, and what to expect of it.

    Attributes:
        batching: How structures are put into batches.
        epochs: Expected passes over the data in the time; None without a time limit.
        lines: The plan as text.
    """

    batching: Batching
    epochs: float | None
    lines: list[str]


def compute_cores() -> float:
    """CPU cores that a step makes use of, or the number that a GPU counts as."""
    return GPU_CORES if jax.default_backend() != "cpu" else float(min(speeds.cores(), MOST_CORES))


def estimate(task: Task, config: TrainingConfig, terms: Mapping[str, LossConfig]) -> Estimate:
    """Time that the training step of a model is expected to take.

    Args:
        task: The model and what it predicts.
        config: Training settings.
        terms: The terms of the loss.
    """
    parameters = num_parameters(task.model)
    sizes, costs = np.log(np.array(STEP_COSTS)).T
    slope = (costs[-1] - costs[0]) / (sizes[-1] - sizes[0])
    cost = math.exp(costs[0] + slope * (math.log(max(parameters, 1)) - sizes[0]))
    gradients = bool({"forces", "stress"} & set(terms))
    cost *= 1e-6 * (1.0 if gradients else ENERGY_ONLY) * (2.0 if config.dtype == "float64" else 1.0)
    on_cpu = jax.default_backend() == "cpu"
    default = Pace(COMPILE_SECONDS * (1.0 if on_cpu else 2.0), cost / compute_cores())
    # Elements change the number of parameters a little, and the time not at all.
    digits = f"{parameters:.1e}"
    kind = f"{speeds.device()}, {type(task.model).__name__} {digits}, {config.dtype}, {'forces' if gradients else 'energy'}"
    return Estimate(kind, default, speeds.estimated(kind, default), parameters)


def plan(
    expected: Estimate, config: TrainingConfig, train: Dataset, edges: int | None, groups: int | None, *, free: bool
) -> Plan:
    """Batches that suit the time and the memory.

    Args:
        expected: The estimate.
        config: Training settings, with the time limit.
        train: The training set.
        edges: Most edges of a batch; None leaves it to us.
        groups: Most groups of like size; None leaves it to us.
        free: Whether the batches may be made smaller than `batch_size` structures to suit the time; memory always counts.
    """
    per_edge, seconds = expected.pace.seconds_per_edge, _seconds(expected, config, train)
    if edges is None:
        longest = min(LONGEST_STEP, seconds / FEWEST_STEPS) if free else math.inf
        largest = int(np.max(train.num_edges, initial=1))
        edges = max(_two_digits(min(max(longest / per_edge, FEWEST_EDGES), memory_edges(expected.parameters))), largest)
    best: tuple[float, int, int, float] | None = None
    for number in range(1, MOST_GROUPS + 1) if groups is None else (groups,):
        planned = plan_epoch(
            train.num_atoms,
            train.num_edges,
            batch_size=config.batch_size,
            edge_budget=max(edges, int(np.max(train.num_edges, initial=1))),
            most_groups=number,
            seed=config.seed,
        )
        count, padded = len(capacities(planned)), waste(planned)
        if best is not None and count <= best[2]:
            break
        lost = count * expected.pace.compile_seconds + seconds * padded
        if best is None or lost < best[0]:
            largest_batch = max((batch.capacity.edges for batch in planned), default=1)
            best = (lost, number, count, len(planned) * largest_batch * per_edge)
    assert best is not None  # there is at least one group
    _, chosen, count, epoch_seconds = best
    compiling = count * expected.pace.compile_seconds
    epochs = None if config.max_minutes is None and config.max_minutes_in_all is None else seconds / max(epoch_seconds, 1e-9)
    words = "one capacity" if count == 1 else f"{count} capacities"
    lines = [
        f"batches: at most {config.batch_size} structures and {edges:,} edges (training.batch_size, data.batch_edges), "
        f"{words}; expected to take {_time(compiling)} to compile and {_time(epoch_seconds)} per epoch"
        + (f": {epochs:.2g} epochs in {_time(seconds)}" if epochs is not None else "")
    ]
    return Plan(Batching(edges, chosen), epochs, lines)


def memory_edges(parameters: int) -> float:
    """Edges of a batch that the memory has room for."""
    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    memory = (stats or {}).get("bytes_limit") or _main_memory()
    return MEMORY_SHARE * memory / (EDGE_BYTES * math.sqrt(parameters / 3.5e6))


def _main_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return 8 * 2.0**30


def _seconds(expected: Estimate, config: TrainingConfig, train: Dataset) -> float:
    """Time that the run is expected to train."""
    limits = [60 * config.max_minutes] if config.max_minutes else []
    if config.max_minutes_in_all:
        limits.append(max(60 * config.max_minutes_in_all - expected.pace.compile_seconds, 6 * config.max_minutes_in_all))
    epoch = float(np.sum(train.num_edges)) * expected.pace.seconds_per_edge
    if config.epochs or not (limits or config.max_steps):
        limits.append((config.epochs or DEFAULT_EPOCHS) * epoch)
    if config.max_steps:
        limits.append(config.max_steps * epoch * min(config.batch_size / max(len(train), 1), 1.0))
    return min(limits)


def _two_digits(number: float) -> int:
    size = 10 ** max(int(math.log10(max(number, 1))) - 1, 0)
    return max(int(number // size) * size, 1)


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.2g} minutes"
