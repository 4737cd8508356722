"""Members of a committee are trained side by side as each would be alone."""

import jax
import numpy as np
import pytest

from equiform.data.pipeline.dataset import Dataset
from equiform.models import build_model, parse_config
from equiform.models.committee import committee
from equiform.persist.parameters import named, split
from equiform.tasks.energy import Potential
from equiform.tasks.members import members_of
from equiform.training.batches import BatchStream
from equiform.training.config import TrainingConfig
from equiform.training.step import TrainingStep
from tests.training.toys import molecule

FIELDS = {"name": "torchmd-et", "elements": (1, 6, 8), "num_layers": 1, "channels": 4, "num_heads": 1, "num_basis": 4}
FIELDS |= {"cutoff": 4.0}
SETTINGS = {"dtype": "float64", "batch_size": 2, "clip": 0.1, "ema": 0.9, "weight_decay": 0.1, "losses": {"forces": None}}


@pytest.fixture(scope="module")
def tasks():
    config = parse_config(FIELDS)
    models = [build_model(config, key=jax.random.key(seed)) for seed in (0, 1)]
    return Potential(committee(models)), [Potential(model) for model in models]


@pytest.mark.slow  # It compiles two steps.
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_members_step_as_they_would_alone(tasks, optimizer):
    whole, alone = tasks
    rng, config = np.random.default_rng(0), TrainingConfig.model_validate(SETTINGS | {"optimizer": optimizer})
    steps = [TrainingStep(task, config, config.losses.terms(), lambda _: None) for task in (whole, *alone)]
    states = [step.initial_state() for step in steps]
    with BatchStream(
        Dataset([molecule(rng, 3) for _ in range(4)], 4.0), batch_size=2, shuffle=False, dtype="float64"
    ) as stream:
        for batch in stream:
            # The two single models are one program.
            states = [run(state, batch, 0.01, [1.0])[0] for run, state in zip((steps[0], steps[1], steps[1]), states)]
    together, *single = states
    kept = steps[0].weights_to_keep(together)
    for number, state in enumerate(single):
        for name, leaf in named(state.params).items():
            found = named(together.params)[name.replace("model.", "model.members.", 1)]
            assert np.allclose(found[number], leaf, rtol=0, atol=1e-12), name
        ema = named(steps[1].weights_to_keep(state))
        for name, leaf in named(kept).items():
            assert np.allclose(leaf[number], ema[name.replace("members.", "", 1)], rtol=0, atol=1e-12), name
        assert float(together.sums[f"loss_member_{number + 1}"]) == pytest.approx(float(state.sums["loss"]), rel=1e-12)
    means = [np.mean([float(state.sums[name]) for state in single]) for name in ("loss", "gradient_norm")]
    assert means == pytest.approx([float(together.sums["loss"]), float(together.sums["gradient_norm"])], rel=1e-12)


def test_members_are_tasks_of_their_own(tasks):
    whole, alone = tasks
    for member, task in zip(members_of(whole), alone, strict=True):
        ours, theirs = named(split(member)[0]), named(split(task)[0])
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        assert member.model.config == task.model.config
