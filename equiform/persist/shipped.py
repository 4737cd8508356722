"""Models that come with the package, by name."""

import json
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file

CARD_FILE = "CARD.md"
"""A model's card: data, method, errors, where it fails, licence. Its first heading says what it is."""


class Shipped(NamedTuple):
    """A model of the package.

    Attributes:
        name: By which it is loaded.
        about: What it is, in one line.
        elements: Symbols of the elements that it knows.
        parameters: Number of parameters.
        megabytes: Size of its weights.
        card: The text of its card.
    """

    name: str
    about: str
    elements: list[str]
    parameters: int
    megabytes: float
    card: str


def shipped_models() -> dict[str, Path]:
    """Folders of the models of the package by name."""
    folder = Path(str(resources.files("equiform"))) / "persist" / "shipped"
    return {path.name: path for path in sorted(folder.glob("*")) if (path / "config.json").is_file()}


def about_shipped(folder: Path) -> Shipped:
    """The description of a model of the package.

    Args:
        folder: One of `shipped_models`.
    """
    from ase.data import chemical_symbols

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / config["weights"]["file"])
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    title = next(line for line in card.splitlines() if line.startswith("# "))
    return Shipped(
        name=folder.name,
        about=title.removeprefix("# ").partition(": ")[2],
        elements=[chemical_symbols[z] for z in config["task"]["elements"]],
        parameters=sum(int(np.prod(array.shape)) for array in weights.values()),
        megabytes=sum(array.nbytes for array in weights.values()) / 1e6,
        card=card,
    )
