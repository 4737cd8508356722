"""Relaxations: a model that knows the answer is right, and the simple rules are what they say."""

from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from equiform.data.sets import catalogue
from equiform.errors import UserError
from equiform.fields import find_field
from equiform.models.api import E3, ENERGY, Model, Traits, all_decay
from equiform.persist.modelfile import LoadedModel
from equiform.report.relaxation import _best_step, compare_relaxations
from equiform.tasks.energy import Potential
from tests.data.sets.test_oc20 import relaxation


class Oracle(Model):
    """Gives a share of the label that it is judged by."""

    share: Any
    config: Any = eqx.field(static=True)

    def __call__(self, graph, *, key=None):
        truth = jnp.nan_to_num(graph.node_fields["displacement"])
        return {"energy": jnp.zeros_like(truth[:, 0]), "displacement": self.share * truth}

    def decay_mask(self):
        return all_decay(self)


def loaded(folder, share, **changes):
    traits = Traits(E3, (ENERGY, find_field("displacement", "atoms")), cutoff=5.0)
    config = SimpleNamespace(traits=traits, **changes)
    data = {"set": "oc20-is2re", "split": "systems", "folder": str(folder)}
    return LoadedModel(Potential(Oracle(jnp.asarray(share), config)), {}, {"data": data})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache_folder", lambda: tmp_path / "cache")
    for number in range(7):
        relaxation(tmp_path / str(number))
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / str(number) / "random1.traj").rename(tmp_path / "all" / f"random{number}.traj")
    return tmp_path / "all"


def test_rules_are_judged_on_held_out_frames(folder):
    split, (*_, first, moving) = compare_relaxations(loaded(folder, 0.5), dtype="float64")
    assert "test" in split and (first.count, moving.count) == (2, 6)  # The last frame of four has nowhere to go.
    assert first.frames == "first frames of held-out systems"
    rules = {rule.name: rule for rule in first.rules}
    # Three of the four free atoms move by 0.3 Å along each axis.
    assert rules["nothing moves"].mae == pytest.approx(0.3 * 3 / 4) and np.isnan(rules["nothing moves"].cosine)
    assert rules["model"].mae == pytest.approx(0.15 * 3 / 4) and rules["model"].cosine == pytest.approx(1)
    (fitted,), (best,) = (
        [rule for name, rule in rules.items() if f"(best {where})" in name] for where in ("in training", "here")
    )
    assert abs(best.cosine) < 1 and 0 < best.mae <= min(fitted.mae, rules["nothing moves"].mae)


def test_a_model_trained_with_noise_is_also_judged_on_displaced_frames(folder):
    model = loaded(folder, 0.5)
    model.metadata["data"]["noise"] = True
    shaken = compare_relaxations(model, dtype="float64")[1][-1]
    rules = {rule.name: rule for rule in shaken.rules}
    # Two systems of four frames; noise of 0.3 Å on every axis at least.
    assert shaken.count == 8 and set(rules) == {"model", "nothing moves"} and rules["nothing moves"].mae > 0.15
    assert rules["model"].mae == pytest.approx(rules["nothing moves"].mae / 2) and rules["model"].cosine == pytest.approx(1)


def test_no_other_step_along_the_force_is_better():
    rng = np.random.default_rng(0)
    forces, true = rng.standard_normal((2, 40, 3))
    forces[:3] = 0
    true += 0.3 * forces
    errors = {step: np.abs(step * forces - true).mean() for step in np.linspace(-2, 2, 4001)}
    step = _best_step(forces, true)
    assert step == pytest.approx(min(errors, key=lambda s: errors[s]), abs=1e-3)
    assert np.abs(step * forces - true).mean() <= min(errors.values())


def test_other_models_are_refused(folder):
    other = loaded(folder, 1.0)
    other.metadata["data"]["split"] = "published"
    with pytest.raises(UserError, match="was not trained on relaxations split by system"):
        compare_relaxations(other)
    other.task.model.config.traits = Traits(E3, (ENERGY,), cutoff=5.0)
    with pytest.raises(UserError, match="has no displacement readout"):
        compare_relaxations(other)
