"""How long a run is."""

import pytest

from equiform.training.config import TrainingConfig
from equiform.training.duration import Speed, duration, steps_within


@pytest.mark.parametrize(
    ("limits", "in_time", "total"),
    [
        ({}, None, 3000),
        ({"epochs": 3}, None, 30),
        ({"max_steps": 7}, None, 7),
        ({"epochs": 3, "max_steps": 7}, None, 7),
        ({"epochs": 3, "max_steps": 70}, None, 30),
        ({"max_minutes": 1.0}, 55, 55),
        ({"max_minutes": 1.0, "epochs": 3}, 55, 30),
    ],
)
def test_the_tightest_limit_decides(limits: dict, in_time: int | None, total: int) -> None:
    assert duration(TrainingConfig(**limits), 10, in_time).total_steps == total


def test_validation_is_every_epoch_but_at_most_a_hundred_times() -> None:
    assert duration(TrainingConfig(epochs=5), 10, None).validate_every == 10
    assert duration(TrainingConfig(epochs=1000), 10, None).validate_every == 100
    assert duration(TrainingConfig(epochs=5, validate_every=3), 10, None).validate_every == 3


@pytest.mark.parametrize("every", [None, 7])
@pytest.mark.parametrize("seconds", [0.5, 30.0, 5000.0])
def test_steps_and_validations_fill_the_time(every: int | None, seconds: float) -> None:
    config = TrainingConfig(validate_every=every)
    speed = Speed(step=0.1, validation=0.3)
    total = steps_within(seconds, speed, config, 10)

    def cost(steps: int) -> float:
        planned = duration(config, 10, steps)
        return steps * speed.step + -(-steps // planned.validate_every) * speed.validation

    assert cost(total) <= seconds
    # The next longer runs do not fit; a rarer validation can make a much longer one fit again.
    assert cost(total + 1) > seconds


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.01])
def test_a_run_has_at_least_one_step(seconds: float) -> None:
    assert steps_within(seconds, Speed(0.1, 0.3), TrainingConfig(), 10) == 1
