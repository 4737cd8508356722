"""A training run without the command line, on the shipped ethanol data.

python examples/train_from_python.py [section.key=value ...]
"""

import sys
from pathlib import Path

from equiform.jobs.train import train
from equiform.recipes.schema import load_recipe
from equiform.runtime.cache import enable_compilation_cache


def main(settings: list[str], folder: Path = Path("runs/example")) -> None:
    enable_compilation_cache()  # a second run of the same sizes starts at once
    data = {
        "train": ["equiform:ethanol_train.extxyz", "equiform:ethanol_atoms.extxyz"],
        "test": {"hot": "equiform:ethanol_1000K.extxyz"},
    }
    recipe, _ = load_recipe(None, ["model.preset=tiny", "training.max_minutes=3", *settings], {"data": data})
    outcome = train(recipe, folder, say=print, warn=print)
    assert outcome is not None
    for name, errors in outcome.errors.items():
        print(f"{name}: force MAE {1000 * errors['forces']['mae']:.1f} meV/Å")
    print("model:", outcome.model)


if __name__ == "__main__":
    main(sys.argv[1:])
