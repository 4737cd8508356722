"""The model in docs/how-to/add-a-model.md, exactly as it stands there: conformance, training and prediction."""

import re
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from ase import Atoms

import equiform
from equiform.models import build_model, parse_config
from equiform.models.width import widened
from equiform.persist.modelfile import load_model
from equiform.tasks.energy import Potential
from equiform.testing import check, checks_for
from equiform.training.config import TrainingConfig
from equiform.training.evaluate import evaluate
from equiform.training.fit import fit
from equiform.training.run_folder import RunFolder
from tests.training.toys import molecules

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-model.md"
SMALL = {"name": "pair-net", "elements": (1, 6, 8), "cutoff": 4.0, "channels": 8}


@pytest.fixture
def written(monkeypatch) -> ModuleType:
    """The module of the page, with its line in `MODELS`."""
    text = PAGE.read_text(encoding="utf-8")
    source = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class PairNet(" in block)
    module = ModuleType("equiform_models_pair_net")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, str(PAGE), "exec"), module.__dict__)
    (line,) = re.findall(r'^    "(pair-net)": \((\w+), (\w+)\),$', text, re.MULTILINE)
    monkeypatch.setitem(equiform.models.MODELS, line[0], (getattr(module, line[1]), getattr(module, line[2])))
    return module


def test_it_is_about_sixty_lines_and_passes_every_check_that_its_traits_ask_for(written):
    config = parse_config(SMALL)
    potential = Potential(build_model(config, key=jax.random.key(0)), scale=2.0, elements=(1, 6, 8), anchored=True)
    names = checks_for(potential)
    assert {"smooth_through_the_cutoff", "far_apart_is_additive", "only_edges_are_read"} <= set(names)
    for name in names:
        check(name, potential)
    assert widened(config, 2).channels == 16


def test_it_is_trained_saved_and_used(written, tmp_path):
    potential = Potential(build_model(parse_config(SMALL), key=jax.random.key(0)))
    config = TrainingConfig(max_steps=60, batch_size=8, learning_rate=2e-2, ema=None, dtype="float64")
    held = molecules(8, seed=1)
    before = evaluate(potential, held, dtype="float64")["forces"]["rmse"]
    fit(potential, molecules(24), held, config, RunFolder.create(tmp_path / "run"), progress=False)
    trained = load_model(tmp_path / "run" / "best").task
    assert evaluate(trained, held, dtype="float64")["forces"]["rmse"] < 0.7 * before
    predictor = equiform.load(tmp_path / "run", dtype="float64")
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    step, moved = 1e-4, water.copy()
    moved.positions[1, 0] += step
    slope = (predictor.energy(moved) - predictor.energy(water)) / step
    np.testing.assert_allclose(predictor.forces(water)[1, 0], -slope, atol=1e-2)
    assert predictor.descriptors(water).shape == (3, 8)
