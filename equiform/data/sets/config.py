"""Settings of a benchmark data set."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SetConfig(BaseModel):
    """A published data set by name, with its published split.

    Attributes:
        set: Which data set.
        target: QM9: which of the 12 targets is learnt.
        molecule: MD17 and rMD17: which molecule; polymers: only this family, if given.
        split: "published" is that of the data set's own papers with this model (QM9: Equiformer's; MD17: 950/50/rest; OC20:
            the publishers' parts); "egnn" QM9's other one; "official-01" to "official-05" those of rMD17; "random" 950/50/rest
            of rMD17's frames; "systems" divides OC20 relaxations by system.
        part: OC20: which training part ("all", "100k", "10k").
        train_size: Use only the first structures of the training part, this many.
        validation_size: The same for the validation part.
        test_size: The same for the test part, and for each further test set.
        tests: nbody-gatr: which test sets, of eval, e3 and object; null: all.
        noise: OC20: redraw positions between initial and relaxed ones in every epoch ("Noisy Nodes").
        folder: Where the published files are; `EQUIFORM_DATA`, then the user's cache, if null. An N-body set that is not
            there is made there.
        seed: Of the split.
        batch_edges: Most edges of a training batch, unless a single structure has more; null sets no limit but the memory.
        batch_capacities: Most groups of structures of like size, each with a capacity that is compiled for itself; null
            chooses by what compilation costs and padding saves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: Literal[
        "qm9",
        "md17",
        "rmd17",
        "oc20-is2re",
        "nbody-egnn",
        "nbody-egnn-sweep",
        "nbody-se3",
        "nbody-demetar",
        "nbody-gravity",
        "nbody-gatr",
        "arteries",
        "tubes",
        "polymers",
    ]
    target: str | None = None
    molecule: str | None = None
    split: str = "published"
    part: Literal["all", "100k", "10k"] = "all"
    train_size: int | None = Field(default=None, ge=1)
    validation_size: int | None = Field(default=None, ge=1)
    test_size: int | None = Field(default=None, ge=1)
    tests: tuple[str, ...] | None = None
    noise: bool = False
    folder: str | None = None
    seed: int = Field(default=1, ge=0)
    batch_edges: int | None = Field(default=None, ge=1)
    batch_capacities: int | None = Field(default=None, ge=1)
