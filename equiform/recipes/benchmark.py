"""The `benchmark:` section of a recipe: the published table entry that it reproduces."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Measured(BaseModel):
    """One result of ours.

    Attributes:
        values: Test error by quantity, in the unit of the published value.
        scaled: Whether the scaled form was run.
        protocol: Training, validation and test structures, epochs.
        seed: Seed of weights, dropout and data order.
        device: The device it ran on.
        minutes: Wall time.
        command: The command line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, float]
    scaled: bool
    protocol: str
    seed: int
    device: str
    minutes: float
    command: str


class Benchmark(BaseModel):
    """The `benchmark:` section of a recipe: the entry of a paper's table, and its published values.

    Attributes:
        table: The table.
        row: The method's name in the table.
        column: The molecule or target.
        by_set: Whether the table's columns are test sets: a value then carries its set's name, even if there is only one set.
        published: Test error and unit by quantity; empty where the authors published none.
        metric: The published metric: mean absolute or mean squared error.
        source: Reference for the published values.
        cost: Cost of the full protocol.
        scaled: Changes (`section.key=value`) that make it fit a small machine.
        measured: Our own results.
        recipe: Written by a run: the built-in recipe that it followed.
        form: Written by a run: as published, scaled, or with changes of its own.
        changes: Written by a run: the changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Literal["qm9", "md17", "rmd17", "oc20", "nbody", "polymers"]
    row: str
    column: str
    by_set: bool = False
    published: dict[str, tuple[float, str]] = Field(default_factory=dict)
    metric: Literal["mae", "mse"] = "mae"
    source: str = ""
    cost: str = ""
    scaled: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    recipe: str = ""
    form: Literal["full", "scaled", "changed"] = "full"
    changes: tuple[str, ...] = ()
