"""Stored programs: found by what they are made from, and by nothing less."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.benchmark.inputs import make_molecules
from equiform.benchmark.measure import fresh_cache
from equiform.benchmark.programs import training_step, with_labels
from equiform.graph import batch, to_device
from equiform.models import build_model
from equiform.models.egnn import EGNNConfig
from equiform.models.presets import preset
from equiform.runtime.stored_programs import Indescribable, describe
from equiform.tasks.energy import Potential
from tests.toy import ToyConfig

CONFIG: Any = jax.config


def start(layers: int = 1) -> tuple[int, float]:
    """What a program does when it starts: how often it traced the step, and the loss after two of them."""
    config = EGNNConfig(elements=(1, 6, 7, 8), channels=4, num_layers=layers)
    step = training_step(Potential(build_model(config, key=jax.random.key(0))), forces=False)
    traced, lowered = [], step.lowered
    step.lowered = lambda *given: (traced.append(1), lowered(*given))[1]
    graph = to_device(with_labels(batch(make_molecules([5, 4]))))
    state, numbers, loss = step.initial_state(), np.array([1e-3, 1], np.float32), jnp.nan
    for _ in range(2):
        state, loss = step.compiled(state, graph, numbers)(state, graph, numbers)
    return len(traced), float(loss)


def test_a_later_start_does_not_trace_the_step_again_and_computes_the_same():
    with fresh_cache():
        folder = Path(CONFIG.jax_compilation_cache_dir) / "equiform-programs"
        traced, loss = start()
        (stored,) = folder.iterdir()
        assert traced == 1 and start() == (0, loss)
        assert start(layers=2)[0] == 1  # another model, another program
        stored.write_bytes(stored.read_bytes()[:100])
        # Half a file is no program; and what then comes from JAX's cache is not stored: it could not be read again.
        assert start() == (2, loss) == start()
        assert len(list(folder.iterdir())) == 2


def test_nothing_is_stored_where_the_cache_is_off():
    with fresh_cache():
        CONFIG.update("jax_compilation_cache_dir", None)
        assert start()[0] == 2


def test_what_differs_is_described_differently():
    config = preset("tiny", elements=(1, 6))
    other = preset("tiny", elements=(1, 6), num_layers=3)
    assert describe((config, {"a": 1.0})) == describe((preset("tiny", elements=(1, 6)), {"a": 1.0}))
    ones = np.ones(3)
    different = [
        config,
        other,
        ones,
        ones.astype(np.float32),
        2 * ones,
        ones[None],
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        (1,),
        [1],
    ]
    assert len(set(map(describe, different))) == len(different)


@pytest.mark.parametrize("value", [np.sin, lambda: 1, object(), {"deep": [print]}, ToyConfig(cutoff=5.0, elements=(1,))])
def test_what_is_not_known_completely_is_not_described(value):
    with pytest.raises(Indescribable):
        describe(value)
