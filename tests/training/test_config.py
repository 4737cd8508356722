"""The training section of a recipe."""

from typing import Any

import pytest
from pydantic import ValidationError

from equiform.training.config import TrainingConfig


def test_a_change_in_one_term_keeps_the_others() -> None:
    config = TrainingConfig.model_validate({"losses": {"forces": {"weight": 100}}})
    terms = config.losses.terms()
    assert list(terms) == ["energy", "forces"]
    assert (terms["forces"].weight, terms["forces"].kind, terms["energy"].weight) == (100, "l2norm", 1)


def test_terms_can_be_switched_off_and_added() -> None:
    losses = {"forces": None, "stress": {"weight": 2}, "other": {"dipole": {"kind": "l2norm"}}}
    terms = TrainingConfig.model_validate({"losses": losses}).losses.terms()
    assert list(terms) == ["energy", "stress", "dipole"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"learningrate": 1},
        {"losses": {"force": {"weight": 1}}},
        {"losses": {"energy": None, "forces": {"weight": 0}}},
        {"losses": {"other": {"energy": {}}}},
        {"losses": {"energy": {"kind": "l3"}}},
        {"ema": 1.0},
        {"batch_size": 0},
        {"max_minutes": -1},
        {"dtype": "float16"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(wrong)


def test_it_survives_json() -> None:
    config = TrainingConfig.model_validate({"losses": {"other": {"dipole": {}}}, "max_minutes": 0.1 + 0.2})
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
