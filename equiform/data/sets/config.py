"""What a recipe says about a benchmark data set."""

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
        train_size: Only the first so many structures of the training part.
        validation_size: The same of the validation part.
        test_size: The same of the test part.
        noise: OC20: draw positions between initial and relaxed ones anew in every epoch ("Noisy Nodes").
        folder: Where the published files are; `EQUIFORM_DATA`, then the user's cache, if null. An N-body set that is not
            there is made there.
        seed: Of the split.
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
        "polymers",
    ]
    target: str | None = None
    molecule: str | None = None
    split: str = "published"
    part: Literal["all", "100k", "10k"] = "all"
    train_size: int | None = Field(default=None, ge=1)
    validation_size: int | None = Field(default=None, ge=1)
    test_size: int | None = Field(default=None, ge=1)
    noise: bool = False
    folder: str | None = None
    seed: int = Field(default=1, ge=0)
