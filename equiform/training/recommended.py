"""The optimizer's settings for force fields of our own sizes, where the recipe gives none.

Found with the presets tiny and small on 3BPA, and tried on four small sets: docs/accuracy-per-minute.md.
"""

from typing import Any

from equiform.training.config import TrainingConfig

OPTIMIZER = "muon"
"""In as many steps, which take as long, its force errors are a third lower than Adam's."""
BETA1 = {"adam": 0.9, "muon": 0.95}
"""Decay rate of the first moment, which Muon orthogonalises."""
BATCH_SIZE = 5
"""Structures per batch. More, smaller steps reach a lower error in the same time than fewer steps on larger batches."""
EMA = 0.99
"""The runs have few steps: with 0.999 the average still holds weights of the run's first tenth."""
LEARNING_RATES = {
    "adam": {"tiny": 3e-3, "small": 2e-3, "medium": 1e-3},
    "muon": {"tiny": 1e-2, "small": 7e-3, "medium": 3e-3},
}
"""Peak learning rate by optimizer and preset; the larger the model, the smaller. Measured for tiny, Muon's for small too."""
LEARNING_RATE_STEPS = 3_000
"""Longer runs with Muon take lower rates: after 16,600 steps half the rate is better, after 2,600 as good."""
OWN_SIZES = ("tiny", "small", "medium")
"""The presets that have recommended settings."""


def recommended(config: TrainingConfig, preset: str | None) -> dict[str, Any]:
    """Settings that the recipe does not give, for training on forces.

    Args:
        config: The recipe's settings; what was given there is left alone.
        preset: Name of the model's preset.

    Returns:
        Fields of `TrainingConfig` to change; empty for presets without a recommendation.
    """
    if preset not in OWN_SIZES:
        return {}
    given = "optimizer" in config.model_fields_set or config.adapters is not None
    optimizer = config.optimizer if given else OPTIMIZER
    settings = {
        "optimizer": optimizer,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATES[optimizer][preset],
        "beta1": BETA1[optimizer],
        "ema": EMA,
    }
    if optimizer == "muon" and "learning_rate" not in config.model_fields_set:
        settings["learning_rate_steps"] = LEARNING_RATE_STEPS
    return {name: value for name, value in settings.items() if name not in config.model_fields_set}
